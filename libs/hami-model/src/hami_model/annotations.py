"""The pod annotations that say who got what: HAMi's strings <-> ``Allocation``.

One rule: written exactly as HAMi's plugins read them, one group per container; read tolerantly, because HAMi itself
leaves out groups and adds others at the end. Values that make no sense are refused, never bent.
"""

import re
from collections.abc import Mapping, Sequence

from msgspec import structs

from hami_model.allocation import Allocation, ContainerGrants, Cut, Grant
from hami_model.catalog import Catalog
from hami_model.demands import pod_demand, with_roles
from hami_model.errors import BadDemand, DomainError, MalformedAllocation
from hami_model.keys import ALLOCATING, BIND_PHASE, BIND_TIME, NODE, SUCCESS, TIME, is_served
from hami_model.objects import Pod, PodRef
from hami_model.register import decode_links, decode_register, encode_links, encode_register
from hami_model.units import INT32_MAX
from hami_model.vendor import NOW, NOW_IN_NANOSECONDS, Constraints, Vendor

__all__ = [
    "BIND_PHASE", "BIND_TIME", "NODE", "SUCCESS", "TIME", "allocation_annotations", "as_guest", "check_size",
    "decode_links", "decode_pod", "decode_register", "encode_links", "encode_pod", "encode_register", "is_served",
    "read_allocation", "with_cuts",
]  # fmt: skip

MOST_BYTES = 256 * 1024
"""What the API server allows all annotations of an object together."""

_FIELDS = 4
_INSTANCE = re.compile(r"(?<=.)\[[0-9]+-[0-9]+\]\Z")
"""HAMi before 2.10 named a part of a partitioned card so, after the card: geometry and position."""
_NUMBER = re.compile(r"[0-9]{1,10}")
_KEY = re.compile(
    r"(?:(?P<prefix>[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?)/)?(?P<name>[a-z0-9](?:[-_.a-z0-9]{0,61}[a-z0-9])?)"
)


def encode_pod(containers: Sequence[ContainerGrants], word: str) -> str:
    """Write one vendor's grants: ``uuid,word,MiB,cores:`` each, ``;`` after every container, also one without any."""
    return "".join(
        "".join(f"{g.uuid},{g.model or word},{g.memory},{g.cores}:" for g in c.grants if g.vendor == word) + ";"
        for c in containers
    )


def decode_pod(
    text: str, word: str, pod: Pod, *, asking: Sequence[bool] | None = None
) -> tuple[tuple[Grant, ...], ...]:
    """Read one vendor's grants, one tuple per container of the pod; raise ``MalformedAllocation``.

    HAMi compat: HAMi leaves out groups of containers without devices (spec IDX-1). ``asking`` says which containers ask
    for this vendor; where the groups cannot stand as written but are as many as the asking containers, those get them.
    """
    groups = [_group(group, word) for group in text.split(";")]
    while groups and not groups[-1]:
        groups.pop()
    size = len(pod.all_containers)
    asking = [True] * size if asking is None else asking
    filled = [at for at, group in enumerate(groups) if group]
    if len(groups) <= size and all(asking[at] for at in filled):
        return tuple(groups[at] if at < len(groups) else () for at in range(size))
    places = [at for at, asks in enumerate(asking) if asks]
    if len(places) != len(filled):
        raise MalformedAllocation(
            f"{text!r} gives {word} devices to {len(filled)} containers, {len(places)} ask for them"
        )
    moved = {place: groups[at] for place, at in zip(places, filled, strict=True)}
    return tuple(moved.get(at, ()) for at in range(size))


def with_cuts(vendor: Vendor, pod: Pod, given: Sequence[tuple[Grant, ...]]) -> tuple[tuple[Grant, ...], ...]:
    """Add the parts that a pod's annotations reserve to its grants, card by card; raise ``MalformedAllocation``.

    What is left over of a card is added to the last grant of that card: it is taken, whoever was to have it.
    """
    waiting: dict[str, list[Cut]] = {}
    for uuid, cut in vendor.cuts(vendor, pod) if vendor.cuts else ():
        waiting.setdefault(uuid, []).append(cut)
    if not waiting:
        return tuple(given)
    last = {grant.uuid: (at, place) for at, grants in enumerate(given) for place, grant in enumerate(grants)}
    unheld = waiting.keys() - last.keys()
    if unheld:
        raise MalformedAllocation(f"it reserves parts of {', '.join(sorted(unheld))}, of which the pod holds nothing")

    def cuts(at: int, place: int, uuid: str) -> tuple[Cut, ...]:
        of_card = waiting.get(uuid, [])
        taken = len(of_card) if (at, place) == last[uuid] else 1
        found = tuple(of_card[:taken])
        del of_card[:taken]
        return found

    return tuple(
        tuple(structs.replace(grant, cuts=cuts(at, place, grant.uuid)) for place, grant in enumerate(grants))
        for at, grants in enumerate(given)
    )


