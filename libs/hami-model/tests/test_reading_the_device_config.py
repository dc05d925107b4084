"""HAMi's device-config.yaml as values, and the catalog made from it."""

from typing import Any

import pytest
from hami_model import config, vendors
from hami_model.catalog import Catalog
from hami_model.errors import DomainError

HAMIS_ORDER = (
    "NVIDIA", "MLU", "DCU", "MR-V100", "MR-V50", "BI-V150", "BI-V100", "Mthreads", "Metax-GPU", "Metax-SGPU", "kunlun",
    "XPU", "GCU", "Enflame", "AWSNeuron", "AMD", "Vastai", "Biren",
)  # fmt: skip


def test_the_chart_brings_every_vendor() -> None:
    """In HAMi's order, in which a container's demands stand; Ascend and Iluvatar chips only where switched on."""
    on = vendors.build(config.DEFAULTS, ascend=True, iluvatar=False).words
    iluvatar = vendors.build(config.DEFAULTS, ascend=False, iluvatar=True).words
    off = vendors.build(config.DEFAULTS, ascend=False, iluvatar=False).words

    assert {"NVIDIA", "MLU", "DCU", "Biren"} <= set(off)
    assert sorted(iluvatar, key=HAMIS_ORDER.index) == list(iluvatar)
    assert ["MR-V100", "MR-V50", "BI-V150", "BI-V100"] == [word for word in iluvatar if word not in off]
    assert sorted(off, key=HAMIS_ORDER.index) == list(off) == list(on[: len(off)])
    assert {"Ascend310P", "Ascend910C", "Ascend910B4-1"} < set(on[len(off) :])
    assert 7 == len(on) - len(off)


def test_a_section_that_is_absent_is_a_vendor_less() -> None:
    """A file with one section knows one vendor, under the names it gives."""
    catalog = vendors.build(config.parse({"nvidia": {"resourceCountName": "x.io/gpu"}}), ascend=True, iluvatar=False)

    assert ("NVIDIA",) == catalog.words
    assert "x.io/gpu" == catalog.by_word("NVIDIA").resources.count
    assert 1 == catalog.by_word("NVIDIA").resources.memory_factor


def test_unknown_words_are_told_apart() -> None:
    """A word from a message may be anybody's; a word from our own books must be known."""
    catalog = vendors.build(config.DEFAULTS, ascend=False, iluvatar=False)

    assert catalog.find("TPU") is None
    with pytest.raises(KeyError):
        catalog.by_word("TPU")


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        ({}, "all configurations are empty"),
        (None, "all configurations are empty"),
        ({"nvidia": {}, "vnpus": None}, "all configurations are empty"),
        ([], "all configurations are empty"),
        ({"vnpus": [{"chipName": "310P3"}]}, "vnpus is a list, as before HAMi 2.9"),
        ({"nvidia": {"defaultGPUNum": "one"}}, "nvidia.defaultGPUNum"),
        ({"nvidia": {"defaultMemory": -5}}, r">= 0 - at `\$.nvidia.defaultMemory`"),
        ({"nvidia": {"memoryFactor": -1}}, r">= 0 - at `\$.nvidia.memoryFactor`"),
        ({"nvidia": {"deviceMemoryScaling": -1}}, r">= 0.0 - at `\$.nvidia.deviceMemoryScaling`"),
        ({"nvidia": {"deviceMemoryScaling": float("inf")}}, r"<= 1000.0 - at `\$.nvidia.deviceMemoryScaling`"),
        ({"nvidia": {"deviceSplitCount": 2**40}}, r"<= 2147483647 - at `\$.nvidia.deviceSplitCount`"),
        ({"vnpus": {"configs": [{}]}}, "vnpus.configs"),
        ({"nvidia": {"migProfileAllowlist": [{"models": ["A30"]}]}}, "without models or profiles"),
        ({"nvidia": {"migProfileAllowlist": [{"models": ["A30"], "profiles": ["6gb"]}]}}, "'6gb' is unlike 1g.5gb"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(raw: Any, complaint: str) -> None:
    """The sentence names the key."""
    with pytest.raises(DomainError, match=complaint):
        config.parse(raw)


def test_keys_that_nobody_knows_are_ignored() -> None:
    """Files of newer and older releases still say what they say."""
    assert config.DeviceConfig(cambricon=config.Names(resource_count_name="x")) == config.parse(
        {"cambricon": {"resourceCountName": "x", "future": 1}, "future": {}}
    )


def test_a_key_without_a_value_is_as_good_as_absent() -> None:
    """Charts leave ``runtimeClassName:`` alone on its line; HAMi reads its zero value."""
    chip = {"commonWord": "Ascend310P", "runtimeClassName": None, "memoryFactor": None, "templates": None}

    assert config.DeviceConfig(
        cambricon=config.Names(resource_count_name="x"),
        vnpus=config.Vnpus(configs=(config.Chip(common_word="Ascend310P"),)),
    ) == config.parse(
        {
            "cambricon": {"resourceCountName": "x", "resourceCoreName": None},
            "vnpus": {"hamiVnpuCore": None, "configs": [chip]},
        }
    )


def test_two_vendors_cannot_share_a_resource() -> None:
    """A container would be served twice for one ask."""
    catalog = vendors.build(config.DEFAULTS, ascend=False, iluvatar=False)

    with pytest.raises(DomainError, match="gives common word NVIDIA to two vendors"):
        Catalog.of([*catalog.vendors, catalog.by_word("NVIDIA")])
    with pytest.raises(DomainError, match=r"gives count resource x\.io/card to two vendors"):
        vendors.build(
            config.parse(
                {"nvidia": {"resourceCountName": "x.io/card"}, "cambricon": {"resourceCountName": "x.io/card"}}
            ),
            ascend=False,
            iluvatar=False,
        )
