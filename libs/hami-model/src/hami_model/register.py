"""The node annotations that publish cards: HAMi's JSON <-> ``Device``.

One rule: one bad element rejects that annotation and nothing else; what is written is byte for byte HAMi's form, zero
values left out. Reading matches keys in any case, as HAMi does.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from hami_model.device import Device, MigProfile, Placement
from hami_model.errors import MalformedInventory
from hami_model.units import INT32_MAX, INT64_MAX

SEPARATORS = frozenset(",:;")
"""They structure the pods' device annotations, so a card's id cannot hold them."""


def decode_register(text: str, word: str) -> tuple[Device, ...]:
    """Read the cards of one vendor; raise ``MalformedInventory`` saying which card and which key cannot be read."""
    devices = tuple(_device(at, raw, word) for at, raw in enumerate(_listed(text, "register annotation")))
    ids = [device.id for device in devices]
    for twice in (i for at, i in enumerate(ids) if i in ids[:at]):
        raise MalformedInventory(f"card {twice} is published twice")
    return devices


def encode_register(devices: Iterable[Device]) -> str:
    """Write cards as HAMi's device plugins do."""
    return msgspec.json.encode([_raw(device) for device in devices]).decode()


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
