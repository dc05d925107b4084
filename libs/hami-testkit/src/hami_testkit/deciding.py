"""How the stories about placing ask: one pod, one fleet, and the answer in few words."""

from collections.abc import Mapping

from hami_model.allocation import ContainerGrants
from hami_model.demands import pod_demand
from hami_model.fleet import Fleet
from hami_model.place import Placement, Unfit, place
from hami_model.policies import Policies, for_pod
from hami_model.quota import UNLIMITED, QuotaView

from hami_testkit.builders import PodBuilder

ORDINARY = Policies()


def decided(
    fleet: Fleet, asking: PodBuilder, *, policies: Policies = ORDINARY, quota: QuotaView = UNLIMITED
) -> Placement | Unfit:
    """Place a pod on any node of the fleet."""
    pod = asking.pod()
    demand = pod_demand(pod, fleet.catalog)
    return place(fleet, pod, demand, fleet.nodes, policies=for_pod(pod, policies), quota=quota)


def placed(
    fleet: Fleet, asking: PodBuilder, *, policies: Policies = ORDINARY, quota: QuotaView = UNLIMITED
) -> Placement:
    """Place a pod that must find its place."""
    match decided(fleet, asking, policies=policies, quota=quota):
        case Unfit(reasons=reasons):
            raise AssertionError(f"no node takes the pod: {reasons}")
        case Placement() as placement:
            return placement


def refused(
    fleet: Fleet, asking: PodBuilder, *, policies: Policies = ORDINARY, quota: QuotaView = UNLIMITED
) -> dict[str, str]:
    """Place a pod that must not find a place; return node -> HAMi's words."""
    match decided(fleet, asking, policies=policies, quota=quota):
        case Placement(node=node):
            raise AssertionError(f"{node} takes the pod")
        case Unfit(reasons=reasons):
            return words(fleet, reasons)


def words(fleet: Fleet, reasons: Mapping[str, list[int]]) -> dict[str, str]:
    """Turn HAMi's words with positions into node -> words."""
    return {fleet.nodes[position]: text for text, positions in reasons.items() for position in positions}


def cards(containers: tuple[ContainerGrants, ...]) -> list[list[str]]:
    """Return the uuids that each container took, in the order of taking."""
    return [[grant.uuid for grant in container.grants] for container in containers]
