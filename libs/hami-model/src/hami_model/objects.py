"""Kubernetes objects as the model reads them: only the fields that a rule of ours looks at.

One rule: decoding is lenient about what Kubernetes leaves out and strict about what it sends. Field names are
Kubernetes' own (camelCase on the wire). Nothing here knows how an object was fetched. What the books keep by the ten
thousand, here and elsewhere, can form no cycle, so Python's collector leaves it alone (``gc=False``).
"""

from msgspec import Struct, field


class Resources(Struct, frozen=True, gc=False, rename="camel"):
    """``resources`` of a container: quantities by resource name, as written (``3k``, ``16Gi``)."""

    limits: dict[str, str | int | float] | None = None
    requests: dict[str, str | int | float] | None = None


class EnvVar(Struct, frozen=True, gc=False, rename="camel"):
    """One literal environment variable; ``valueFrom`` is not read."""

    name: str
    value: str | None = None


class SecurityContext(Struct, frozen=True, gc=False, rename="camel"):
    """The one security setting that admission looks at."""

    privileged: bool | None = None


class Container(Struct, frozen=True, gc=False, rename="camel"):
    """A container or init container; ``restartPolicy: Always`` makes an init container a sidecar."""

    name: str = ""
    resources: Resources | None = None
    env: list[EnvVar] | None = None
    security_context: SecurityContext | None = None
    restart_policy: str | None = None

    @property
    def is_sidecar(self) -> bool:
        """Say whether this init container keeps running beside the containers (Kubernetes' sidecar)."""
        return self.restart_policy == "Always"


class PodSpec(Struct, frozen=True, gc=False, rename="camel"):
    """What a pod asks for."""

    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    scheduler_name: str | None = None
    node_name: str | None = None
    runtime_class_name: str | None = None


class Terminated(Struct, frozen=True, gc=False, rename="camel"):
    """How a container ended."""

    exit_code: int = 0


class ContainerState(Struct, frozen=True, gc=False, rename="camel"):
    """The state of a container; at most one of the two is set."""

    running: dict[str, object] | None = None
    terminated: Terminated | None = None


class ContainerStatus(Struct, frozen=True, gc=False, rename="camel"):
    """One entry of ``containerStatuses`` or ``initContainerStatuses``."""

    name: str = ""
    started: bool | None = None
    restart_count: int = 0
    state: ContainerState | None = None
    last_state: ContainerState | None = None


class PodStatus(Struct, frozen=True, gc=False, rename="camel"):
    """How far the pod is."""

    phase: str | None = None
    start_time: str | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None


class Meta(Struct, frozen=True, gc=False, rename="camel"):
    """Object metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generate_name: str = ""
    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class Pod(Struct, frozen=True, gc=False, rename="camel"):
    """A pod. Containers are counted init containers first, then containers, as HAMi's annotations do."""

    metadata: Meta = field(default_factory=Meta)
    spec: PodSpec = field(default_factory=PodSpec)
    status: PodStatus = field(default_factory=PodStatus)

    @property
    def annotations(self) -> dict[str, str]:
        """Return the annotations, empty where there are none."""
        return self.metadata.annotations or {}

    @property
    def init_containers(self) -> list[Container]:
        """Return the init containers, sidecars among them, in the order of the spec."""
        return self.spec.init_containers or []

    @property
    def containers(self) -> list[Container]:
        """Return the ordinary containers in the order of the spec."""
        return self.spec.containers or []

    @property
    def all_containers(self) -> list[Container]:
        """Return init containers, then containers: the order of every device annotation."""
        return [*self.init_containers, *self.containers]


class NodeStatus(Struct, frozen=True, gc=False, rename="camel"):
    """What the kubelet reports of the node."""

    capacity: dict[str, str | int | float] | None = None
    allocatable: dict[str, str | int | float] | None = None


class Node(Struct, frozen=True, gc=False, rename="camel"):
    """A node."""

    metadata: Meta = field(default_factory=Meta)
    status: NodeStatus = field(default_factory=NodeStatus)

    @property
    def annotations(self) -> dict[str, str]:
        """Return the annotations, empty where there are none."""
        return self.metadata.annotations or {}


class QuotaSpec(Struct, frozen=True, gc=False, rename="camel"):
    """The limits of a ResourceQuota."""

    hard: dict[str, str | int | float] | None = None


class ResourceQuota(Struct, frozen=True, gc=False, rename="camel"):
    """A ResourceQuota; we read ``spec.hard["limits.<resource>"]``."""

    metadata: Meta = field(default_factory=Meta)
    spec: QuotaSpec = field(default_factory=QuotaSpec)


class PodRef(Struct, frozen=True, gc=False, order=True):
    """Names one pod for good: a namesake made later has another uid."""

    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, pod: Pod) -> "PodRef":
        """Return the reference of a pod as the API server shows it."""
        return cls(pod.metadata.namespace, pod.metadata.name, pod.metadata.uid)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
