"""Cards in MIG mode are known and never given away."""

import msgspec
from hami_model import config, vendors
from hami_model.demands import pod_demand
from hami_model.device import Device
from hami_model.fleet import Fleet
from hami_model.objects import Pod
from hami_model.place import Placement, Unfit, place
from hami_model.policies import PodPolicies

CATALOG = vendors.build(config.DEFAULTS, ascend=False, iluvatar=False)


def a_card(uuid: str, mode: str) -> Device:
    return Device(id=uuid, vendor="NVIDIA", slots=7, memory=40960, cores=100, model="NVIDIA A100", mode=mode)


def placed_on(*cards: Device) -> Placement | Unfit:
    fleet = Fleet(CATALOG)
    fleet.set_devices("node-1", "NVIDIA", cards)
    limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "3k"}
    pod = msgspec.convert({"spec": {"containers": [{"name": "c0", "resources": {"limits": limits}}]}}, Pod)
    return place(fleet, pod, pod_demand(pod, CATALOG), ["node-1"], policies=PodPolicies())


def test_a_card_cut_with_mig_is_refused() -> None:
    """A share of memory means nothing to MIG instances, which nobody here would create."""
    assert Unfit(reasons={"1/1 CardMigTopologyInfeasible": [0]}) == placed_on(a_card("GPU-0", "mig"))


def test_its_neighbour_shared_by_limits_is_given() -> None:
    """One node may have cards of both kinds."""
    answer = placed_on(a_card("GPU-0", "mig"), a_card("GPU-1", "hami-core"))

    assert isinstance(answer, Placement)
    assert ["GPU-1"] == [grant.uuid for container in answer.containers for grant in container.grants]
