"""How cards reach a container: the words of NVIDIA's device plugin, whichever way an admin has chosen."""

from pathlib import Path

import pytest
from hami_kit.errors import SettingsError
from hami_kit.settings import load
from hami_model.device import Placement
from hami_model.objects import PodRef
from hami_node_agent.bootstrap import delivery
from hami_node_agent.delivery import CardNumbers, Delivery, delivered, delivered_instances
from hami_node_agent.edits import DeviceNode, Edits, Mount
from hami_node_agent.mig.book import Piece
from hami_node_agent.settings import Settings
from msgspec import structs

A, B = "GPU-a", "GPU-b"
NUMBERS = {A: CardNumbers(index=3, minor=5), B: CardNumbers(index=1)}


def chosen(environment: dict[str, str] | None = None) -> Delivery:
    """Choose as an admin does."""
    return delivery(load(Settings, [], {"HAMI_NODE_NAME": "n1", **(environment or {})}))


def test_unless_somebody_chooses_the_environment_names_the_cards() -> None:
    """By uuid, each once, in the order taken."""
    assert delivered([B, A, B], chosen(), NUMBERS) == Edits(env={"NVIDIA_VISIBLE_DEVICES": "GPU-b,GPU-a"})


def test_cards_may_be_named_by_the_drivers_index() -> None:
    """A card whose index nobody knows keeps its uuid."""
    found = delivered([A, "GPU-x"], chosen({"DEVICE_ID_STRATEGY": "index"}), NUMBERS)

    assert found.env == {"NVIDIA_VISIBLE_DEVICES": "3,GPU-x"}


def test_with_mounts_the_environment_names_their_folder() -> None:
    """Whoever may set variables in a pod cannot choose cards by them."""
    found = delivered([A], chosen({"DEVICE_LIST_STRATEGY": "volume-mounts,envvar"}), NUMBERS)

    assert found.env == {"NVIDIA_VISIBLE_DEVICES": "/var/run/nvidia-container-devices"}
    assert found.mounts == (Mount("/var/run/nvidia-container-devices/GPU-a", "/dev/null"),)


@pytest.mark.parametrize("strategy", ["cdi-cri", "cdi-annotations"])
def test_with_cdi_alone_the_runtime_brings_the_cards(strategy: str) -> None:
    """By names that the node's CDI specification lists; what else is asked for is named likewise."""
    asked = {"DEVICE_LIST_STRATEGY": strategy, "GDS_ENABLED": "true", "PASS_DEVICE_SPECS": "true"}
    found = delivered([A, B], chosen(asked), NUMBERS)
    names = ("nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b", "nvidia.com/gds=all")

    assert (found.env, found.mounts, found.devices) == ({}, (), ())
    if strategy == "cdi-cri":
        assert (found.cdi, found.annotations) == (names, {})
    else:
        (key,) = found.annotations
        assert (found.cdi, found.annotations[key]) == ((), ",".join(names))
        assert key.startswith("cdi.k8s.io/nvidia-device-plugin_")


def test_device_nodes_are_passed_on_as_far_as_they_are_there(tmp_path: Path) -> None:
    """Those of the driver, and each card's own; a card of which the kernel's number is not known has none."""
    (tmp_path / "dev").mkdir()
    for name in ("nvidiactl", "nvidia-uvm", "nvidia5", "nvidia6"):
        (tmp_path / "dev" / name).touch()

    found = delivered([A, B], chosen({"PASS_DEVICE_SPECS": "true", "NVIDIA_DEV_ROOT": str(tmp_path)}), NUMBERS)

    assert found.devices == tuple(
        DeviceNode(f"/dev/{name}", f"{tmp_path}/dev/{name}") for name in ("nvidiactl", "nvidia-uvm", "nvidia5")
    )


MINORS = """config 1
monitor 2
gpu5/gi3/access 30
gpu5/gi3/ci0/access 31
gpu5/gi4/access 39
"""


def test_device_nodes_of_an_instance_are_its_cards_and_its_own(tmp_path: Path) -> None:
    """The driver lists by which number each is opened; the instance is named by uuid, however cards are."""
    (tmp_path / "dev" / "nvidia-caps").mkdir(parents=True)
    (tmp_path / "driver" / "nvidia-caps").mkdir(parents=True)
    (tmp_path / "driver" / "nvidia-caps" / "mig-minors").write_text(MINORS)
    names = ("nvidiactl", "nvidia5", "nvidia-caps/nvidia-cap30", "nvidia-caps/nvidia-cap31")
    for name in (*names, "nvidia6", "nvidia-caps/nvidia-cap39"):
        (tmp_path / "dev" / name).touch()
    made = Piece(
        pod=PodRef("default", "p", "uid-p"), container="main", place=0, card=A, profile="1g.5gb",
        placement=Placement(0, 1), uuid="MIG-1", gpu_instance=3,
    )  # fmt: skip
    asked = {"PASS_DEVICE_SPECS": "true", "NVIDIA_DEV_ROOT": str(tmp_path), "DEVICE_ID_STRATEGY": "index"}

    found = delivered_instances([made], structs.replace(chosen(asked), proc=tmp_path), NUMBERS)

    assert found.env == {"NVIDIA_VISIBLE_DEVICES": "MIG-1"}
    assert found.devices == tuple(DeviceNode(f"/dev/{name}", f"{tmp_path}/dev/{name}") for name in names)


def test_what_else_the_runtime_is_asked_for_is_in_the_environment() -> None:
    """As NVIDIA's runtime reads it."""
    found = delivered([A], chosen({"GDRCOPY_ENABLED": "true", "MOFED_ENABLED": "true"}), NUMBERS)

    assert found.env == {"NVIDIA_VISIBLE_DEVICES": A, "NVIDIA_GDRCOPY": "enabled", "NVIDIA_MOFED": "enabled"}


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"DEVICE_LIST_STRATEGY": "envvar,magic"}, 'DEVICE_LIST_STRATEGY: "magic" is none; write envvar'),
        ({"DEVICE_LIST_STRATEGY": ","}, 'DEVICE_LIST_STRATEGY: "," is none'),
        ({"DEVICE_ID_STRATEGY": "name"}, "DEVICE_ID_STRATEGY"),
    ],
)
def test_a_word_that_nobody_knows_ends_the_start(environment: dict[str, str], sentence: str) -> None:
    """The variable, the word, and what could be written."""
    with pytest.raises(SettingsError) as raised:
        chosen(environment)

    assert sentence in str(raised.value)
