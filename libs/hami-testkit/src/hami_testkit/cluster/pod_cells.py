"""What a table says of a pod: how many containers are ready, how it is, how often it was restarted.

One rule: told from the pod's status by the API server's own order: what holds a pod up comes before its phase.
"""

from __future__ import annotations

from hami_testkit.cluster.ages import since
from hami_testkit.cluster.status import Json

GATED = "SchedulingGated"
_OVER = ("Succeeded", "Failed")


def ready(pod: Json) -> str:
    """Return how many of its containers and sidecars are ready."""
    sidecars = _sidecars(pod)
    found = [c for c in _statuses(pod, "initContainerStatuses") if c.get("name") in sidecars]
    count = sum(bool(c.get("ready")) for c in [*found, *_statuses(pod, "containerStatuses")])
    return f"{count}/{len(pod['spec']['containers']) + len(sidecars)}"


def status(pod: Json) -> str:
    """Return how the pod is, in one word."""
    told = pod["status"]
    phase = told.get("phase") or ""
    if pod["metadata"].get("deletionTimestamp"):
        if told.get("reason") == "NodeLost":
            return "Unknown"
        if phase not in _OVER:
            return "Terminating"
    starting = _starting(pod)
    if starting and _condition(pod, "Initialized").get("status") != "True":
        return starting
    is_gated = _condition(pod, "PodScheduled").get("reason") == GATED
    return _running(pod, GATED if is_gated else told.get("reason") or phase)


def _starting(pod: Json) -> str:
    """Return how far the init containers are, empty when they are through."""
    total, sidecars = len(pod["spec"].get("initContainers") or ()), _sidecars(pod)
    for index, container in enumerate(_statuses(pod, "initContainerStatuses")):
        state = container.get("state") or {}
        ended = state.get("terminated")
        if ended and ended.get("exitCode") == 0:
            continue
        if container.get("name") in sidecars and container.get("started"):
            continue
        waits = (state.get("waiting") or {}).get("reason")
        if ended or (waits and waits != "PodInitializing"):
            return f"Init:{_end(ended) if ended else waits}"
        return f"Init:{index}/{total}"
    return ""


def _running(pod: Json, word: str) -> str:
    runs = False
    for container in reversed(_statuses(pod, "containerStatuses")):
        state = container.get("state") or {}
        if waits := (state.get("waiting") or {}).get("reason"):
            word = waits
        elif ended := state.get("terminated"):
            word = _end(ended)
        elif container.get("ready") and state.get("running") is not None:
            runs = True
    if word == "Completed" and runs:
        return "Running" if _condition(pod, "Ready").get("status") == "True" else "NotReady"
    return word


def _end(ended: Json) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode', 0)}"


def restarts(pod: Json) -> str:
    """Return how often its containers were restarted, and when last."""
    sidecars = _sidecars(pod)
    through = not _starting(pod) or _condition(pod, "Initialized").get("status") == "True"
    first = [c for c in _statuses(pod, "initContainerStatuses") if not through or c.get("name") in sidecars]
    counted = [*first, *(_statuses(pod, "containerStatuses") if through else ())]
    count = sum(c.get("restartCount") or 0 for c in counted)
    ends = [((c.get("lastState") or {}).get("terminated") or {}).get("finishedAt") for c in counted]
    last = max(filter(None, ends), default=None)
    return f"{count} ({since(last)} ago)" if count and last else str(count)


def address(pod: Json) -> str:
    """Return its first address."""
    return next((each["ip"] for each in pod["status"].get("podIPs") or () if each.get("ip")), "<none>")


def gates(pod: Json) -> str:
    """Return how many of its readiness gates are open."""
    wanted = pod["spec"].get("readinessGates")
    if not wanted:
        return "<none>"
    count = sum(_condition(pod, gate.get("conditionType", "")).get("status") == "True" for gate in wanted)
    return f"{count}/{len(wanted)}"


def _statuses(pod: Json, field: str) -> list[Json]:
    return pod["status"].get(field) or []


def _sidecars(pod: Json) -> set[str]:
    return {c["name"] for c in pod["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always"}


def _condition(pod: Json, kind: str) -> Json:
    return next((c for c in pod["status"].get("conditions") or () if c.get("type") == kind), {})
