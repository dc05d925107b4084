"""What the kubelet reads from a pod's spec and writes into its status; pure."""

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]


def has_ended(pod: Json) -> bool:
    """Say whether the pod is over for good."""
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}


def containers(pod: Json) -> Iterator[tuple[Json, bool]]:
    """Yield containers in order of admission, and whether each keeps its IDs (an ordinary init container does not)."""
    for container in pod["spec"].get("initContainers") or []:
        yield container, container.get("restartPolicy") == "Always"
    for container in pod["spec"]["containers"]:
        yield container, True


def wanted(container: Json) -> dict[str, int]:
    """Return the extended resources of a container that are whole numbers, in the order of the limits."""
    limits = (container.get("resources") or {}).get("limits") or {}
    return {name: int(value) for name, value in limits.items() if "/" in name and str(value).isdigit()}


def running(pod: Json, now: str) -> Json:
    """Return the status of a pod whose ordinary init containers have ended well and whose containers run."""
    init = [
        _running(c, now) if c.get("restartPolicy") == "Always" else _terminated(c, now, 0)
        for c in pod["spec"].get("initContainers") or []
    ]
    return {
        "phase": "Running",
        "startTime": now,
        "initContainerStatuses": init,
        "containerStatuses": [_running(c, now) for c in pod["spec"]["containers"]],
    }


def ended(pod: Json, now: str, code: int) -> Json:
    """Return the status of a pod whose containers have all ended."""
    return {
        "phase": "Succeeded" if code == 0 else "Failed",
        "initContainerStatuses": [_terminated(c, now, 0) for c in pod["spec"].get("initContainers") or []],
        "containerStatuses": [_terminated(c, now, code) for c in pod["spec"]["containers"]],
    }


def rejected(why: str) -> Json:
    """Return the status of a pod that was not admitted: terminal, whatever its restartPolicy."""
    return {
        "phase": "Failed",
        "reason": "UnexpectedAdmissionError",
        "message": f"Pod was rejected: {why}, which is unexpected",
    }


def _running(container: Json, now: str) -> Json:
    state = {"running": {"startedAt": now}}
    return {"name": container["name"], "started": True, "ready": True, "restartCount": 0, "state": state}


def _terminated(container: Json, now: str, code: int) -> Json:
    reason = "Completed" if code == 0 else "Error"
    state = {"terminated": {"exitCode": code, "finishedAt": now, "reason": reason}}
    return {"name": container["name"], "started": False, "ready": False, "restartCount": 0, "state": state}
