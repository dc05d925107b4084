"""AWS Neuron: what a container's limits mean, what nodes' capacity says, and what annotations tell the plugin."""

from collections.abc import Mapping

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.admission import Admit, Deny, Skip, admit
from hami_model.allocation import Allocation
from hami_model.annotations import allocation_annotations, read_allocation
from hami_model.charge import charge
from hami_model.demands import pod_demand
from hami_model.device import Device
from hami_model.errors import BadDemand, MalformedInventory
from hami_model.holding import Holding, holding
from hami_model.objects import Node, Pod, PodRef
from hami_model.quota import Quotas
from hami_model.request import CoreUnit, Demand, Exactly
from hami_testkit.builders import PodBuilder, a_fleet, a_node, a_pod
from hami_testkit.deciding import placed
from msgspec import structs

CATALOG = vendors.build(config.DEFAULTS, ascend=True, iluvatar=True)
NEURON = CATALOG.by_word("AWSNeuron")
DEVICES, CORES = "aws.amazon.com/neuron", "aws.amazon.com/neuroncore"
HELD = "hami.io/aws-neuron-devices-allocated"


def a_neuron_pod(limits: Mapping[str, object], requests: Mapping[str, object] = {}) -> Pod:
    resources = {"limits": limits, "requests": requests}
    return msgspec.convert({"spec": {"containers": [{"name": "c0", "resources": resources}]}}, Pod)


def admitted(pod: Pod) -> Admit | Deny | Skip:
    return admit(pod, CATALOG, scheduler_name="hami-scheduler", force_overwrite=True)


# Asking


@pytest.mark.parametrize(
    ("limits", "count", "cores"),
    [
        ({DEVICES: "1"}, 1, 0),
        ({DEVICES: "16"}, 16, 0),
        ({CORES: "1"}, 1, 1),
        ({CORES: "2"}, 1, 2),
        ({CORES: "8"}, 4, 2),
        ({DEVICES: "2", CORES: "1"}, 2, 0),
    ],
)
def test_every_form_of_the_limits(limits: dict[str, object], count: int, cores: int) -> None:
    """Devices count before cores; 0 cores are all of a device."""
    (container,) = pod_demand(a_neuron_pod(limits), CATALOG)

    assert (
        Demand(vendor="AWSNeuron", count=count, memory=Exactly(0), cores=cores, core_unit=CoreUnit.BITS),
    ) == container.demands


def test_the_requests_count_where_the_limits_are_silent() -> None:
    """At admission too."""
    pod = a_neuron_pod({}, {CORES: "4"})
    answer = admitted(pod)

    assert 2 == pod_demand(pod, CATALOG)[0].demands[0].count
    assert isinstance(answer, Admit)
    assert "hami-scheduler" == answer.scheduler_name


def test_who_names_neither_asks_for_nothing() -> None:
    """The pod is left alone."""
    answer = admitted(a_neuron_pod({"cpu": "1"}))

    assert isinstance(answer, Admit)
    assert answer.scheduler_name is None


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({DEVICES: "0"}, f"{DEVICES} must be greater than 0: it is 0 in container c0; leave it out, or write 1"),
        ({DEVICES: "1500m"}, f"{DEVICES} must be an integer: 1500m in container c0 is none"),
        ({DEVICES: "3G"}, f"{DEVICES} must not exceed 2147483647: it is 3G in container c0"),
        ({CORES: "3"}, f"{CORES} must be 1 or a multiple of 2, got 3 in container c0: write 4"),
        ({CORES: "-1"}, f"{CORES} must be greater than 0: it is -1 in container c0; leave it out, or write 1"),
        ({CORES: "4294967295"}, f"{CORES} must not exceed 4294967294: it is 4294967295 in container c0"),
    ],
)
def test_what_cannot_be_given_is_refused_in_hamis_words(limits: dict[str, object], sentence: str) -> None:
    """At admission, and where a pod came past it."""
    assert Deny(code=500, message=sentence) == admitted(a_neuron_pod(limits))
    with pytest.raises(BadDemand) as refusal:
        pod_demand(a_neuron_pod(limits), CATALOG)
    assert sentence == str(refusal.value)


# What nodes say


def counted(devices: object, cores: object, instance: str | None = "trn1.32xlarge") -> tuple[Device, ...]:
    capacity = {name: n for name, n in ((DEVICES, devices), (CORES, cores)) if n is not None}
    labels = {} if instance is None else {"node.kubernetes.io/instance-type": instance}
    raw = {"metadata": {"name": "n", "labels": labels}, "status": {"capacity": capacity}}
    return NEURON.discover(NEURON, msgspec.convert(raw, Node))


@pytest.mark.parametrize(("devices", "cores", "slots", "mask"), [("4", "8", 2, 3), ("2", "8", 4, 15), (1, 1, 1, 1)])
def test_devices_are_counted_from_the_capacity(devices: object, cores: object, slots: int, mask: int) -> None:
    """Each has its share of the cores, one bit for each; every node its own."""
    found = counted(devices, cores)

    assert [f"n-AWSNeuron-{at}" for at in range(int(str(devices)))] == [device.id for device in found]
    assert {(slots, mask, 0)} == {(device.slots, device.cores, device.memory) for device in found}


