"""The pod annotations that choose or exclude cards."""

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.objects import Pod
from hami_model.vendor import Constraints

CATALOG = vendors.build(config.DEFAULTS, ascend=True, iluvatar=False)


def constraints_of(annotations: dict[str, str], word: str = "NVIDIA") -> Constraints:
    vendor = CATALOG.by_word(word)
    return vendor.constraints(vendor, msgspec.convert({"metadata": {"annotations": annotations}}, Pod))


@pytest.mark.parametrize("value", ["", "  "])
def test_a_blank_list_is_no_constraint(value: str) -> None:
    """A templated manifest may leave the value empty."""
    assert Constraints() == constraints_of({"nvidia.com/use-gpuuuid": value, "nvidia.com/nouse-gputype": value})


def test_lists_are_split_and_trimmed() -> None:
    """Models are compared in upper case, uuids exactly."""
    annotations = {
        "nvidia.com/use-gputype": " a100 ,V100,",
        "nvidia.com/nouse-gputype": "mig",
        "nvidia.com/use-gpuuuid": "GPU-a, GPU-b",
        "nvidia.com/nouse-gpuuuid": "GPU-c",
    }

    assert Constraints(
        use_models=("A100", "V100"),
        nouse_models=("MIG",),
        use_uuids=frozenset({"GPU-a", "GPU-b"}),
        nouse_uuids=frozenset({"GPU-c"}),
    ) == constraints_of(annotations)


def test_a_list_of_nothing_allows_nothing() -> None:
    """``,`` is not blank, so HAMi matches no card with it."""
    assert Constraints(use_models=(), use_uuids=frozenset()) == constraints_of(
        {"nvidia.com/use-gputype": ",", "nvidia.com/use-gpuuuid": " , "}
    )


@pytest.mark.parametrize(
    ("word", "bound"), [("true", True), ("1", True), ("T", True), ("yes", False), ("false", False)]
)
def test_numa_bind_is_one_of_the_words_for_true(word: str, bound: bool) -> None:
    """The words are Go's."""
    assert bound == constraints_of({"nvidia.com/numa-bind": word}).numa_bind


def test_each_vendor_reads_its_own_annotations() -> None:
    """What is NVIDIA's says nothing about an Ascend card."""
    annotations = {
        "nvidia.com/use-gpuuuid": "GPU-a",
        "nvidia.com/vgpu-mode": "mig",
        "hami.io/use-Ascend310P-uuid": "U0",
        "hami.io/no-use-Ascend910A-uuid": "U1",
        "cambricon.com/nouse-gpuuuid": "M0",
        "huawei.com/vnpu-mode": "hami-core",
    }

    assert Constraints(use_uuids=frozenset({"GPU-a"}), modes="mig") == constraints_of(annotations)
    assert Constraints(use_uuids=frozenset({"U0"}), soft_split=True) == constraints_of(annotations, "Ascend310P")
    assert Constraints(nouse_uuids=frozenset({"U1"}), soft_split=True) == constraints_of(annotations, "Ascend910A")
    assert Constraints(nouse_uuids=frozenset({"M0"})) == constraints_of(annotations, "MLU")
