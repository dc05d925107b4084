"""The node annotations that publish cards: HAMi's JSON, or its older text, <-> ``Device``.

One rule: one bad element rejects that annotation and nothing else; what is written is byte for byte HAMi's form. In
JSON zero values are left out, and keys are read in any case, as HAMi does.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from hami_model.device import Device, MigProfile, Placement
from hami_model.errors import MalformedInventory
from hami_model.objects import Node
from hami_model.units import FALSE_WORDS, INT32_MAX, INT64_MAX, TRUE_WORDS
from hami_model.vendor import Form, Vendor

SEPARATORS = frozenset(",:;")
"""They structure the pods' device annotations, so a card's id cannot hold them."""

_TEXT_KEYS = ("id", "count", "devmem", "devcore", "type", "numa", "health", "index", "mode")
_SHORT_TEXT = {"index": "0", "mode": "hami-core"}
"""What a card of the text form is that names neither."""
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")


def discover(vendor: Vendor, node: Node) -> tuple[Device, ...]:
    """Read the cards of a node's register annotation, ``()`` without one; raise ``MalformedInventory``."""
    text = node.annotations.get(vendor.keys.register)
    return () if text is None else decode_register(text, vendor.word, vendor.form)


def decode_register(text: str, word: str, form: Form = Form.JSON) -> tuple[Device, ...]:
    """Read the cards of one vendor; raise ``MalformedInventory`` saying which card and which key cannot be read."""
    listed = _listed(text, "register annotation") if form is Form.JSON else _listed_as_text(text)
    devices = tuple(_device(at, raw, word) for at, raw in enumerate(listed))
    ids = [device.id for device in devices]
    for twice in (i for at, i in enumerate(ids) if i in ids[:at]):
        raise MalformedInventory(f"card {twice} is published twice")
    return devices


def encode_register(devices: Iterable[Device], form: Form = Form.JSON) -> str:
    """Write cards as HAMi's device plugins do."""
    if form is Form.JSON:
        return msgspec.json.encode([_raw(device) for device in devices]).decode()
    return "".join(
        f"{d.id},{d.slots},{d.memory},{d.cores},{d.model},{d.numa},{str(d.healthy).lower()},{d.index},{d.mode}:"
        for d in devices
    )


def check_devices(devices: Iterable[Device]) -> None:
    """Refuse one vendor's cards that no node could publish; raise ``MalformedInventory`` as reading them would."""
    decode_register(encode_register(devices), "")


def decode_links(text: str) -> dict[str, dict[str, int]]:
    """Read NVIDIA's pair scores: card -> other card -> score."""
    links: dict[str, dict[str, int]] = {}
    for at, raw in enumerate(_listed(text, "pair score annotation")):
        entry = _keys(at, raw)
        scores = entry.get("score") or {}
        if not isinstance(scores, dict) or not all(type(score) is int for score in scores.values()):
            raise MalformedInventory(f"pair scores of card {at} must be whole numbers by uuid")
        links[_text(entry, "uuid", at)] = dict(scores)
    return links


def encode_links(links: Mapping[str, Mapping[str, int]]) -> str:
    """Write pair scores as HAMi's device plugin does."""
    return msgspec.json.encode([{"uuid": uuid, "score": dict(score)} for uuid, score in links.items()]).decode()


def _listed(text: str, what: str) -> list[Any]:
    try:
        raw = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:  # the latter: nested without end
        raise MalformedInventory(f"{what} is not JSON: {error}") from error
    if raw is not None and not isinstance(raw, list):
        raise MalformedInventory(f"{what} must be a JSON list")
    return raw or []


def _listed_as_text(text: str) -> list[dict[str, object]]:
    """Return what JSON would have said of the cards of the older text (spec vendors-a §2.1)."""
    if ":" not in text:
        raise MalformedInventory("register annotation is no list of cards: each ends with a colon")
    return [_fields(at, card) for at, card in enumerate(card for card in text.split(":") if card)]


