"""HAMi's annotations, read once more and in the plainest way.

One rule: nothing here is shared with the codecs that the allocator decides by. Whatever cannot be read is
``Unreadable`` with a sentence.
"""

import re
from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import Struct, structs

from hami_model.errors import BadDemand, DomainError, MalformedInventory
from hami_model.objects import Container, Node, Pod
from hami_model.request import CoreUnit
from hami_model.units import rounded_up
from hami_model.vendor import Form, Vendor

_TEXT = re.compile(
    r"(?P<id>[^,]+),(?P<slots>\+?[0-9]{1,10}),(?P<memory>\+?[0-9]{1,10}),(?P<cores>\+?[0-9]{1,10}),[^,]*,[+-]?[0-9]{1,19},"
    r"(1|t|T|true|TRUE|True|0|f|F|false|FALSE|False)(,\+?[0-9]{1,19},[^,]*)?"
)
_FIELDS = re.compile(r"(?P<card>[^,]+?)(\[[0-9]+-[0-9]+\])?,[^,]*,(?P<memory>[0-9]{1,18}),(?P<cores>[0-9]{1,18})(,.*)?")
"""In brackets: which part of a partitioned card, as HAMi named it before 2.10."""


class Unreadable(DomainError):
    """An annotation says nothing that anybody could have meant."""


class Card(Struct, frozen=True, kw_only=True):
    """What a node registers: memory in MiB, cores in their unit."""

    id: str
    slots: int
    memory: int
    cores: int
    core_unit: CoreUnit = CoreUnit.PERCENT
    index: int = 0


class Share(Struct, frozen=True, kw_only=True):
    """What one container was given of one card."""

    word: str
    card: str
    memory: int
    cores: int


Given = tuple[tuple[Share, ...], ...]
"""By position of the container, init containers first."""


def cards(vendor: Vendor, node: Node) -> tuple[Card, ...]:
    """Return the cards of one vendor that the node registers; without an annotation in HAMi's form, as it says."""
    text = node.annotations.get(vendor.keys.register)
    if not vendor.keys.register or vendor.form is Form.OWN:
        found = _cards_by_its_own_word(vendor, node)
    elif vendor.form is Form.TEXT:
        found = _cards_of_text(text)
    else:
        found = _cards_of_json(text)
    return tuple(structs.replace(card, core_unit=vendor.resources.core_unit) for card in found)


def _cards_of_text(text: str | None) -> tuple[Card, ...]:
    """Read ``id,count,memory,cores,…`` and a colon for each card."""
    if text is not None and ":" not in text:
        raise Unreadable("it has no colon, which ends each card")
    return tuple(_card_of_text(part) for part in (text or "").split(":") if part)


def _card_of_text(part: str) -> Card:
    match = _TEXT.fullmatch(part)
    if match is None:
        raise Unreadable(f"{part!r} is no card")
    return Card(id=match["id"], slots=int(match["slots"]), memory=int(match["memory"]), cores=int(match["cores"]))


def _cards_of_json(text: str | None) -> tuple[Card, ...]:
    try:
        listed = msgspec.json.decode("null" if text is None else text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(f"it is no JSON ({error})") from error
    if not isinstance(listed, list | None):
        raise Unreadable("it is no JSON list")
    return tuple(_card(each) for each in listed or ())


def _cards_by_its_own_word(vendor: Vendor, node: Node) -> tuple[Card, ...]:
    try:
        devices = vendor.discover(vendor, node)
    except MalformedInventory as error:
        raise Unreadable(str(error)) from error
    return tuple(Card(id=d.id, slots=d.slots, memory=d.memory, cores=d.cores, index=d.index) for d in devices)


def _card(raw: object) -> Card:
    if not isinstance(raw, dict):
        raise Unreadable(f"{raw!r} is no card")
    fields = {str(key).lower(): value for key, value in raw.items()}
    name, numbers = fields.get("id"), [fields.get(key) or 0 for key in ("count", "devmem", "devcore")]
    if not isinstance(name, str) or not name:
        raise Unreadable("a card has no id")
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise Unreadable(f"card {name} has count, devmem, devcore {numbers}")
    index = fields.get("index")
    at = index if isinstance(index, int) else 0
    return Card(id=name, slots=numbers[0], memory=numbers[1], cores=numbers[2], index=at)


def wanted(vendor: Vendor, container: Container) -> int:
    """Return how many cards the container asks for: what the kubelet will ask a device plugin for.

    How many cards hold single cores or slices is the vendor's own rule.
    """
    if not vendor.counts_cards:
        try:
            demand = vendor.demand(vendor, container)
        except BadDemand:
            return 0
        return demand.count if demand else 0
    limits = (container.resources.limits if container.resources else None) or {}
    return max(0, rounded_up(limits.get(vendor.resources.count, 0)) or 0)


def given(vendor: Vendor, pod: Pod) -> Given:
    """Return what the pod's annotation says that its containers hold.

    Groups of containers without devices may be there or not, so the n-th filled group is the n-th asking container's.
    """
    asking = [wanted(vendor, container) for container in pod.all_containers]
    text = pod.annotations.get(vendor.keys.allocated, "")
    filled = [group for group in (_shares(vendor, part) for part in text.split(";")) if group]
    if [len(group) for group in filled] != [count for count in asking if count]:
        counts = [len(group) for group in filled]
        raise Unreadable(f"it gives {counts} cards to the containers that ask for {[n for n in asking if n]}")
    rest = iter(filled)
    return tuple(next(rest) if count else () for count in asking)


def parts(vendor: Vendor, pod: Pod) -> dict[str, list[range]]:
    """Return which slices of each card the pod's annotation reserves, one range for each part."""
    text = pod.annotations.get(vendor.keys.parts) if vendor.keys.parts else None
    found: dict[str, list[range]] = {}
    try:
        for entry in msgspec.json.decode(text) if text else ():
            start, size = int(entry["placement"]["start"]), int(entry["placement"]["size"])
            found.setdefault(entry["gpuUUID"], []).append(range(start, start + size))
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"it is no list of parts ({error!r})") from error
    return found


def _shares(vendor: Vendor, group: str) -> tuple[Share, ...]:
    return tuple(_share(vendor, segment) for segment in group.split(":") if "," in segment)


def _share(vendor: Vendor, segment: str) -> Share:
    match = _FIELDS.fullmatch(segment)
    if match is None:
        raise Unreadable(f"{segment!r} is no device")
    return Share(word=vendor.word, card=match["card"], memory=int(match["memory"]), cores=int(match["cores"]))


def lock(text: str) -> tuple[float, Sequence[str]]:
    """Return since when a node lock stands, in unix seconds, and whose it is: namespace and pod, or nobody."""
    stamp, *owner = text.split(",")
    since = _moment(stamp)
    if since is None or len(owner) not in (0, 2):
        raise Unreadable("it is neither a time nor time,namespace,pod")
    return since, owner


def seconds(text: str | None) -> float | None:
    """Read one of Kubernetes' times, or HAMi's unix seconds, as unix seconds; None where there is none."""
    if not text:
        return None
    return float(text) if text.isdecimal() else _moment(text)


def _moment(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None
