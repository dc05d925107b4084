"""Ascend NPUs: one vendor per chip, cut into vNPU templates, or shared in software where pod and node agree."""

from functools import partial

from msgspec import json, structs

from hami_model import register, selectors, sliced
from hami_model.allocation import Allocation
from hami_model.config import Chip, Vnpus
from hami_model.keys import is_served
from hami_model.objects import Node, Pod
from hami_model.vendor import MUTEX_LOCK, NOW, AnnotationKeys, Constraints, ResourceNames, Selectors, Vendor
from hami_model.vendors.ascend import groups
from hami_model.vendors.ascend.admission import admit
from hami_model.vendors.ascend.templates import Family, settings, splits_softly, trim

NODE_SWITCH = "hami-vnpu-core"
PREDICATE_TIME = "predicate-time"


def vendors(config: Vnpus) -> tuple[Vendor, ...]:
    """Describe every chip of the device config."""
    counts = frozenset(chip.resource_name for chip in config.configs)
    return tuple(
        _vendor(chip, Family(chip=_sorted(chip), soft=config.hami_vnpu_core, counts=counts)) for chip in config.configs
    )


def _sorted(chip: Chip) -> Chip:
    return structs.replace(chip, templates=tuple(sorted(chip.templates, key=lambda template: template.memory)))


def _vendor(chip: Chip, family: Family) -> Vendor:
    word = chip.common_word
    return Vendor(
        word=word,
        resources=ResourceNames(
            count=chip.resource_name,
            memory=chip.resource_memory_name,
            cores=chip.resource_core_name,
            memory_factor=max(chip.memory_factor, 1),
        ),
        keys=AnnotationKeys(
            register=f"hami.io/node-register-{word}",
            handshake=f"hami.io/node-handshake-{word}",
            to_allocate=f"hami.io/{word}-devices-to-allocate",
            allocated=f"hami.io/{word}-devices-allocated",
        ),
        selectors=Selectors(use_uuid=f"hami.io/use-{word}-uuid", nouse_uuid=f"hami.io/no-use-{word}-uuid"),
        lock=MUTEX_LOCK,
        runtime_class=chip.runtime_class_name,
        partitions="vNPU templates" if chip.templates else "",
        settings=family,
        demand=partial(sliced.demand, cores=0),
        admit=admit,
        discover=register.discover,
        constraints=_constraints,
        annotations=_extras,
        confirmed=is_served,
        soft_split=_is_soft,
        group=groups.network if groups.has_networks(word) else None,
        choose=groups.choose if groups.has_networks(word) else None,
        node_score=groups.node_score if groups.has_networks(word) else None,
        best_bonus=groups.BEST_BONUS if groups.has_networks(word) else 0.0,
    )


def _constraints(vendor: Vendor, pod: Pod) -> Constraints:
    return structs.replace(selectors.constraints(vendor, pod), soft_split=splits_softly(pod))


def _is_soft(vendor: Vendor, node: Node) -> bool:
    """Say whether the node splits cards in software: its own word counts, else the device config's."""
    said = node.annotations.get(NODE_SWITCH)
    return settings(vendor).soft if said is None else said == "true"


def _extras(vendor: Vendor, allocation: Allocation, pod: Pod) -> dict[str, str]:
    """Write what the Ascend plugin looks up: per card the template, or in soft split the memory and cores."""
    chip, soft = settings(vendor).chip, splits_softly(pod)
    entries = [
        {
            "UUID": grant.uuid,
            "temp": "" if soft else trim(chip, grant.memory).template,
            "memory": grant.memory,
            "core": grant.cores,
        }
        for container in allocation.containers
        for grant in container.grants
        if grant.vendor == vendor.word
    ]
    runtime = [{key: value for key, value in entry.items() if value} for entry in entries]
    return {f"huawei.com/{vendor.word}": json.encode(runtime).decode(), PREDICATE_TIME: NOW}
