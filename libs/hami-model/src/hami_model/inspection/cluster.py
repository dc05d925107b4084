"""One look at a whole cluster."""

from collections.abc import Sequence

from msgspec import Struct

from hami_model.catalog import Catalog
from hami_model.inspection import rules
from hami_model.inspection.cards import card_findings
from hami_model.inspection.findings import Finding
from hami_model.inspection.nodes import lock_findings, registered
from hami_model.inspection.pods import Holder, Moment, has_ended, inspect_pod
from hami_model.objects import Node, Pod


class Sight(Struct, frozen=True, kw_only=True):
    """What the API server shows. ``now`` in unix seconds, by the API server's clock where it is known.

    ``untried``: uids of pods whose status says nothing of any scheduler (no condition ``PodScheduled``).
    ``unread``: what was listed and cannot be read, each with its reason.
    """

    nodes: Sequence[Node]
    pods: Sequence[Pod]
    now: float
    scheduler: str = "hami-scheduler"
    untried: frozenset[str] = frozenset()
    unread: tuple[str, ...] = ()


def inspect(sight: Sight, catalog: Catalog) -> tuple[Finding, ...]:
    """Return everything that is wrong; cards first, then pods, nodes and locks."""
    cards, of_nodes = registered(sight.nodes, catalog)
    names = {node.metadata.name for node in sight.nodes}
    moment = Moment(now=sight.now, scheduler=sight.scheduler, nodes=names, untried=sight.untried)
    of_pods: list[Finding] = []
    holders: list[Holder] = []
    for pod in sight.pods:
        if has_ended(pod):
            continue
        found, holder = inspect_pod(pod, catalog, moment)
        of_pods += found
        if holder is not None:
            holders.append(holder)
    by_name = {(pod.metadata.namespace, pod.metadata.name): pod for pod in sight.pods}
    locks = lock_findings(sight.nodes, by_name, catalog, now=sight.now)
    unread = (rules.OBJECT_UNREADABLE.broken(f"the API server lists {text}") for text in sight.unread)
    return (*unread, *card_findings(cards, holders, catalog), *of_pods, *of_nodes, *locks)