@pytest.mark.parametrize(("devices", "cores"), [(None, None), ("0", "8"), (None, "8")])
def test_no_devices_are_no_devices(devices: object, cores: object) -> None:
    """Whatever the cores say."""
    assert () == counted(devices, cores)


def test_devices_without_cores_take_nobody() -> None:
    """The second resource may come later; a node without the label is wired like Trainium."""
    (device,) = counted("1", None, instance=None)

    assert (0, 0, "") == (device.slots, device.cores, device.mode)


@pytest.mark.parametrize(
    ("devices", "cores", "sentence"),
    [
        ("1.5", "2", f"capacity {DEVICES} of node n is 1.5, not a whole number"),
        ("2", "-1", f"capacity {CORES} of node n is -1, not a whole number"),
        ("1", "32", "node n has 32 cores a device, more than the 31 that can be told"),
    ],
)
def test_a_capacity_that_cannot_be_read_is_refused(devices: str, cores: str, sentence: str) -> None:
    """The sentence names the node and the resource."""
    with pytest.raises(MalformedInventory) as refusal:
        counted(devices, cores)

    assert sentence == str(refusal.value)


# Annotations


def given(asking: PodBuilder, *, devices: int = 4, cores: int = 8) -> tuple[tuple[Device, ...], Pod]:
    """Place a pod on a node of its own; return the devices, and the pod as it is bound."""
    listed = counted(devices, cores)
    node = structs.replace(a_node("n"), cards=listed)
    pod, placement = asking.pod(), placed(a_fleet(node), asking)
    allocation = Allocation(pod=PodRef.of(pod), node="n", containers=placement.containers)
    written = allocation_annotations(CATALOG, allocation, pod, now=1767225600.25)
    meta = structs.replace(pod.metadata, annotations=written)
    return listed, structs.replace(pod, metadata=meta, spec=structs.replace(pod.spec, node_name="n"))


def notes(asking: PodBuilder, *, devices: int = 4, cores: int = 8) -> dict[str, str]:
    return given(asking, devices=devices, cores=cores)[1].annotations


def test_whole_devices_are_told_by_their_numbers() -> None:
    """Without a resource type; the time is in nanoseconds."""
    written = notes(a_pod().asking(**{DEVICES: 4}))

    assert "0,1,2,3" == written["AWS_NEURON_IDS"]
    assert "1767225600250000000" == written["NEURON_ALLOC_TIME"]
    assert ("false", "n") == (written["NEURON_ALLOCATED"], written["aws.amazon.com/predicate-node"])
    assert "NEURON_RESOURCE_TYPE" not in written


def test_cores_are_told_by_their_numbers_on_the_node() -> None:
    """Both of device 3, one for each container; a container without any has its empty group."""
    written = notes(a_pod().asking(**{CORES: 1}).asking().asking(**{CORES: 1}))

    assert ("6,7", CORES) == (written["AWS_NEURON_IDS"], written["NEURON_RESOURCE_TYPE"])
    assert "n-AWSNeuron-3,AWSNeuron,0,1:;;n-AWSNeuron-3,AWSNeuron,0,2:;" == written[HELD]


def test_devices_beside_cores_are_told_by_their_cores() -> None:
    """One kind of number, where HAMi mixes both."""
    written = notes(a_pod().asking(**{DEVICES: 1}).asking(**{CORES: 1}))

    assert ("6,7,4", CORES) == (written["AWS_NEURON_IDS"], written["NEURON_RESOURCE_TYPE"])


def test_a_device_of_four_cores_is_told_by_four() -> None:
    """The second pair of device 1 begins at core 6."""
    written = notes(a_pod().asking(**{CORES: 2}).asking(**{CORES: 2}), devices=2)

    assert "4,5,6,7" == written["AWS_NEURON_IDS"]
    assert "n-AWSNeuron-1,AWSNeuron,0,3:;n-AWSNeuron-1,AWSNeuron,0,12:;" == written[HELD]


@pytest.mark.parametrize("asked", [{DEVICES: 1}, {CORES: 2}, {CORES: 8}])
def test_what_was_written_is_believed_after_a_restart(asked: dict[str, int]) -> None:
    """In full, and without a complaint."""
    devices, pod = given(a_pod().asking(**asked))
    read = read_allocation(CATALOG, pod)

    assert read is not None
    assert Holding(allocation=read) == holding(pod, CATALOG, devices)


@pytest.mark.parametrize(("mark", "is_confirmed"), [("false", False), ("true", True)])
def test_the_plugin_says_when_it_has_served_the_pod(mark: str, is_confirmed: bool) -> None:
    """By the mark that we write as false."""
    assert is_confirmed == NEURON.confirmed(a_pod().annotated({"NEURON_ALLOCATED": mark}).pod())


def test_a_quota_counts_cores_and_not_their_mask() -> None:
    """Cores 2 and 3 of a device are two cores, whatever number stands for them."""
    quotas = Quotas(CATALOG)
    quotas.set("team-a", "quota", {f"limits.{CORES}": "4"})
    _, pod = given(a_pod().asking(**{CORES: 2}).asking(**{CORES: 2}), devices=2)
    read = read_allocation(CATALOG, pod)
    assert read is not None

    quotas.charge("team-a", charge(read, pod))

    assert (0, 4) == quotas.used("team-a", "AWSNeuron")
    assert quotas.fits("team-a", "AWSNeuron", 0, 1) is not None
