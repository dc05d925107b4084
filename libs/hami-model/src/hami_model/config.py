"""HAMi's device-config.yaml as values.

One rule: an absent key has HAMi's zero value, so that a file means here what it means there; the chart's defaults apply
only where there is no file at all. Reading YAML is the caller's business.
"""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field, structs

from hami_model import config_reading
from hami_model.config_reading import Reading, Remark, written
from hami_model.defaults import DEVICE_CONFIG
from hami_model.errors import DomainError
from hami_model.units import INT32_MAX

Amount = Annotated[int, Meta(ge=0, le=INT32_MAX)]
Scaling = Annotated[float, Meta(ge=0, le=1000)]


class Names(Struct, frozen=True, kw_only=True, rename="camel"):
    """The resource names of one simple vendor; several of one vendor's chips carry their common word."""

    chip_name: str = ""
    common_word: str = ""
    resource_count_name: str = ""
    resource_memory_name: str = ""
    resource_core_name: str = ""
    memory_factor: Amount = 0


class MigModels(Struct, frozen=True, kw_only=True):
    """Which MIG profiles cards may be cut into, by model name."""

    models: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()


class Nvidia(Names, frozen=True, kw_only=True, rename="camel"):
    """The section ``nvidia``; what the device plugin alone reads is kept for the node agent."""

    resource_memory_percentage_name: str = ""
    resource_priority_name: str = ""
    overwrite_env: bool = False
    default_memory: Amount = 0
    default_cores: Amount = 0
    default_count: Amount = field(default=0, name="defaultGPUNum")
    disable_core_limit: bool = False
    gpu_core_policy: str = ""
    runtime_class_name: str = ""
    device_split_count: Amount = 0
    device_memory_scaling: Scaling = 0
    device_core_scaling: Scaling = 0
    pre_configured_device_memory: Amount = 0
    enable_numa_topology: bool = False
    lib_cuda_log_level: int | str = 0
    mig_profile_allowlist: tuple[MigModels, ...] = ()


class Template(Struct, frozen=True, kw_only=True, rename="camel"):
    """One size that an Ascend card can be cut into; memory in MiB."""

    name: str
    memory: Amount
    ai_core: Amount = 0
    ai_cpu: Amount = field(default=0, name="aiCPU")


class Chip(Struct, frozen=True, kw_only=True, rename="camel"):
    """One Ascend chip; memory in MiB."""

    common_word: str
    chip_name: str = ""
    resource_name: str = ""
    resource_memory_name: str = ""
    resource_core_name: str = ""
    memory_allocatable: Amount = 0
    memory_capacity: Amount = 0
    memory_factor: Amount = 0
    ai_core: Amount = 0
    ai_cpu: Amount = field(default=0, name="aiCPU")
    runtime_class_name: str = ""
    overwrite_env: bool = False
    super_pod: bool = False
    templates: tuple[Template, ...] = ()


class Vnpus(Struct, frozen=True, kw_only=True, rename="camel"):
    """The section ``vnpus``: every Ascend chip, and whether nodes split them in software unless they say otherwise."""

    hami_vnpu_core: bool = False
    configs: tuple[Chip, ...] = ()


class Metax(Names, frozen=True, kw_only=True, rename="camel"):
    """The section ``metax``: whole cards, and sGPUs by the names with a V."""

    resource_v_count_name: str = field(default="", name="resourceVCountName")
    resource_v_memory_name: str = field(default="", name="resourceVMemoryName")
    resource_v_core_name: str = field(default="", name="resourceVCoreName")
    sgpu_topology_aware: bool = False


class Enflame(Struct, frozen=True, kw_only=True):
    """The section ``enflame``: whole cards, and DRS slices of them."""

    count: str = field(default="", name="resourceNameGCU")
    drs_count: str = field(default="", name="resourceNameDRSGCU")
    memory: str = field(default="", name="resourceNameGCUMemory")
    cores: str = field(default="", name="resourceNameGCUCore")
    legacy_count: str = field(default="", name="resourceNameVGCU")
    """What older files call ``resourceNameDRSGCU``."""
    legacy_percentage: str = field(default="", name="resourceNameVGCUPercentage")
    """In older files; used by nobody."""


class Kunlun(Struct, frozen=True, kw_only=True):
    """The section ``kunlun``: whole cards, and vXPUs."""

    count: str = field(default="", name="resourceCountName")
    virtual_count: str = field(default="", name="resourceVCountName")
    virtual_memory: str = field(default="", name="resourceVMemoryName")


class DeviceConfig(Struct, frozen=True, kw_only=True):
    """The whole file; a section that is absent is a vendor that nobody asks for."""

    nvidia: Nvidia | None = None
    cambricon: Names | None = None
    hygon: Names | None = None
    metax: Metax | None = None
    enflame: Enflame | None = None
    mthreads: Names | None = None
    iluvatars: tuple[Names, ...] = ()
    kunlun: Kunlun | None = None
    awsneuron: Names | None = None
    amd: Names | None = None
    vastai: Names | None = None
    biren: Names | None = None
    vnpus: Vnpus | None = None


def parse(raw: object) -> DeviceConfig:
    """Turn a decoded device-config.yaml into values; raise ``DomainError`` naming every key that cannot be read."""
    return usable(examine(raw))


def usable(reading: Reading) -> DeviceConfig:
    """Return what was read; raise ``DomainError`` with all that is wrong."""
    if reading.wrong:
        raise DomainError("device config: " + "; ".join(remark.sentence for remark in reading.wrong))
    return msgspec.convert(reading.values, DeviceConfig)


def examine(raw: object) -> Reading:
    """Read a decoded device-config.yaml and say all that is wrong, and what nobody reads (HAMi is silent there)."""
    if not isinstance(raw, dict) or not any(raw.get(name) for name in DeviceConfig.__struct_fields__):
        nothing = "the device config has no section of a vendor: all configurations are empty"
        return Reading(values={}, wrong=(Remark(path=(), sentence=nothing),))
    if isinstance(raw.get("vnpus"), list):
        old = "vnpus is a list, as before HAMi 2.9: write a map with hamiVnpuCore and configs"
        return Reading(values={}, wrong=(Remark(path=("vnpus",), sentence=old),))
    reading = config_reading.read(raw, DeviceConfig, example=DEVICE_CONFIG)
    profiles = () if reading.wrong else tuple(_wrong_profiles(usable(reading)))
    return structs.replace(reading, wrong=reading.wrong + profiles)


def _wrong_profiles(config: DeviceConfig) -> Iterator[Remark]:
    """Say what HAMi refuses at start: allowlist entries without models or profiles, profiles unlike ``1g.5gb``."""
    where = ("nvidia", "migProfileAllowlist")
    for at, entry in enumerate(config.nvidia.mig_profile_allowlist if config.nvidia else ()):
        path = (*where, at)
        if not entry.models or not entry.profiles:
            yield Remark(path=path, sentence=f"{written(path)} is an entry without models or profiles: write both")
        for profile in entry.profiles:
            slices, dot, rest = profile.partition(".")
            if not dot or not rest or len(slices) < 2 or not slices.endswith("g"):
                sentence = f"{written(path)}: profile {profile!r} is unlike 1g.5gb"
                yield Remark(path=(*path, "profiles"), sentence=sentence)


DEFAULTS = parse(DEVICE_CONFIG)
"""What HAMi's chart renders when nothing is changed."""
