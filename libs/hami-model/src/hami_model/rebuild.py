"""The books after a full list of pods: at start, and whenever a watch had to begin anew.

One rule: a list replaces what came from watching; pods already in the books keep their allocation whatever their
annotations have become. On empty books the outcome is the state without RESERVED and BINDING.
"""

from collections.abc import Sequence

from hami_model.catalog import Catalog
from hami_model.ledger import Ledger
from hami_model.objects import Pod
from hami_model.observe import DevicesOf, Notice, Sight, missing, observe


def rebuild(
    ledger: Ledger, pods: Sequence[Pod], catalog: Catalog, devices_of: DevicesOf, *, at: float = 0.0
) -> tuple[Notice, ...]:
    """Bring the books to what the list of all pods shows; return what people should hear."""
    notices: list[Notice] = []
    for pod in pods:
        entry = ledger.entry(pod.metadata.uid)
        notices += _take(ledger, observe(entry, pod, catalog, devices_of, at=at))
    return (*notices, *_take(ledger, missing(ledger.entries, {pod.metadata.uid for pod in pods})))


def _take(ledger: Ledger, sight: Sight) -> tuple[Notice, ...]:
    for event in sight.events:
        ledger.apply(event)
    return sight.notices
