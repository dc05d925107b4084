"""The cards of this machine, as the agent reads them, against what nvidia-smi and the kernel say.

Nothing here changes a card: MIG is looked at and neither turned on nor cut.
"""

import csv
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hami_kit.clock import SystemClock
from hami_model import config
from hami_model.config import Nvidia
from hami_node_agent.inventory import Inventory
from hami_node_agent.node_config import CardRules, NodeConfig
from hami_node_agent.probes.nvml import NvmlProbe, XidRules
from hami_node_agent.probes.nvml import cards as reading
from hami_node_agent.probes.nvml.driver import Card, Driver, DriverTrouble, Seen
from hami_node_agent.probes.nvml.instances import Scalpel

pytestmark = pytest.mark.gpu

MIB = 1024 * 1024
SYSFS = Path("/sys")
LEVELS = {0, 10, 20, 30, 40, 50}
"""NVML's topology levels, from one board to across the sockets."""


def smi(*arguments: str) -> str:
    """Ask nvidia-smi."""
    found = shutil.which("nvidia-smi")
    if found is None:
        pytest.skip("nvidia-smi is not here to compare with")
    return subprocess.run([found, *arguments], check=True, capture_output=True, text=True, timeout=60).stdout


def told(*columns: str) -> dict[str, dict[str, str]]:
    """Return what nvidia-smi says of each card, by uuid."""
    rows = csv.reader(smi(f"--query-gpu=uuid,{','.join(columns)}", "--format=csv,noheader,nounits").splitlines())
    return {row[0]: dict(zip(columns, (cell.strip() for cell in row[1:]), strict=True)) for row in rows}


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    root = os.environ.get("HAMI_DRIVER_ROOT")
    found = Driver(Path(root) if root else None)
    try:
        found.look()
    except DriverTrouble as e:
        pytest.skip(f"no NVIDIA card here: {e}")
    yield found
    found.close()


@pytest.fixture(scope="module")
def seen(driver: Driver) -> Seen:
    return driver.look()


@pytest.fixture(scope="module")
def cards(seen: Seen) -> dict[str, Card]:
    if not seen.cards:
        pytest.skip("the driver shows no card")
    return {card.uuid: card for card in seen.cards}


def test_every_card_is_seen_with_its_model_its_memory_and_its_place(cards: dict[str, Card]) -> None:
    """Model and memory as nvidia-smi prints them, MiB; the same PCI bus and index."""
    expected = told("index", "name", "memory.total", "pci.bus_id")
    found = {
        uuid: {
            "index": str(card.index),
            "name": card.name,
            "memory.total": str((card.memory or 0) // MIB) if card.memory is not None else "[N/A]",
            "pci.bus_id": card.bus.upper(),
        }
        for uuid, card in cards.items()
    }

    assert expected == found


def test_a_card_is_on_the_numa_node_that_the_kernel_says(cards: dict[str, Card]) -> None:
    """0 where it says -1: no NUMA."""
    for card in cards.values():
        file = SYSFS / "bus/pci/devices" / card.bus[4:] / "numa_node"
        if not file.exists():
            pytest.skip(f"the kernel shows no {file} here")
        assert max(int(file.read_text()), 0) == reading.numa_node(card.bus, SYSFS)


def test_a_cards_device_node_is_the_one_of_its_minor_number(cards: dict[str, Card]) -> None:
    """What containers get with PASS_DEVICE_SPECS."""
    for card in cards.values():
        assert card.facts.minor is not None
        assert Path(f"/dev/nvidia{card.facts.minor}").exists() or not Path("/dev/nvidiactl").exists()


def test_every_pair_of_cards_is_connected_somehow(seen: Seen, cards: dict[str, Card]) -> None:
    """By a level that NVML knows, and by as many NVLinks seen from either end."""
    pairs = len(cards) * (len(cards) - 1) // 2
    if not pairs:
        pytest.skip("one card alone has no pair")

    assert pairs == len(seen.links)
    assert {link.level for link in seen.links.values()} <= LEVELS
    assert [] == list(reading.asymmetric(seen.links))


def test_whoever_computes_is_seen(cards: dict[str, Card]) -> None:
    """At least the processes that nvidia-smi lists as computing."""
    listed = smi("--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader,nounits").splitlines()
    able = [uuid for uuid, card in cards.items() if card.can_be_cut]
    if not able:
        pytest.skip("whoever computes is asked of cards that can be cut with MIG, and none here can")
    for uuid in able:
        pids = {int(line.split(",")[1]) for line in listed if line.startswith(f"{uuid},")}
        found = Scalpel().survey(uuid).processes
        assert found is None or pids <= found


async def test_the_inventory_has_every_card_healthy_or_says_why(
    driver: Driver, cards: dict[str, Card], caplog: pytest.LogCaptureFixture
) -> None:
    """As it is registered in mode hami-core: the driver's memory, all cores."""
    node = NodeConfig(config.DEFAULTS.nvidia or Nvidia(), node="here")
    probe = NvmlProbe(node, xids=XidRules(), clock=SystemClock(), driver=driver)
    inventory = Inventory(probe)
    try:
        await inventory.look()
    finally:
        probe.close()

    assert set(cards) == {device.id for device in inventory.cards}
    for device in inventory.cards:
        card = cards[device.id]
        assert (card.memory or 0) // MIB == device.memory
        assert (100, 10) == (device.cores, device.slots)
        assert device.healthy or f"card {device.id}: " in caplog.text


def test_mig_is_read_and_left_as_it_is(cards: dict[str, Card]) -> None:
    """Every instance that nvidia-smi lists is found by its uuid; afterwards the settings are what they were."""
    able = {uuid for uuid, card in cards.items() if card.can_be_cut}
    if not able:
        pytest.skip("no card here can be cut with MIG")
    before, listed = told("mig.mode.current", "mig.mode.pending"), smi("-L")
    surveys = {uuid: Scalpel().survey(uuid) for uuid in able}
    found = {name for survey in surveys.values() for i in survey.instances for name in i.computes.values()}

    assert {line.split("UUID: ")[1].rstrip(")") for line in listed.splitlines() if "UUID: MIG-" in line} == found
    assert {uuid: "Enabled" if survey.is_on else "Disabled" for uuid, survey in surveys.items()} == {
        uuid: before[uuid]["mig.mode.current"] for uuid in able
    }
    assert (before, listed) == (told("mig.mode.current", "mig.mode.pending"), smi("-L"))


def test_a_card_that_is_cut_tells_profiles_that_have_names_and_places(cards: dict[str, Card]) -> None:
    """Each is found again by its own name; what the chart allows for the model is among them, or nothing is allowed."""
    cut = [card for card in cards.values() if card.is_partitioned]
    if not cut:
        pytest.skip("no card here has MIG on, and nobody turns it on for a test")
    rules = CardRules(mode="mig", allowlist=(config.DEFAULTS.nvidia or Nvidia()).mig_profile_allowlist)
    for card in cut:
        assert all(reading.named(profile.name, card.profiles) == profile for profile in card.profiles)
        assert all(profile.placements for profile in card.profiles)
        device = reading.device(card, rules, sysfs=SYSFS)
        assert device is None or all(profile.placements for profile in device.mig_profiles)