def _fields(at: int, card: str) -> dict[str, object]:
    values = card.split(",")
    if len(values) not in (len(_TEXT_KEYS) - len(_SHORT_TEXT), len(_TEXT_KEYS)):
        raise MalformedInventory(
            f"card {at} has {len(values)} fields, not {','.join(_TEXT_KEYS)}, of which the last two may be absent"
        )
    said = _SHORT_TEXT | dict(zip(_TEXT_KEYS, values, strict=False))
    numbers = {key: _read_number(at, key, said[key]) for key in ("count", "devmem", "devcore", "numa", "index")}
    if said["health"] not in TRUE_WORDS | FALSE_WORDS:
        raise MalformedInventory(f"card {at} has health {said['health']!r}, which is neither true nor false")
    return {**said, **numbers, "health": said["health"] in TRUE_WORDS}


def _read_number(at: int, key: str, text: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(text):
        raise MalformedInventory(f"card {at} has {key} {text!r}, which is not a whole number")
    return int(text)


def _device(at: int, raw: object, word: str) -> Device:
    card = _keys(at, raw)
    name = _text(card, "id", at)
    if not name or SEPARATORS & set(name) or " " in name or not name.isprintable():
        raise MalformedInventory(
            f"card {at} has the id {name!r}: it must not be empty nor hold any of , : ; or a blank"
        )
    return Device(
        id=name,
        vendor=word,
        index=_number(card, "index", at, highest=INT64_MAX),
        slots=_number(card, "count", at),
        memory=_number(card, "devmem", at),
        cores=_number(card, "devcore", at),
        model=_text(card, "type", at),
        numa=_number(card, "numa", at, lowest=-INT32_MAX - 1, highest=INT64_MAX),
        mode=_text(card, "mode", at),
        healthy=_of_type(card, "health", at, bool, default=False),
        mig_profiles=tuple(_profile(at, p) for p in _of_type(card, "migprofiles", at, list, default=[])),
        custom=_of_type(card, "custominfo", at, dict, default={}),
    )


def _profile(at: int, raw: object) -> MigProfile:
    profile = _keys(at, raw)
    return MigProfile(
        name=_text(profile, "name", at),
        memory=_number(profile, "memorymb", at),
        cores=_number(profile, "core", at),
        slices=_number(profile, "slicecount", at),
        placements=tuple(_placement(at, p) for p in _of_type(profile, "placements", at, list, default=[])),
    )


def _placement(at: int, raw: object) -> Placement:
    placement = _keys(at, raw)
    return Placement(_number(placement, "start", at), _number(placement, "size", at))


def _keys(at: int, raw: object) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise MalformedInventory(f"card {at} must be a JSON object")
    return {key.lower(): value for key, value in raw.items()}


def _of_type(card: dict[str, Any], key: str, at: int, kind: type, *, default: Any) -> Any:
    value = card.get(key)
    if value is None:
        return default
    if type(value) is not kind:
        raise MalformedInventory(f"card {at} has {key} {value!r}, not a JSON {kind.__name__}")
    return value


def _text(card: dict[str, Any], key: str, at: int) -> str:
    text: str = _of_type(card, key, at, str, default="")
    return text


def _number(card: dict[str, Any], key: str, at: int, *, lowest: int = 0, highest: int = INT32_MAX) -> int:
    number: int = _of_type(card, key, at, int, default=0)
    if not lowest <= number <= highest:
        raise MalformedInventory(f"card {at} has {key} {number}, which is not from {lowest} to {highest}")
    return number


def _raw(device: Device) -> dict[str, Any]:
    fields = {
        "id": device.id,
        "index": device.index,
        "count": device.slots,
        "devmem": device.memory,
        "devcore": device.cores,
        "type": device.model,
        "numa": device.numa,
        "mode": device.mode,
        "migProfiles": [_raw_profile(profile) for profile in device.mig_profiles],
        "health": device.healthy,
        "custominfo": device.custom,
    }
    return {key: value for key, value in fields.items() if value}


def _raw_profile(profile: MigProfile) -> dict[str, Any]:
    fields = {
        "name": profile.name,
        "memoryMB": profile.memory,
        "core": profile.cores,
        "sliceCount": profile.slices,
        "placements": [{"start": p.start, "size": p.size} for p in profile.placements],
    }
    return {key: value for key, value in fields.items() if value}
