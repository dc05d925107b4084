"""What a node's own entry in HAMi's config.json changes about its cards."""

import json
from pathlib import Path

import pytest
from hami_model import config
from hami_model.config import Nvidia
from hami_node_agent.node_config import CardRules, Filter, NodeConfig

CHART = config.DEFAULTS.nvidia or Nvidia()


def written(folder: Path, *entries: dict[str, object]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({"nodeconfig": entries}))
    return path


def test_without_an_entry_the_device_config_counts(tmp_path: Path) -> None:
    """Another node's entry concerns nobody else."""
    path = written(tmp_path, {"name": "n2", "devicesplitcount": 3})

    rules = NodeConfig(CHART, node="n1", path=path).rules

    assert rules == CardRules(allowlist=CHART.mig_profile_allowlist, log_level="1")


def test_an_entry_counts_more_whatever_the_case_of_its_keys(tmp_path: Path) -> None:
    """Of two entries the later one wins; what it leaves out is the earlier one's."""
    first = {
        "name": "n1",
        "operatingmode": "mig",
        "deviceSplitCount": 4,
        "filterdevices": {"uuid": ["GPU-a"], "index": [3]},
    }
    second = {"name": "n1", "DEVICEMEMORYSCALING": 1.5, "devicesplitcount": 5, "enablenumatopology": True}

    rules = NodeConfig(CHART, node="n1", path=written(tmp_path, first, second)).rules

    assert (rules.mode, rules.slots, rules.memory_scaling, rules.core_scaling) == ("mig", 5, 1.5, 1)
    assert rules.left_alone == Filter(uuid=("GPU-a",), index=(3,))
    assert rules.tells_numa


def test_a_zero_says_nothing_and_false_says_no(tmp_path: Path) -> None:
    """HAMi drops a false with the zeros, so a node could not turn off what the device config turns on."""
    on = Nvidia(device_split_count=7, device_memory_scaling=2, enable_numa_topology=True, lib_cuda_log_level="3")
    entry = {
        "name": "n1",
        "devicesplitcount": 0,
        "devicememoryscaling": 0,
        "enablenumatopology": False,
        "libcudaloglevel": "",
    }

    rules = NodeConfig(on, node="n1", path=written(tmp_path, entry)).rules

    assert (rules.slots, rules.memory_scaling, rules.tells_numa, rules.log_level) == (7, 2, False, "3")


def test_the_file_is_read_again_when_it_is_another(tmp_path: Path) -> None:
    """One that is taken away leaves the device config."""
    path = written(tmp_path, {"name": "n1", "devicesplitcount": 2})
    node = NodeConfig(CHART, node="n1", path=path)
    before = node.rules.slots
    written(tmp_path, {"name": "n1", "devicesplitcount": 20})
    changed = node.rules.slots
    path.unlink()

    assert (before, changed, node.rules.slots) == (2, 20, 10)


@pytest.mark.parametrize(("strategy", "is_told"), [("mixed", True), ("single", True), ("none", False), ("", False)])
def test_a_strategy_for_instances_made_by_hand_is_told_to_mean_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, strategy: str, *, is_told: bool
) -> None:
    """HAMi reads it and does nothing with it; here somebody hears that, and what would do."""
    path = written(tmp_path, {"name": "n1", "migstrategy": strategy}, {"name": "n2", "migstrategy": "mixed"})

    assert NodeConfig(CHART, node="n1", path=path).rules.mode == "hami-core"
    assert (f'migstrategy "{strategy}" has no effect' in caplog.text) is is_told
    assert ("has no effect" in caplog.text) is is_told


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            '{"nodeconfig": [{"name": "n1", "devicesplitcount": "two"}]}',
            r"Expected `int`, got `str` - at `\$\.nodeconfig\[0\]",
        ),
        ('{"nodeconfig": [{"name": "n1", "devicememoryscaling": -1}]}', r"\$\.nodeconfig\[0\]\.devicememoryscaling"),
        ("nodeconfig:", "is no node config of HAMi"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_once_and_changes_nothing(tmp_path: Path, text: str, sentence: str) -> None:
    """A typing error in a ConfigMap takes no cards away."""
    path = written(tmp_path, {"name": "n1", "devicesplitcount": 2})
    node = NodeConfig(CHART, node="n1", path=path)
    before = node.rules
    path.write_text(text)

    with pytest.raises(ValueError, match=sentence) as raised:
        _ = node.rules

    assert str(path) in str(raised.value)
    assert node.rules == before
