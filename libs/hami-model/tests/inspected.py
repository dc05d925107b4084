"""A cluster as the API server shows it, in the words of the inspection's tests."""

from collections.abc import Iterable, Sequence

from hami_model.inspection import Finding, Sight, inspect
from hami_model.objects import Node, Pod
from hami_testkit.builders import PodBuilder, a_catalog
from msgspec import structs

CATALOG = a_catalog()
NOW = 1_800_000_000.0
NVIDIA_HOLDS = "hami.io/vgpu-devices-allocated"
MLU_HOLDS = "hami.io/cambricon-mlu-devices-allocated"


def time(seconds_ago: float) -> str:
    """Return HAMi's unix seconds."""
    return str(int(NOW - seconds_ago))


def bound(built: PodBuilder, node: str = "node-1", *, holds: str = "", key: str = NVIDIA_HOLDS, phase: str = "success",
          ago: float = 10) -> Pod:  # fmt: skip
    """Return a pod that runs on a node, with what its annotations say."""
    said = {"hami.io/vgpu-node": node, "hami.io/bind-phase": phase, "hami.io/bind-time": time(ago)}
    pod = built.annotated(said | ({key: holds} if holds else {})).pod()
    return structs.replace(pod, spec=structs.replace(pod.spec, node_name=node))


def phase(pod: Pod, phase: str) -> Pod:
    return structs.replace(pod, status=structs.replace(pod.status, phase=phase))


def look(nodes: Iterable[Node], pods: Sequence[Pod] = (), *, untried: Iterable[str] = ()) -> tuple[Finding, ...]:
    """Inspect once."""
    return inspect(Sight(nodes=list(nodes), pods=pods, now=NOW, untried=frozenset(untried)), CATALOG)


def rules(findings: Iterable[Finding]) -> list[str]:
    return [finding.rule for finding in findings]
