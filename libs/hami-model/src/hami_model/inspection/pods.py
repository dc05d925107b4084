"""What is wrong with single pods, and what the pods that are bound hold.

One rule: a pod is judged by what the API server shows of it, whoever bound it.
"""

from collections.abc import Collection, Iterator, Mapping

from msgspec import Struct

from hami_model.catalog import Catalog
from hami_model.inspection import reading, rules
from hami_model.inspection.findings import Finding
from hami_model.inspection.use import CardKey, Use, use
from hami_model.keys import ALLOCATING, BIND_PHASE, BIND_TIME, NODE
from hami_model.objects import Pod
from hami_model.vendor import Vendor

FAILED = "failed"


class Moment(Struct, frozen=True, kw_only=True):
    """Beside the pod: the time in unix seconds, our scheduler's name, and who is there."""

    now: float
    scheduler: str
    nodes: Collection[str]
    untried: Collection[str]


class Holder(Struct, frozen=True, kw_only=True):
    """A bound pod with what it uses of its node's cards."""

    pod: Pod
    uses: Mapping[CardKey, Use]
    parts: Mapping[CardKey, list[range]]
    """Which slices it holds of cards that are cut into parts."""
    soft: Collection[str]
    """The vendors whose cards it takes split in software, so that cores count in percent whatever the node lists."""

    @property
    def node(self) -> str:
        """Return the node that the pod runs on."""
        return self.pod.spec.node_name or ""

    @property
    def name(self) -> str:
        """Return ``namespace/name``."""
        return name_of(self.pod)


def name_of(pod: Pod) -> str:
    """Return ``namespace/name``."""
    return f"{pod.metadata.namespace}/{pod.metadata.name}"


def has_ended(pod: Pod) -> bool:
    """Say whether the pod is over, so that it holds nothing; being deleted ends nothing."""
    return pod.status.phase in ("Succeeded", "Failed")


def vendors_asked(pod: Pod, catalog: Catalog) -> list[Vendor]:
    """Return the vendors that the pod asks for a card of."""
    return [v for v in catalog.vendors if any(reading.wanted(v, c) for c in pod.all_containers)]


def is_unconfirmed(pod: Pod) -> bool:
    """Say whether the pod is bound and nobody has served it yet."""
    return bool(pod.spec.node_name) and not has_ended(pod) and pod.annotations.get(BIND_PHASE) == ALLOCATING


def inspect_pod(pod: Pod, catalog: Catalog, moment: Moment) -> tuple[list[Finding], Holder | None]:
    """Return what is wrong with one pod that is not over, and what it holds if it is bound."""
    asked = vendors_asked(pod, catalog)
    findings = list(_ahead(pod, moment))
    if not asked:
        return findings, None
    if pod.spec.scheduler_name not in (None, moment.scheduler):
        says = f"pod {name_of(pod)} asks for {_words(asked)} and goes to scheduler {pod.spec.scheduler_name}"
        findings.append(rules.OTHER_SCHEDULER.broken(says, pod=name_of(pod)))
    if not pod.spec.node_name:
        return [*findings, *_untried(pod, moment)], None
    findings += _unserved(pod, moment)
    wrong, holder = _held(pod, asked)
    findings += wrong
    findings += _not_asked(pod, catalog, asked)
    return findings, holder


def _untried(pod: Pod, moment: Moment) -> Iterator[Finding]:
    since = reading.seconds(pod.metadata.creation_timestamp)
    waits = 0 if since is None else moment.now - since
    is_ours = pod.spec.scheduler_name == moment.scheduler
    if is_ours and pod.metadata.uid in moment.untried and waits > rules.STUCK_AFTER:
        says = f"pod {name_of(pod)} waits for {waits:.0f} s and scheduler {moment.scheduler} has said nothing of it"
        yield rules.UNTRIED.broken(says, pod=name_of(pod))


def _unserved(pod: Pod, moment: Moment) -> Iterator[Finding]:
    node, name = pod.spec.node_name or "", name_of(pod)
    if node not in moment.nodes:
        yield rules.NODE_GONE.broken(f"pod {name} is bound to node {node}, which is not there", node=node, pod=name)
    if pod.annotations.get(BIND_PHASE) == FAILED:
        yield rules.BIND_FAILED.broken(f"the device plugin of node {node} failed pod {name}", node=node, pod=name)
    since = reading.seconds(pod.annotations.get(BIND_TIME)) or reading.seconds(pod.metadata.creation_timestamp)
    waits = 0 if since is None else moment.now - since
    if is_unconfirmed(pod) and waits > rules.STUCK_AFTER:
        says = f"pod {name} was bound to node {node} {waits:.0f} s ago and nobody has served its devices"
        yield rules.UNCONFIRMED.broken(says, node=node, pod=name)


def _ahead(pod: Pod, moment: Moment) -> Iterator[Finding]:
    at = reading.seconds(pod.annotations.get(BIND_TIME))
    if pod.spec.node_name and at is not None and at - moment.now > rules.AHEAD:
        says = f"{BIND_TIME} of pod {name_of(pod)} is {at - moment.now:.0f} s ahead"
        yield rules.AHEAD_OF_TIME.broken(says, node=pod.spec.node_name, pod=name_of(pod))


def _held(pod: Pod, asked: list[Vendor]) -> tuple[list[Finding], Holder | None]:
    """Read what a bound pod holds; what cannot be read is a finding and adds nothing."""
    node, name = pod.spec.node_name or "", name_of(pod)
    said = pod.annotations.get(NODE, node)
    if said != node:
        says = f"pod {name} runs on node {node} and its annotation {NODE} says {said}"
        return [rules.ELSEWHERE.broken(says, node=node, pod=name)], None
    findings: list[Finding] = []
    uses: dict[CardKey, Use] = {}
    parts: dict[CardKey, list[range]] = {}
    for vendor in asked:
        key = vendor.keys.allocated
        if not pod.annotations.get(key, "").strip("; :"):
            says = f"pod {name} on node {node} asks for {vendor.word}, and no annotation {key} says what it holds"
            findings.append(rules.UNACCOUNTED.broken(says, node=node, pod=name))
            continue
        try:
            uses |= use(pod, reading.given(vendor, pod))
            key = vendor.keys.parts
            parts |= {(vendor.word, card): held for card, held in reading.parts(vendor, pod).items()}
        except reading.Unreadable as error:
            says = f"annotation {key} of pod {name} on node {node} cannot be read: {error}"
            findings.append(rules.UNREADABLE.broken(says, node=node, pod=name))
    soft = {vendor.word for vendor in asked if vendor.constraints(vendor, pod).soft_split}
    return findings, Holder(pod=pod, uses=uses, parts=parts, soft=soft)


def _not_asked(pod: Pod, catalog: Catalog, asked: list[Vendor]) -> Iterator[Finding]:
    for vendor in catalog.vendors:
        if vendor not in asked and pod.annotations.get(vendor.keys.allocated, "").strip("; :"):
            says = f"annotation {vendor.keys.allocated} of pod {name_of(pod)} gives it {vendor.word}, not asked for"
            yield rules.NOT_ASKED.broken(says, node=pod.spec.node_name or "", pod=name_of(pod))


def _words(vendors: list[Vendor]) -> str:
    return ", ".join(vendor.word for vendor in vendors)
