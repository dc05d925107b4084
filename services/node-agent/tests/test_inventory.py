"""The node's cards and where they come from."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hami_model.config import Nvidia
from hami_model.device import Device
from hami_node_agent.inventory import Inventory, card_of, digest, replica_ids
from hami_node_agent.node_config import NodeConfig
from hami_node_agent.probes import Probe, SimulatedProbe, probe_of
from hami_node_agent.settings import Settings
from hami_testkit.clock import FakeClock

TWO_CARDS = """
- {id: GPU-b, vendor: NVIDIA, index: 1, count: 10, devmem: 46068, devcore: 100, type: NVIDIA A40, numa: 1, health: true}
- {id: GPU-a, vendor: NVIDIA, count: 2, devmem: 46068, type: NVIDIA A40, mode: hami-core}
"""


def a_card(name: str, *, index: int = 0, healthy: bool = True) -> Device:
    return Device(
        id=name, vendor="NVIDIA", index=index, slots=2, memory=100, cores=100, model="NVIDIA-A", healthy=healthy
    )


def a_probe(setting: str) -> Probe:
    return probe_of(Settings(node_name="n1", probes=setting), NodeConfig(Nvidia(), node="n1"), FakeClock())


async def test_cards_are_read_from_a_file(tmp_path: Path) -> None:
    """The register annotation's fields and the vendor; what is left out has the annotation's meaning."""
    path = tmp_path / "cards.yaml"
    path.write_text(TWO_CARDS)
    inventory = Inventory(a_probe(f"sim:{path}"))
    await inventory.look()

    assert [card.id for card in inventory.cards] == ["GPU-a", "GPU-b"]
    assert inventory.cards[0] == Device(
        id="GPU-a", vendor="NVIDIA", slots=2, memory=46068, cores=100, model="NVIDIA A40", mode="hami-core"
    )
    assert inventory.vendors == ["NVIDIA"]


async def test_a_card_turns_unhealthy_by_an_edit(tmp_path: Path) -> None:
    """Whoever waits hears of the change, and the digest is another."""
    path = tmp_path / "cards.yaml"
    path.write_text(TWO_CARDS)
    inventory = Inventory(SimulatedProbe(path))
    await inventory.look()
    before, heard = inventory.digest, asyncio.create_task(inventory.wait_changed(inventory.revision))

    path.write_text(TWO_CARDS.replace("health: true", "health: false"))
    await inventory.look()

    assert await asyncio.wait_for(heard, 5) == inventory.revision
    assert inventory.unhealthy == ["GPU-b"]
    assert inventory.digest != before


MIXED = TWO_CARDS.replace("mode: hami-core", "mode: mig")


async def test_cards_in_mode_mig_take_nobody_where_nobody_can_cut_them(tmp_path: Path) -> None:
    """They are told, and unhealthy: a file cuts no card, and pods would be refused at their start."""
    path = tmp_path / "cards.yaml"
    path.write_text(MIXED)
    inventory = Inventory(SimulatedProbe(path))
    await inventory.look()

    assert [("GPU-a", False), ("GPU-b", True)] == [(card.id, card.healthy) for card in inventory.cards]


async def test_cards_in_mode_mig_need_no_library_and_others_no_cutting(tmp_path: Path) -> None:
    """Each kind takes pods by its own means."""
    path = tmp_path / "cards.yaml"
    path.write_text(MIXED)
    why = {"library": "damaged", "GPU-a": ""}
    inventory = Inventory(SimulatedProbe(path), complaint=lambda: why["library"], uncut=lambda card: why[card])
    await inventory.look()
    without_library = inventory.unhealthy
    why |= {"library": "", "GPU-a": "it is not taken over yet"}
    await inventory.look()

    assert (["GPU-b"], ["GPU-a"]) == (without_library, inventory.unhealthy)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("magic", "names no probe"),
        ("sim:", "names no probe"),
        ("nvml:0", "names no probe"),
    ],
)
def test_a_probe_that_is_not_there_is_said_in_one_sentence(setting: str, words: str) -> None:
    """The value is named together with the way out; whoever reads the setting adds its name."""
    with pytest.raises(ValueError, match=words) as raised:
        a_probe(setting)

    assert f'"{setting}"' in str(raised.value)
    assert "sim:<cards.yaml>" in str(raised.value)


@pytest.mark.parametrize("text", ["{a: b}", "- {id: GPU-a, vendor: NVIDIA, type: A, count: x, devmem: 1}", ": ["])
async def test_a_file_that_is_no_list_of_cards_says_where(tmp_path: Path, text: str) -> None:
    """The file's name is in the sentence."""
    path = tmp_path / "cards.yaml"
    path.write_text(text)

    with pytest.raises(ValueError, match=r"cards\.yaml is no list of cards") as raised:
        await SimulatedProbe(path).look()

    assert "\n" not in str(raised.value)


CARD = {"id": "GPU-a", "vendor": "NVIDIA", "type": "A", "count": 2, "devmem": 100}
BAD_CARDS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "one card twice": ([CARD, CARD], "card GPU-a is published twice"),
    "negative memory": ([CARD, {**CARD, "id": "GPU-b", "devmem": -1}], "card 1 has devmem -1, which is not from 0"),
    "memory in bytes": ([{**CARD, "devmem": 2**36}], f"card 0 has devmem {2**36}"),
    "negative index": ([{**CARD, "index": -1}], "card 0 has index -1"),
    "no id": ([{**CARD, "id": ""}], "card 0 has the id ''"),
    "an id with a comma": ([{**CARD, "id": "a,b"}], "it must not be empty nor hold any of , : ;"),
}


@pytest.mark.parametrize(("cards", "why"), BAD_CARDS.values(), ids=BAD_CARDS)
async def test_cards_that_no_node_could_publish_are_named(
    tmp_path: Path, cards: list[dict[str, Any]], why: str
) -> None:
    """The allocator would refuse them later; here the file, the card and the field are in one sentence."""
    path = tmp_path / "cards.yaml"
    path.write_text(json.dumps(cards))

    with pytest.raises(ValueError, match=r"cards\.yaml describes cards that cannot be: ") as raised:
        await SimulatedProbe(path).look()

    assert why in str(raised.value)


async def test_two_vendors_number_their_cards_alike(tmp_path: Path) -> None:
    """A card is known by its vendor and its id."""
    path = tmp_path / "cards.yaml"
    path.write_text(json.dumps([CARD, {**CARD, "vendor": "MLU"}]))

    assert ["NVIDIA", "MLU"] == [card.vendor for card in await SimulatedProbe(path).look()]


def test_a_digest_names_content_not_order() -> None:
    """Two looks that find the same cards in another order give the same name."""
    a, b = a_card("GPU-a"), a_card("GPU-b", index=1)

    assert digest([a, b]) == digest([b, a])
    assert digest([a, b]) != digest([a, a_card("GPU-b", index=1, healthy=False)])


def test_device_ids_lead_back_to_their_card() -> None:
    """HAMi compat: {GPU-UUID}-{0..split-1}."""
    assert replica_ids(a_card("GPU-4a-5b")) == ("GPU-4a-5b-0", "GPU-4a-5b-1")
    assert card_of("GPU-4a-5b-1") == "GPU-4a-5b"
