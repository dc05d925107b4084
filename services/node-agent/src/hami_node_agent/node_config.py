"""How a node's NVIDIA cards are to be registered: HAMi's device config, and over it the node's own entry.

One rule: HAMi's ``config.json`` is read as HAMi reads it: keys in any case, unknown ones ignored, of several entries of
a node the later wins. Memory in MiB, scaling as a factor.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from hami_model.config import Amount, MigModels, Nvidia, Scaling
from msgspec import Meta, Struct

log = logging.getLogger(__name__)

HAMI_CORE, MIG = "hami-core", "mig"

DEFAULT_SPLIT = 10
"""Slots of a card where nothing says how many: HAMi's plugin would not start, its chart says ten."""


class Filter(Struct, frozen=True):
    """Cards that are left alone, by uuid or by the driver's index."""

    uuid: tuple[str, ...] = ()
    index: tuple[int, ...] = ()


class _Entry(Struct, frozen=True, kw_only=True):
    """One node's entry; 0 and an empty text say nothing (HAMi compat: they override nothing)."""

    name: str = ""
    operatingmode: str = ""
    devicesplitcount: Amount = 0
    devicememoryscaling: Scaling = 0
    devicecorescaling: Scaling = 0
    preconfigureddevicememory: Amount = 0
    libcudaloglevel: int | str = ""
    enablenumatopology: bool | None = None
    migstrategy: str = ""
    filterdevices: Filter = Filter()


class _File(Struct, frozen=True):
    nodeconfig: tuple[_Entry, ...] = ()


class CardRules(Struct, frozen=True, kw_only=True):
    """What becomes of a card as the driver shows it."""

    mode: str = HAMI_CORE
    slots: Annotated[int, Meta(gt=0)] = DEFAULT_SPLIT
    memory_scaling: float = 1.0
    core_scaling: float = 1.0
    known_memory: int = 0
    """MiB of cards whose driver does not tell; 0 = such a card is not registered."""
    left_alone: Filter = Filter()
    allowlist: tuple[MigModels, ...] = ()
    tells_numa: bool = False
    """Whether the kubelet hears which NUMA node a card is on."""
    log_level: str = ""


def rules_of(config: Nvidia, entries: tuple[_Entry, ...] = ()) -> CardRules:
    """Put the device config and a node's entries together."""
    rules = CardRules(
        slots=config.device_split_count or DEFAULT_SPLIT,
        memory_scaling=config.device_memory_scaling or 1.0,
        core_scaling=config.device_core_scaling or 1.0,
        known_memory=config.pre_configured_device_memory,
        allowlist=config.mig_profile_allowlist,
        tells_numa=config.enable_numa_topology,
        log_level=str(config.lib_cuda_log_level),
    )
    for entry in entries:
        rules = _over(rules, entry)
    return rules


def _over(rules: CardRules, entry: _Entry) -> CardRules:
    tells_numa = rules.tells_numa if entry.enablenumatopology is None else entry.enablenumatopology
    return CardRules(
        mode=entry.operatingmode or rules.mode,
        slots=entry.devicesplitcount or rules.slots,
        memory_scaling=entry.devicememoryscaling or rules.memory_scaling,
        core_scaling=entry.devicecorescaling or rules.core_scaling,
        known_memory=entry.preconfigureddevicememory or rules.known_memory,
        left_alone=entry.filterdevices if entry.filterdevices != Filter() else rules.left_alone,
        allowlist=rules.allowlist,
        tells_numa=tells_numa,
        log_level=str(entry.libcudaloglevel) or rules.log_level,
    )


class NodeConfig:
    """The rules in force, read again when the file is another."""

    def __init__(self, config: Nvidia, *, node: str, path: Path | None = None) -> None:
        self._config = config
        self._node = node
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._rules = rules_of(config)

    @property
    def last(self) -> CardRules:
        """Return the rules as last read."""
        return self._rules

    @property
    def rules(self) -> CardRules:
        """Return the rules; raise ``ValueError``, once for each content, where the file cannot be read."""
        if self._path is not None and (seen := _stamp(self._path)) != self._seen:
            self._seen = seen
            if self._rules != (rules := rules_of(self._config, self._entries(self._path))):
                log.info("%s: the cards of %s are registered by new rules", self._path, self._node)
            self._rules = rules
        return self._rules

    def _entries(self, path: Path) -> tuple[_Entry, ...]:
        try:
            entries = read(path.read_bytes())
        except FileNotFoundError:
            return ()
        except OSError as e:
            raise ValueError(f"{path} cannot be read ({e.strerror})") from e
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise ValueError(f"{path} is no node config of HAMi: {e}; what stood there before counts on") from e
        mine = tuple(entry for entry in entries if entry.name == self._node)
        for strategy in {entry.migstrategy for entry in mine} - {"", "none"}:
            log.warning(
                '%s: migstrategy "%s" has no effect: instances made by hand need NVIDIA\'s own device plugin on this '
                'node; for instances on demand write "operatingmode": "mig"',
                path,
                strategy,
            )
        return mine


def read(text: bytes) -> tuple[_Entry, ...]:
    """Read the whole file; raise ``msgspec.DecodeError`` naming the key that cannot be read."""
    return msgspec.convert(_lowered(msgspec.json.decode(text)), _File).nodeconfig


def _lowered(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key.lower(): _lowered(item) for key, item in value.items() if item is not None}
    return [_lowered(item) for item in value] if isinstance(value, list) else value


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
