"""What a container's limits mean for NVIDIA cards."""

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.catalog import Catalog
from hami_model.demands import pod_demand
from hami_model.errors import BadDemand
from hami_model.objects import Pod
from hami_model.request import Demand, Exactly, Percent, Role, Whole

GPU, MEMORY, CORES = "nvidia.com/gpu", "nvidia.com/gpumem", "nvidia.com/gpucores"
PERCENT = "nvidia.com/gpumem-percentage"
CATALOG = vendors.build(config.DEFAULTS, ascend=False, iluvatar=False)


def a_pod(limits: dict[str, object], *, section: str = "limits") -> Pod:
    return msgspec.convert({"spec": {"containers": [{"name": "c0", "resources": {section: limits}}]}}, Pod)


def demand_of(limits: dict[str, object], catalog: Catalog = CATALOG, *, section: str = "limits") -> Demand | None:
    demands = pod_demand(a_pod(limits, section=section), catalog)[0].demands
    return demands[0] if demands else None


def configured(**changes: int) -> Catalog:
    assert config.DEFAULTS.nvidia is not None
    section = msgspec.structs.replace(config.DEFAULTS.nvidia, **changes)
    return vendors.build(config.DeviceConfig(nvidia=section), ascend=False, iluvatar=False)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({GPU: "1"}, Demand(vendor="NVIDIA", count=1, memory=Whole())),
        ({GPU: 2, MEMORY: "3k", CORES: "30"}, Demand(vendor="NVIDIA", count=2, memory=Exactly(3000), cores=30)),
        ({GPU: "1", MEMORY: "2Ki"}, Demand(vendor="NVIDIA", count=1, memory=Exactly(2048))),
        ({GPU: "1", MEMORY: 3000.0}, Demand(vendor="NVIDIA", count=1, memory=Exactly(3000))),
        ({GPU: "1", PERCENT: "50"}, Demand(vendor="NVIDIA", count=1, memory=Percent(50))),
        ({GPU: "1", PERCENT: "0"}, Demand(vendor="NVIDIA", count=1, memory=Whole())),
        ({GPU: "1", MEMORY: "0", CORES: "10"}, Demand(vendor="NVIDIA", count=1, memory=Whole(), cores=10)),
        (
            {GPU: "1", MEMORY: "3k", PERCENT: "50"},
            Demand(vendor="NVIDIA", count=1, memory=Exactly(3000), percent_hint=50),
        ),
        ({GPU: "1", CORES: "150"}, Demand(vendor="NVIDIA", count=1, memory=Whole(), cores=100)),
        ({GPU: "0"}, None),
        ({MEMORY: "3k"}, None),
        ({"cpu": "1"}, None),
    ],
)
def test_every_form_of_the_limits(limits: dict[str, object], expected: Demand | None) -> None:
    """Count, memory, percentage and cores, each absent, zero or given."""
    assert expected == demand_of(limits)


def test_requests_speak_where_limits_are_silent() -> None:
    """A pod that carries its ask in the requests alone is still counted."""
    assert Demand(vendor="NVIDIA", count=1, memory=Exactly(100)) == demand_of(
        {GPU: "1", MEMORY: "100"}, section="requests"
    )


def test_defaults_of_the_device_config_fill_the_gaps() -> None:
    """Default memory applies where neither memory nor percentage is given, default cores where none are."""
    catalog = configured(default_memory=5000, default_cores=25)

    assert Demand(vendor="NVIDIA", count=1, memory=Exactly(5000), cores=25) == demand_of({GPU: "1"}, catalog)
    assert Demand(vendor="NVIDIA", count=1, memory=Percent(30), cores=25) == demand_of(
        {GPU: "1", PERCENT: "30"}, catalog
    )
    assert Demand(vendor="NVIDIA", count=1, memory=Exactly(100), cores=5) == demand_of(
        {GPU: "1", MEMORY: "100", CORES: "5"}, catalog
    )


def test_a_memory_factor_turns_units_into_mib() -> None:
    """With a factor of 1024 users write GiB."""
    assert Demand(vendor="NVIDIA", count=1, memory=Exactly(20480)) == demand_of(
        {GPU: "1", MEMORY: "20"}, configured(memory_factor=1024)
    )


@pytest.mark.parametrize(
    ("name", "written", "says"),
    [
        (MEMORY, "16Gi", "is too much: nvidia.com/gpumem counts MiB: write 16384"),
        (MEMORY, "512Mi", "is too much: nvidia.com/gpumem counts MiB: write 512"),
        (MEMORY, "17179869184", "is too much: nvidia.com/gpumem counts MiB: write 16384"),
        (MEMORY, "1.5", "cannot be read: write a whole number of MiB from 0 to 16777215, such as 2"),
        (MEMORY, "-1", "cannot be read: write a whole number of MiB from 0 to 16777215, such as 1"),
        (MEMORY, 10**30, "cannot be read"),
        (MEMORY, "1e30", "cannot be read"),
        (GPU, "1.5", "cannot be read: write a whole number of cards from 0 to 2147483647, such as 2"),
        (GPU, "-1", "cannot be read"),
        (GPU, "3G", "cannot be read"),
        (CORES, "-5", "cannot be read: write a whole number of percent of a card's cores"),
        (PERCENT, "101", "cannot be read: write a whole number of percent from 0 to 100, such as 100"),
        (PERCENT, "500m", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_way_out(name: str, written: object, says: str) -> None:
    """The sentence names the field, the value, the container and what to write."""
    with pytest.raises(BadDemand) as refused:
        demand_of({GPU: "1", name: written})

    assert str(refused.value).startswith(f"{name} {written} in container c0 {says}")


def test_init_containers_and_sidecars_come_first_and_keep_their_role() -> None:
    """A position in the demand is a position in every device annotation."""
    pod = msgspec.convert(
        {
            "spec": {
                "initContainers": [{"name": "i0"}, {"name": "s0", "restartPolicy": "Always"}],
                "containers": [{"name": "c0", "resources": {"limits": {GPU: "1"}}}],
            }
        },
        Pod,
    )

    assert [("i0", Role.INIT, 0), ("s0", Role.SIDECAR, 0), ("c0", Role.APP, 1)] == [
        (c.name, c.role, len(c.demands)) for c in pod_demand(pod, CATALOG)
    ]
