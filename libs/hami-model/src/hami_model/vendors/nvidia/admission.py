"""What admission changes in a container that asks for NVIDIA cards.

One rule: only a container with cards is touched, and only its limits and environment; a count of zero asks for nothing.
"""

from collections.abc import Iterator

from hami_model import limits
from hami_model.errors import BadDemand, Denied
from hami_model.objects import Container, Pod
from hami_model.units import canonical, plain_integer, rounded_up
from hami_model.vendor import Admitted, Change, Vendor
from hami_model.vendors.nvidia.demand import settings

PRIORITY_ENV = "CUDA_TASK_PRIORITY"
POLICY_ENV = "GPU_CORE_UTILIZATION_POLICY"
VISIBLE_ENV = "NVIDIA_VISIBLE_DEVICES"


def admit(vendor: Vendor, container: Container, pod: Pod) -> Admitted:
    """Say what changes; raise ``Denied`` for a percentage out of range, in HAMi's words."""
    config = settings(vendor)
    _check_percentage(vendor, container)
    if not _is_mine(vendor, container):
        hidden = (_env(container, VISIBLE_ENV, "none"),) if config.overwrite_env else ()
        return Admitted(mine=False, changes=hidden)
    changes = [*_environment(vendor, container), *_defaults(vendor, container)]
    if config.runtime_class_name and not pod.spec.runtime_class_name:
        changes.append(Change(runtime_class=config.runtime_class_name))
    return Admitted(mine=True, changes=tuple(changes), warnings=tuple(_warnings(vendor, container)))


def _check_percentage(vendor: Vendor, container: Container) -> None:
    name = vendor.resources.percentage
    written = limits.asked(container, name)
    if written is None:
        return
    value = plain_integer(written)
    if value is None or not 0 <= value <= 100:
        # HAMi compat: what HAMi refuses too is named as HAMi reads it, rounded; a fraction in range as it was written.
        rounded = rounded_up(written)
        shown = written if rounded is None or 0 <= rounded <= 100 else rounded
        raise Denied(
            f"invalid {name} value {shown} in container {container.name}: must be an integer between 0 and 100"
        )


def _is_mine(vendor: Vendor, container: Container) -> bool:
    names = vendor.resources
    if limits.limit(container, names.count) is not None:
        return limits.count(container, names.count) != 0
    parts = (names.cores, names.memory, names.percentage)
    can_default = names.count and settings(vendor).default_count > 0
    return bool(can_default) and any(limits.limit(container, name) is not None for name in parts)


def _environment(vendor: Vendor, container: Container) -> Iterator[Change]:
    written = limits.limit(container, vendor.resources.priority)
    if written is not None:
        priority = plain_integer(written)
        if priority is None or priority < 0:
            raise BadDemand(
                f"{vendor.resources.priority} {written} in container {container.name} cannot be read: "
                "write 0 for high or 1 for low"
            )
        yield _env(container, PRIORITY_ENV, str(priority))
    policy = settings(vendor).gpu_core_policy
    if policy not in ("", "default"):
        yield _env(container, POLICY_ENV, policy)


def _defaults(vendor: Vendor, container: Container) -> Iterator[Change]:
    names = vendor.resources
    if limits.limit(container, names.count) is None:
        count = canonical(settings(vendor).default_count)
        yield Change(container=container.name, limit=(names.count, count))
    if names.cores and limits.asked(container, names.cores) is None and _wants_whole_card(vendor, container):
        yield Change(container=container.name, limit=(names.cores, "100"))


def _wants_whole_card(vendor: Vendor, container: Container) -> bool:
    """Say whether the card would be the container's alone. HAMi compat: a memory of 0 is no wish for a whole card."""
    percent = limits.percentage(container, vendor.resources.percentage)
    if percent:
        return percent == 100
    return limits.asked(container, vendor.resources.memory) is None and not settings(vendor).default_memory


def _warnings(vendor: Vendor, container: Container) -> Iterator[str]:
    names = vendor.resources
    if limits.asked(container, names.memory) is not None and limits.percentage(container, names.percentage):
        yield f"container {container.name} sets both {names.memory} and {names.percentage}: {names.memory} wins"
    if (limits.cores(container, names.cores) or 0) > 100:
        yield f"container {container.name} sets {names.cores} above 100: it is read as 100, a whole card"


def _env(container: Container, name: str, value: str) -> Change:
    return Change(container=container.name, env=(name, value))
