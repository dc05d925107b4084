"""The status of a pod, as the kubelet writes it; pure.

One rule: it is a function of how each container is, and replaces what the status said of them before.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from hami_testkit.cluster.kubelet.pod import Role, Script, uid_of
from hami_testkit.cluster.status import Json

OURS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")


class Waiting(Struct, frozen=True):
    """A container that does not run yet, or not any more for now."""

    reason: str = "PodInitializing"
    message: str = ""


class Running(Struct, frozen=True):
    """A container that runs; ``began`` on the monotonic clock."""

    since: str
    began: float


class Ended(Struct, frozen=True):
    """A container that ran."""

    exit_code: int
    since: str
    until: str


class ContainerRun(Struct, kw_only=True):
    """One container of an admitted pod, as the container runtime knows it."""

    spec: Json
    role: Role
    script: Script
    state: Waiting | Running | Ended = Waiting()
    last: Ended | None = None
    restarts: int = 0
    kill: bool = False

    @property
    def name(self) -> str:
        """Return the container's name."""
        return str(self.spec["name"])

    @property
    def is_running(self) -> bool:
        """Say whether it runs."""
        return isinstance(self.state, Running)

    def start(self, began: float) -> None:
        """Let it run."""
        self.state = Running(now(), began)

    def end(self, code: int) -> None:
        """Let it have ended."""
        since = self.state.since if isinstance(self.state, Running) else now()
        self.state = Ended(code, since, now())

    def wait(self, reason: str, message: str = "") -> None:
        """Let it wait, remembering how it ended."""
        if isinstance(self.state, Ended):
            self.last = self.state
        self.state = Waiting(reason, message)


def now() -> str:
    """Return the time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def phase(runs: Sequence[ContainerRun], *, over: bool) -> str:
    """Return the phase of a pod; ``over``: nothing will be started any more."""
    mains = [r for r in runs if r.role is Role.MAIN]
    if over:
        failed = [r for r in runs if isinstance(r.state, Ended) and r.state.exit_code and r.role is not Role.SIDECAR]
        return "Failed" if failed or any(isinstance(r.state, Waiting) for r in mains) else "Succeeded"
    return "Running" if any(not isinstance(r.state, Waiting) or r.last for r in mains) else "Pending"


def of_pod(pod: Json, runs: Sequence[ContainerRun], *, started: str, over: bool) -> Json:
    """Return the whole status of an admitted pod."""
    initialised = all(_is_initialised(r) for r in runs if r.role is not Role.MAIN)
    ready = initialised and all(r.is_running for r in runs if r.role is Role.MAIN)
    truths = {
        "PodReadyToStartContainers": not over,
        "Initialized": initialised,
        "Ready": ready,
        "ContainersReady": ready,
    }
    return {
        "phase": phase(runs, over=over),
        "startTime": started,
        "conditions": _conditions(pod, truths),
        "initContainerStatuses": [_container(pod, r) for r in runs if r.role is not Role.MAIN],
        "containerStatuses": [_container(pod, r) for r in runs if r.role is Role.MAIN],
    }


def rejected(reason: str, message: str) -> Json:
    """Return the status of a pod that was not admitted: terminal, whatever its restartPolicy."""
    return {"phase": "Failed", "reason": reason, "message": f"Pod was rejected: {message}", "startTime": now()}


def _is_initialised(run: ContainerRun) -> bool:
    if run.role is Role.SIDECAR:
        return run.is_running
    return isinstance(run.state, Ended) and run.state.exit_code == 0


def _conditions(pod: Json, truths: Mapping[str, bool]) -> list[Json]:
    """Return our conditions beside those of others, such as the scheduler's PodScheduled."""
    told: Iterable[Json] = (pod.get("status") or {}).get("conditions") or []
    others = [c for c in told if c.get("type") not in OURS]
    before = {c.get("type"): c for c in told}
    return others + [_condition(kind, "True" if truth else "False", before.get(kind)) for kind, truth in truths.items()]


def _condition(kind: str, value: str, before: Json | None) -> Json:
    same = before is not None and before.get("status") == value
    changed = before.get("lastTransitionTime") if before and same else now()
    return {"type": kind, "status": value, "lastProbeTime": None, "lastTransitionTime": changed}


def _container(pod: Json, run: ContainerRun) -> Json:
    is_done = run.role is Role.INIT and isinstance(run.state, Ended) and run.state.exit_code == 0
    image = str(run.spec.get("image") or "")
    identity = f"standin://{uid_of(pod)}/{run.name}/{run.restarts}"
    told: dict[str, Any] = {"name": run.name, "image": image, "imageID": image, "restartCount": run.restarts}
    told |= {"started": run.is_running, "ready": run.is_running or is_done, "state": _state(run.state, identity)}
    told["lastState"] = _state(run.last, identity) if run.last else {}
    return told if isinstance(run.state, Waiting) else {**told, "containerID": identity}


def _state(state: Waiting | Running | Ended, identity: str) -> Json:
    match state:
        case Waiting(reason, message):
            return {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        case Running(since):
            return {"running": {"startedAt": since}}
        case Ended(code, since, until):
            reason = "Completed" if code == 0 else "Error"
            times = {"startedAt": since, "finishedAt": until}
            return {"terminated": {"exitCode": code, "reason": reason, **times, "containerID": identity}}
