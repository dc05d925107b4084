"""The API server and the kubelet, as far as pods with devices care: small enough to be obviously right.

One rule: it knows nothing of our books. Every change moves the pod's resourceVersion and is appended to the log that a
watch replays; a Binding lands only on the pod, and on the resourceVersion, that it was made for.
"""

from dataclasses import dataclass, field
from typing import Any

from hami_model.allocation import Allocation
from hami_model.objects import Container, ContainerState, ContainerStatus, Pod, PodStatus, Terminated
from msgspec import structs


@dataclass(frozen=True)
class Binding:
    """A Binding on its way. ``gives`` is what its annotations say, kept apart from what people make of them."""

    uid: str
    node: str
    resource_version: str
    annotations: dict[str, str]
    gives: Allocation


@dataclass
class ApiModel:
    """Pods by uid, and the log of everything that happened to them: the pod, and whether it is still there."""

    pods: dict[str, Pod] = field(default_factory=dict)
    log: list[tuple[Pod, bool]] = field(default_factory=list)

    def create(self, pod: Pod) -> None:
        """Store a new pod."""
        self._store(pod)

    def annotate(self, uid: str, annotations: dict[str, str]) -> Pod:
        """Patch annotations, as anybody may."""
        return self._change(uid, annotations=annotations)

    def bind(self, binding: Binding) -> bool:
        """Store a Binding, unless it is too late for it."""
        pod = self.pods.get(binding.uid)
        if pod is None or pod.spec.node_name or pod.metadata.deletion_timestamp:
            return False
        if pod.metadata.resource_version != binding.resource_version:
            return False
        bound = structs.replace(pod, spec=structs.replace(pod.spec, node_name=binding.node))
        self._store(self._annotated(bound, binding.annotations))
        return True

    def start(self, uid: str) -> None:
        """Let the kubelet start the pod: init containers have ended with 0, containers run."""
        pod = self.pods[uid]
        ended, running = ContainerState(terminated=Terminated(exit_code=0)), ContainerState(running={})
        init = [_status(c, running if c.is_sidecar else ended) for c in pod.init_containers]
        apps = [_status(c, running) for c in pod.containers]
        self._store(
            structs.replace(
                pod, status=PodStatus(phase="Running", init_container_statuses=init, container_statuses=apps)
            )
        )

    def finish(self, uid: str, phase: str) -> None:
        """End the pod."""
        self._store(structs.replace(self.pods[uid], status=structs.replace(self.pods[uid].status, phase=phase)))

    def terminate(self, uid: str) -> None:
        """Ask for the pod's deletion; it stays while its grace period lasts."""
        self._change(uid, deletion_timestamp="2026-01-01T00:00:00Z")

    def remove(self, uid: str) -> None:
        """Remove the object."""
        self.log.append((self.pods.pop(uid), False))

    def holds_devices(self, uid: str) -> bool:
        """Say whether the pod is on a node and not over."""
        pod = self.pods.get(uid)
        return pod is not None and bool(pod.spec.node_name) and pod.status.phase not in ("Succeeded", "Failed")

    def _change(self, uid: str, *, annotations: dict[str, str] | None = None, **metadata: Any) -> Pod:
        pod = self._annotated(self.pods[uid], annotations or {})
        return self._store(structs.replace(pod, metadata=structs.replace(pod.metadata, **metadata)))

    def _annotated(self, pod: Pod, annotations: dict[str, str]) -> Pod:
        return structs.replace(
            pod, metadata=structs.replace(pod.metadata, annotations={**pod.annotations, **annotations})
        )

    def _store(self, pod: Pod) -> Pod:
        stored = structs.replace(pod, metadata=structs.replace(pod.metadata, resource_version=str(len(self.log) + 1)))
        self.pods[pod.metadata.uid] = stored
        self.log.append((stored, True))
        return stored


def _status(container: Container, state: ContainerState) -> ContainerStatus:
    return ContainerStatus(name=container.name, started=True, state=state)
