"""What happens to a pod at admission: left alone, denied with a reason, or taken over with changes.

One rule: pure and in HAMi's order, the first matching rule answers. The quota question is asked by whoever calls, with
the ``needs`` of the answer, for only the allocator knows what a namespace uses.
"""

from collections.abc import Callable, Iterator

import msgspec
from msgspec import Struct

from hami_model.bus.messages import QuotaDenied, QuotaNeed
from hami_model.catalog import Catalog
from hami_model.demands import pod_demand
from hami_model.errors import BadDemand, Denied
from hami_model.objects import Container, Pod
from hami_model.patch import changed, json_patch
from hami_model.request import Demand, Exactly, PodDemand, Role, vendors_of
from hami_model.vendor import Admitted, Change, Vendor

__all__ = ["Admit", "Deny", "Skip", "admit", "json_patch", "over_quota", "quota_needs"]

DEFAULT_SCHEDULER = "default-scheduler"
FORBIDDEN = 403
REFUSED_BY_VENDOR = 500
"""HAMi compat: what a vendor's own check refuses is answered as an error of the server."""


class Skip(Struct, frozen=True, kw_only=True):
    """The pod is none of our business."""

    reason: str


class Deny(Struct, frozen=True, kw_only=True):
    """The pod is refused; the message begins with HAMi's words and goes on with the way out."""

    code: int
    message: str


class Admit(Struct, frozen=True, kw_only=True):
    """The pod may pass, changed. ``scheduler_name`` is ours when the pod asks for devices, else None."""

    changes: tuple[Change, ...] = ()
    scheduler_name: str | None = None
    needs: tuple[QuotaNeed, ...] = ()
    warnings: tuple[str, ...] = ()


def admit(pod: Pod, catalog: Catalog, *, scheduler_name: str, force_overwrite: bool) -> Admit | Deny | Skip:
    """Decide on a pod about to be created; never raises for what a user wrote."""
    if not pod.containers:
        return Deny(code=FORBIDDEN, message="pod has no containers")
    if _has_other_scheduler(pod, scheduler_name, force_overwrite=force_overwrite):
        return Skip(reason="pod already has different scheduler assigned")
    try:
        answers = [a for c in pod.all_containers for v in catalog.vendors if (a := _ask(v, c, pod)) is not None]
        is_ours = any(answer.mine for answer in answers)
        denial = _denial(pod, scheduler_name) if is_ours else None
        if denial is not None:
            return denial
        changes = tuple(change for answer in answers for change in answer.changes)
        if is_ours and scheduler_name and pod.spec.scheduler_name != scheduler_name:
            changes += (Change(scheduler=scheduler_name),)
        demand = pod_demand(_changed(pod, changes), catalog)
    except Denied as error:
        return Deny(code=REFUSED_BY_VENDOR, message=str(error))
    except BadDemand as error:
        return Deny(code=FORBIDDEN, message=str(error))
    return Admit(
        changes=changes,
        scheduler_name=(scheduler_name or None) if is_ours else None,
        needs=tuple(quota_needs(demand)),
        warnings=tuple(dict.fromkeys(warning for answer in answers for warning in answer.warnings)),
    )


def quota_needs(demand: PodDemand) -> Iterator[QuotaNeed]:
    """Sum what the pod would hold at its peak, by vendor; a percentage of memory is unknown yet and counts 0."""
    for word in vendors_of(demand):
        memory = _peak(demand, word, lambda d: d.memory.mib * d.count if isinstance(d.memory, Exactly) else 0)
        cores = _peak(demand, word, lambda d: d.cores * d.count)
        if memory or cores:
            yield QuotaNeed(vendor=word, memory=memory, cores=cores)


def over_quota(denied: QuotaDenied, namespace: str) -> Deny:
    """Word a quota's no."""
    return Deny(
        code=FORBIDDEN,
        message=f"exceeding resource quota: namespace {namespace} uses {denied.used} of {denied.limit} "
        f"{denied.resource}, the pod asks for {denied.wanted}: ask for less or raise the quota",
    )


def _has_other_scheduler(pod: Pod, ours: str, *, force_overwrite: bool) -> bool:
    named = pod.spec.scheduler_name
    if not named or (named == DEFAULT_SCHEDULER and force_overwrite):
        return False
    return not ours or named != ours


def _ask(vendor: Vendor, container: Container, pod: Pod) -> Admitted | None:
    """Return the vendor's answer, or None when it has nothing to say."""
    answer = vendor.admit(vendor, container, pod)
    return answer if answer.mine or answer.changes or answer.warnings else None


def _denial(pod: Pod, scheduler_name: str) -> Deny | None:
    for container in pod.all_containers:
        if container.security_context is not None and container.security_context.privileged:
            return Deny(
                code=FORBIDDEN,
                message=f"container {container.name} is privileged and would see every device of its node: "
                "drop privileged, or the device limits",
            )
    if scheduler_name and pod.spec.node_name:
        return Deny(
            code=FORBIDDEN,
            message="pod has node assigned: remove spec.nodeName, only the scheduler can give it devices",
        )
    return None


def _changed(pod: Pod, changes: tuple[Change, ...]) -> Pod:
    return msgspec.convert(changed(msgspec.to_builtins(pod), changes), Pod)


def _peak(demand: PodDemand, word: str, amount: Callable[[Demand], int]) -> int:
    """Return the most that runs at once: containers with sidecars, or an init container with the sidecars before it."""
    beside = peak = apps = 0
    for container in demand:
        own = sum(amount(d) for d in container.demands if d.vendor == word)
        match container.role:
            case Role.INIT:
                peak = max(peak, own + beside)
            case Role.SIDECAR:
                beside += own
            case Role.APP:
                apps += own
    return max(peak, apps + beside)
