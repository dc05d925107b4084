"""Reading a KubeSchedulerConfiguration as kube-scheduler would, as far as it decides about device pods.

One rule: an entry is ours when it manages one of our resources, or binds; others' extenders are their business.
"""

from collections.abc import Iterator

import msgspec
from hami_kit.setting_values import read_duration
from hami_model.catalog import Catalog
from hami_model.inspection import Finding
from msgspec import Struct

from hamictl.doctor import rules

KIND = "KubeSchedulerConfiguration"
DEFAULT_TIMEOUT = 5.0
"""Seconds; kube-scheduler's own, where an extender names no httpTimeout."""

MARGIN = 2.0
"""Seconds that httpTimeout must be above HAMI_BIND_TIMEOUT."""

ALL = 100


class Managed(Struct, frozen=True, rename="camel"):
    """One entry of ``managedResources``."""

    name: str = ""
    ignored_by_scheduler: bool = False


class Extender(Struct, frozen=True, kw_only=True, rename="camel"):
    """One entry of ``extenders``."""

    url_prefix: str = ""
    filter_verb: str = ""
    bind_verb: str = ""
    prioritize_verb: str = ""
    preempt_verb: str = ""
    http_timeout: str = ""
    node_cache_capable: bool = False
    ignorable: bool = False
    managed_resources: list[Managed] | None = None


class Profile(Struct, frozen=True, rename="camel"):
    """One entry of ``profiles``."""

    scheduler_name: str = "default-scheduler"
    percentage_of_nodes_to_score: int | None = None


class SchedulerConfig(Struct, frozen=True, kw_only=True, rename="camel"):
    """A KubeSchedulerConfiguration."""

    kind: str = ""
    profiles: list[Profile] | None = None
    extenders: list[Extender] | None = None
    percentage_of_nodes_to_score: int | None = None


class Wanted(Struct, frozen=True, kw_only=True):
    """What the configuration has to fit: our scheduler's name, our resources, and the longest bind in seconds."""

    scheduler: str
    catalog: Catalog
    bind_timeout: float


def concerns_us(text: str, scheduler: str) -> bool:
    """Say whether a text may be the configuration of our kube-scheduler."""
    return KIND in text and scheduler in text


def check(where: str, text: str, wanted: Wanted) -> Iterator[Finding]:
    """Yield what is wrong with the configuration that stands at ``where``."""
    try:
        config = msgspec.yaml.decode(text, type=SchedulerConfig)
    except (msgspec.DecodeError, RecursionError) as e:
        yield rules.SCHEDULER_CONFIG.broken(f"{where} cannot be read: {' '.join(str(e).split())}")
        return
    profile = next((p for p in config.profiles or () if p.scheduler_name == wanted.scheduler), None)
    if config.kind != KIND or profile is None:
        yield rules.SCHEDULER_CONFIG.broken(f"{where} is no {KIND} with a profile named {wanted.scheduler}")
        return
    said = profile.percentage_of_nodes_to_score
    percentage = config.percentage_of_nodes_to_score if said is None else said
    if percentage != ALL:
        yield rules.NODES_HIDDEN.broken(f"{where} has percentageOfNodesToScore {percentage or 'by default'}")
    ours = [extender for extender in config.extenders or () if _is_ours(extender, wanted.catalog.resource_names)]
    if not ours:
        yield rules.EXTENDER_MISSING.broken(f"{where} has no extender that manages our resources or binds")
    for extender in ours:
        yield from _check_extender(f"the extender {extender.url_prefix} of {where}", extender, wanted)


def _is_ours(extender: Extender, resources: frozenset[str]) -> bool:
    return bool(extender.bind_verb) or any(each.name in resources for each in extender.managed_resources or ())


def _check_extender(where: str, extender: Extender, wanted: Wanted) -> Iterator[Finding]:
    if extender.ignorable:
        says = f"{where} has ignorable: true; while it is away pods would be bound without devices"
        yield rules.EXTENDER_IGNORABLE.broken(says)
    more = [verb for verb in (extender.prioritize_verb, extender.preempt_verb) if verb]
    if not extender.filter_verb or not extender.bind_verb or more:
        said = [verb for verb in (extender.filter_verb, extender.bind_verb, *more) if verb]
        yield rules.EXTENDER_VERBS.broken(f"{where} has the verbs {', '.join(said) or 'none'}")
    if not extender.node_cache_capable:
        yield rules.EXTENDER_NODES.broken(f"{where} has no nodeCacheCapable: true")
    yield from _check_timeout(where, extender.http_timeout, wanted.bind_timeout)
    yield from _check_resources(where, extender.managed_resources or [], wanted.catalog.resource_names)


def _check_timeout(where: str, written: str, bind_timeout: float) -> Iterator[Finding]:
    try:
        timeout = read_duration(written) if written else DEFAULT_TIMEOUT
    except ValueError:
        yield rules.EXTENDER_TIMEOUT.broken(f"{where} has httpTimeout {written}, which is no duration")
        return
    if timeout < bind_timeout + MARGIN:
        said = f"httpTimeout {written}" if written else f"no httpTimeout ({DEFAULT_TIMEOUT:g} s by default)"
        yield rules.EXTENDER_TIMEOUT.broken(f"{where} has {said}, and a bind may take {bind_timeout:g} s")


def _check_resources(where: str, managed: list[Managed], resources: frozenset[str]) -> Iterator[Finding]:
    if not managed:
        return  # every pod is sent to us: slower, and nothing is missed
    names = {each.name for each in managed}
    if missing := sorted(resources - names):
        yield rules.EXTENDER_RESOURCES.broken(f"{where} does not manage {', '.join(missing)}")
    counted = sorted(each.name for each in managed if not each.ignored_by_scheduler and each.name in resources)
    if counted:
        yield rules.RESOURCES_COUNTED.broken(f"{where} has no ignoredByScheduler: true for {', '.join(counted)}")