def allocation_annotations(catalog: Catalog, allocation: Allocation, pod: Pod, *, now: float) -> dict[str, str]:
    """Return everything that HAMi writes for this allocation at filter and bind, at the wall-clock second ``now``."""
    written = {NODE: allocation.node, TIME: NOW, BIND_PHASE: ALLOCATING, BIND_TIME: NOW}
    for word in allocation.vendors:
        vendor = catalog.by_word(word)
        text = encode_pod(allocation.containers, word)
        written |= {key: text for key in (vendor.keys.to_allocate, vendor.keys.allocated) if key}
        written |= vendor.annotations(vendor, allocation, pod) if vendor.annotations else {}
    times = {NOW: str(int(now)), NOW_IN_NANOSECONDS: f"{int(now * 10**6)}000"}
    return {key: times.get(value, value) for key, value in written.items()}


def read_allocation(catalog: Catalog, pod: Pod) -> Allocation | None:
    """Read what a bound pod holds from its ``*-allocated`` annotations; None when it is unbound or holds nothing.

    Raise ``MalformedAllocation`` for an annotation that cannot be read.
    """
    if not pod.spec.node_name:
        return None
    grants: list[tuple[Grant, ...]] = [() for _ in pod.all_containers]
    for vendor in catalog.vendors:
        text = pod.annotations.get(vendor.keys.allocated)
        if text is not None:
            read = with_cuts(vendor, pod, decode_pod(text, vendor.word, pod, asking=_asking(catalog, pod, vendor)))
            read = as_guest(vendor.constraints(vendor, pod), read)
            grants = [before + more for before, more in zip(grants, read, strict=True)]
    if not any(grants):
        return None
    containers = tuple(
        ContainerGrants(name=container.name, role=role, grants=given)
        for (container, role), given in zip(with_roles(pod), grants, strict=True)
    )
    return Allocation(pod=PodRef.of(pod), node=pod.spec.node_name, containers=containers)


def as_guest(rules: Constraints, given: Sequence[tuple[Grant, ...]]) -> tuple[tuple[Grant, ...], ...]:
    """Say of each grant what the pod counts as on the card, where its vendor tells pods apart."""
    if not rules.guest | rules.guest_alone:
        return tuple(given)
    return tuple(tuple(structs.replace(g, guest=rules.counts_as(g.cores)) for g in grants) for grants in given)


def check_size(present: Mapping[str, str], added: Mapping[str, str]) -> None:
    """Refuse annotations that the API server would refuse; a Binding merges them into the pod unchecked.

    Raise ``DomainError`` naming the key, or the size, that is wrong.
    """
    for key in added:
        match = _KEY.fullmatch(key.lower())
        if match is None or ".." in (match["prefix"] or ""):
            raise DomainError(
                f"annotation key {key!r} is no Kubernetes name: check the common word in the device config"
            )
    size = sum(len(key.encode()) + len(value.encode()) for key, value in {**present, **added}.items())
    if size > MOST_BYTES:
        raise DomainError(
            f"the pod's annotations would take {size} bytes, more than the {MOST_BYTES} allowed: shorten its own"
        )


def _asking(catalog: Catalog, pod: Pod, vendor: Vendor) -> list[bool] | None:
    """Say which containers ask for the vendor; None when their demands cannot be read."""
    try:
        demand = pod_demand(pod, catalog)
    except BadDemand:
        return None
    asking = [any(d.vendor == vendor.word for d in container.demands) for container in demand]
    return asking if any(asking) else None


def _group(text: str, word: str) -> tuple[Grant, ...]:
    # HAMi compat: a segment without a comma is skipped.
    return tuple(_grant(segment, word) for segment in text.split(":") if "," in segment)


def _grant(segment: str, word: str) -> Grant:
    fields = segment.split(",")
    if len(fields) < _FIELDS or not fields[0]:
        raise MalformedAllocation(f"{segment!r} is no device: expected uuid,{word},MiB,percent")
    if not _NUMBER.fullmatch(fields[2]) or not _NUMBER.fullmatch(fields[3]):
        raise MalformedAllocation(
            f"{segment!r} has memory {fields[2]!r} and cores {fields[3]!r}: expected whole numbers"
        )
    memory, cores = int(fields[2]), int(fields[3])
    if max(memory, cores) > INT32_MAX:
        raise MalformedAllocation(f"{segment!r} has a number above {INT32_MAX}")
    model = "" if fields[1] == word else fields[1]
    return Grant(uuid=_INSTANCE.sub("", fields[0]), vendor=word, memory=memory, cores=cores, model=model)
