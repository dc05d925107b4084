"""HAMi's device-config.yaml as values, and the catalog made from it."""

from typing import Any

import pytest
from hami_model import config, vendors
from hami_model.catalog import Catalog
from hami_model.config_reading import written
from hami_model.defaults import DEVICE_CONFIG
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
        (
            {"nvidia": {"deviceSplitCount": "ten"}},
            'nvidia.deviceSplitCount: "ten" is no whole number; write one such as 10',
        ),
        ({"nvidia": {"defaultGPUNum": 1.5}}, r"nvidia.defaultGPUNum: 1\.5 is no whole number; write one such as 1"),
        ({"nvidia": {"overwriteEnv": "sure"}}, 'nvidia.overwriteEnv: "sure" is neither true nor false'),
        ({"nvidia": {"deviceCoreScaling": "all"}}, 'nvidia.deviceCoreScaling: "all" is no number; write one such as 1'),
        (
            {"amd": {"resourceCountName": ["amd.com/gpu"]}},
            "amd.resourceCountName: a list is no text; write one such as ",
        ),
        ({"amd": "amd.com/gpu"}, 'amd: "amd.com/gpu" is no section; write its keys below it'),
        ({"iluvatars": {"chipName": "MR-V100"}}, "iluvatars: a map is no list"),
        ({"nvidia": {"defaultMemory": -5}}, "nvidia.defaultMemory: -5 is out of range; write 0 to 2147483647"),
        ({"nvidia": {"memoryFactor": -1}}, "nvidia.memoryFactor: -1 is out of range"),
        ({"nvidia": {"deviceMemoryScaling": -1}}, "nvidia.deviceMemoryScaling: -1 is out of range; write 0 to 1000"),
        ({"nvidia": {"deviceMemoryScaling": float("inf")}}, "nvidia.deviceMemoryScaling: inf is out of range"),
        ({"nvidia": {"deviceSplitCount": 2**40}}, "nvidia.deviceSplitCount: 1099511627776 is out of range"),
        (
            {"vnpus": {"configs": [{}]}},
            r"vnpus.configs\[0\]: has no commonWord; write one such as commonWord: Ascend910A",
        ),
        ({"nvidia": {"migProfileAllowlist": [{"models": ["A30"]}]}}, "without models or profiles"),
        ({"nvidia": {"migProfileAllowlist": [{"models": ["A30"], "profiles": ["6gb"]}]}}, "'6gb' is unlike 1g.5gb"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(raw: Any, complaint: str) -> None:
    """The sentence names the key."""
    with pytest.raises(DomainError, match=complaint):
        config.parse(raw)


def test_all_mistakes_are_told_at_once() -> None:
    """Whoever mends a file wants to do so once."""
    raw = {"nvidia": {"deviceSplitCount": "ten", "memoryFactor": []}, "vnpus": {"hamiVnpuCore": 3}}

    assert ["nvidia.deviceSplitCount", "nvidia.memoryFactor", "vnpus.hamiVnpuCore"] == [
        written(remark.path) for remark in config.examine(raw).wrong
    ]
    with pytest.raises(DomainError, match=r"deviceSplitCount: .*; nvidia.memoryFactor: .*; vnpus.hamiVnpuCore: "):
        config.parse(raw)


def test_what_hamis_yaml_library_takes_is_taken() -> None:
    """A number or a truth value is a text where one is wanted; a number without a fraction is a whole one."""
    nvidia = config.parse({"nvidia": {"resourceCountName": 7, "runtimeClassName": True, "memoryFactor": 2.0}}).nvidia

    assert nvidia is not None
    assert ("7", "true", 2) == (nvidia.resource_count_name, nvidia.runtime_class_name, nvidia.memory_factor)


def test_a_key_that_nobody_reads_is_told_with_what_was_meant() -> None:
    """At every depth; where no key is alike, that it is to go."""
    template = {"name": "vir01", "memory": 1, "aiCores": 2}
    raw = {
        "nvidia": {"resourceCountNames": "x"},
        "biren": {"flavour": 1},
        "vnpus": {"configs": [{"commonWord": "A", "templates": [template]}]},
        "nvidea": {},
    }
    reading = config.examine(raw)

    assert () == reading.wrong
    assert {
        "unknown key nvidea; did you mean nvidia?",
        "unknown key nvidia.resourceCountNames; did you mean resourceCountName?",
        "unknown key vnpus.configs[0].templates[0].aiCores; did you mean aiCore?",
        "unknown key biren.flavour; nobody reads it: remove it",
    } == {remark.sentence for remark in reading.unread}


def test_the_charts_own_file_has_nothing_to_tell() -> None:
    """Every key that HAMi's chart writes is known."""
    assert ((), ()) == ((reading := config.examine(DEVICE_CONFIG)).wrong, reading.unread)


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
