"""What a container's limits mean for Ascend chips and Cambricon MLUs."""

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.demands import pod_demand
from hami_model.errors import BadDemand
from hami_model.objects import Pod
from hami_model.request import Demand, Exactly, Whole
from hami_model.vendors.ascend.templates import Cut, settings, trim

CATALOG = vendors.build(config.DEFAULTS, ascend=True, iluvatar=False)
NPU = "huawei.com/Ascend910B3"
MLU, UNITS, VCORE = "cambricon.com/vmlu", "cambricon.com/mlu.smlu.vmemory", "cambricon.com/mlu.smlu.vcore"


def demands_of(limits: dict[str, object]) -> tuple[Demand, ...]:
    pod = msgspec.convert({"spec": {"containers": [{"name": "c0", "resources": {"limits": limits}}]}}, Pod)
    return pod_demand(pod, CATALOG)[0].demands


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({NPU: "1"}, Demand(vendor="Ascend910B3", count=1, memory=Whole())),
        ({NPU: "1", f"{NPU}-memory": "16384"}, Demand(vendor="Ascend910B3", count=1, memory=Exactly(16384))),
        ({NPU: "1", f"{NPU}-memory": "15360", f"{NPU}-core": "20"},
         Demand(vendor="Ascend910B3", count=1, memory=Exactly(15360), cores=20)),
        ({MLU: "1"}, Demand(vendor="MLU", count=1, memory=Whole(), cores=100)),
        ({MLU: "1", UNITS: "20", VCORE: "10"}, Demand(vendor="MLU", count=1, memory=Exactly(5120), cores=10)),
        ({MLU: "2", UNITS: "16"}, Demand(vendor="MLU", count=2, memory=Exactly(4096), cores=100)),
        ({MLU: "1", UNITS: "48", VCORE: "0"}, Demand(vendor="MLU", count=1, memory=Exactly(12288))),
    ],
)  # fmt: skip
def test_every_form_of_the_limits(limits: dict[str, object], expected: Demand) -> None:
    """Memory counts MiB for Ascend and units of 256 MiB for Cambricon, whose cards default to all cores."""
    assert (expected,) == demands_of(limits)


@pytest.mark.parametrize("limits", [{NPU: "0"}, {f"{NPU}-memory": "100"}, {MLU: "0", UNITS: "1"}, {VCORE: "10"}])
def test_without_a_count_nothing_is_asked(limits: dict[str, object]) -> None:
    """Memory and cores alone, or zero cards, are no demand."""
    assert () == demands_of(limits)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (
            {MLU: "1", UNITS: "16Gi"},
            f"{UNITS} 16Gi in container c0 is too much: {UNITS} counts units of 256 MiB: write 64",
        ),
        (
            {MLU: "1", UNITS: "1.5"},
            f"{UNITS} 1.5 in container c0 cannot be read: write a whole number of units of 256 MiB",
        ),
        ({MLU: "1.5"}, f"{MLU} 1.5 in container c0 cannot be read"),
        ({NPU: "1", f"{NPU}-memory": "16Gi"}, f"{NPU}-memory counts MiB: write 16384"),
        ({NPU: "1", f"{NPU}-core": "1500m"}, f"{NPU}-core 1500m in container c0 cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_way_out(limits: dict[str, object], sentence: str) -> None:
    """The way out is written in the resource's own unit."""
    with pytest.raises(BadDemand) as refused:
        demands_of(limits)

    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("memory", "cut"),
    [
        (2000, Cut(3072, "vir01")),
        (3072, Cut(3072, "vir01")),
        (3073, Cut(6144, "vir02")),
        (12289, Cut(21527)),
        (24576, Cut(21527)),
        (24577, Cut(0)),
        (0, Cut(3072, "vir01")),
    ],
)
def test_memory_is_rounded_up_to_what_a_310p_can_be_cut_into(memory: int, cut: Cut) -> None:
    """The smallest template that holds it, else the whole card, else nothing."""
    assert cut == trim(settings(CATALOG.by_word("Ascend310P")).chip, memory)
