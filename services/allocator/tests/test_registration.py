"""Whose cards they are: a plugin's or our agent's."""

from collections.abc import Mapping

from hami_allocator.liveness import Hearing
from hami_allocator.nodes import Nodes
from hami_allocator.registration import AGENT_KEY, Memory, Source, claims, remember, written
from hami_model.annotations import encode_register
from hami_model.bus.messages import Heartbeat, Inventory
from hami_model.config import DEFAULTS
from hami_model.device import Device
from hami_model.objects import Meta, Node, NodeStatus
from hami_model.vendors import build

CATALOG = build(DEFAULTS, ascend=True, iluvatar=True)
REGISTER = "hami.io/node-nvidia-register"


def cards(*names: str) -> tuple[Device, ...]:
    return tuple(
        Device(
            id=name, vendor="NVIDIA", index=i, slots=10, memory=8000, cores=100, model="NVIDIA A40", mode="hami-core"
        )
        for i, name in enumerate(names)
    )


def a_node(annotations: Mapping[str, str], count: str = "10", **labels: str) -> Node:
    return Node(
        metadata=Meta(name="node-1", annotations=dict(annotations), labels=labels),
        status=NodeStatus(allocatable={"nvidia.com/gpu": count}),
    )


def an_inventory(*names: str) -> Inventory:
    return Inventory(node="node-1", agent="a", digest="d", vendors=["NVIDIA"], devices=list(cards(*names)))


def source_of(node: Node, told: Inventory | None, memory: Memory = Memory(), *, alive: bool = True) -> Source | None:  # noqa: B008
    found = {c.word: c for c in claims(node, told, memory, CATALOG, {"NVIDIA": alive})}
    return found["NVIDIA"].source if "NVIDIA" in found else None


def test_a_registration_without_our_mark_is_a_plugins() -> None:
    """HAMi's own device plugin, or a vendor's."""
    assert Source.PLUGIN is source_of(a_node({REGISTER: encode_register(cards("GPU-0"))}), None)


def test_our_agents_word_counts_where_nobody_else_has_registered() -> None:
    """The first inventory of a node comes over the bus alone."""
    assert Source.AGENT is source_of(a_node({}), an_inventory("GPU-0"))


def test_a_plugin_that_lives_wins_over_our_agent() -> None:
    """It knows nothing of us, and would serve the kubelet's Allocate all the same."""
    node = a_node({REGISTER: encode_register(cards("GPU-0"))})
    (claim,) = claims(node, an_inventory("GPU-0"), Memory(), CATALOG, {"NVIDIA": True})

    assert (Source.PLUGIN, True) == (claim.source, claim.conflict)


def test_what_a_dead_plugin_left_does_not_stand_in_our_agents_way() -> None:
    """An upgrade from HAMi leaves its plugin's annotation behind."""
    node = a_node({REGISTER: encode_register(cards("GPU-0"))}, count="0")

    assert Source.AGENT is source_of(node, an_inventory("GPU-0"), alive=False)


def test_after_a_restart_the_nodes_own_annotations_say_whose_cards_they_are() -> None:
    """The durable inventory is enough until the agent speaks."""
    node = a_node({REGISTER: encode_register(cards("GPU-0")), AGENT_KEY: "NVIDIA"})

    assert Source.AGENT is source_of(node, None)


def test_a_registration_written_over_ours_is_a_plugins() -> None:
    """Someone who is not us registers the same cards: from now on they are his, until we write again."""
    mine = a_node({REGISTER: encode_register(cards("GPU-0")), AGENT_KEY: "NVIDIA"})
    theirs = a_node({REGISTER: encode_register(cards("GPU-9")), AGENT_KEY: "NVIDIA"})
    memory = remember(theirs, remember(mine, Memory(), CATALOG), CATALOG)

    assert Source.PLUGIN is source_of(theirs, an_inventory("GPU-0"), memory)
    assert frozenset() == written(memory, "NVIDIA", "ours").overruled


def test_a_watch_that_shows_an_older_text_of_ours_accuses_nobody() -> None:
    """We write twice; the watch brings the first after the second."""
    first, second = encode_register(cards("GPU-0")), encode_register(cards("GPU-0", "GPU-1"))
    memory = written(written(Memory(), "NVIDIA", first), "NVIDIA", second)
    late = a_node({REGISTER: first, AGENT_KEY: "NVIDIA"})

    assert frozenset() == remember(late, memory, CATALOG).overruled


def test_one_malformed_registration_costs_only_its_vendor() -> None:
    """The claim carries the sentence that people read."""
    node = a_node({REGISTER: "[{", "hami.io/node-register-Ascend310P": encode_register(cards("a"))})
    found = {c.word: c for c in claims(node, None, Memory(), CATALOG, {})}

    assert "not JSON" in found["NVIDIA"].error
    assert not found["NVIDIA"].devices
    assert found["Ascend310P"].devices


def test_a_node_that_loses_its_label_loses_its_cards() -> None:
    """The label selector says which nodes take part, now and later."""
    nodes = Nodes(CATALOG, {"gpu": "on"}, Hearing(0.0))
    text = {REGISTER: encode_register(cards("GPU-0"))}
    joined = nodes.saw(a_node(text, gpu="on"), 0.0)
    left = nodes.saw(a_node(text, gpu="off"), 1.0)

    assert [True] == [change.claim is not None for change in joined]
    assert [True] == [change.claim is None for change in left]


def test_an_agent_that_falls_silent_takes_its_cards_out_and_brings_them_back() -> None:
    """Nothing else about the node changes."""
    hearing = Hearing(0.0)
    nodes = Nodes(CATALOG, {}, hearing)
    nodes.saw(a_node({}), 0.0)
    nodes.told(an_inventory("GPU-0"), 0.0)
    hearing.tick(31.0, connected=True)
    (silent,) = nodes.tick(31.0)
    (back,) = nodes.heard(Heartbeat(node="node-1", agent="a", digest="d"), 32.0)

    assert (False, True) == (silent.ready, back.ready)
    assert nodes.is_inventory_current(Heartbeat(node="node-1", agent="a", digest="d"))
    assert not nodes.is_inventory_current(Heartbeat(node="node-1", agent="a", digest="other"))


def test_an_agent_whose_devices_the_kubelet_lost_takes_no_pod_until_they_are_back() -> None:
    """It died without a word: the kubelet knows at once, and would fail whatever came. What never was is not lost."""
    nodes = Nodes(CATALOG, {}, Hearing(0.0))
    nodes.saw(Node(metadata=Meta(name="node-1")), 0.0)
    (first,) = nodes.told(an_inventory("GPU-0"), 1.0)
    there = nodes.saw(a_node({}, count="10"), 2.0)
    (lost,) = nodes.saw(a_node({}, count="0"), 3.0)
    (back,) = nodes.saw(a_node({}, count="10"), 4.0)

    assert (True, (), False, True) == (first.ready, there, lost.ready, back.ready)
    assert lost.claim == first.claim


def test_what_a_dead_plugin_left_gives_way_a_minute_later_though_nothing_changes() -> None:
    """Our agent has told its cards already; nobody need tell them again."""
    nodes = Nodes(CATALOG, {}, Hearing(0.0))
    nodes.saw(a_node({REGISTER: encode_register(cards("GPU-0"))}, count="0"), 0.0)
    nodes.told(an_inventory("GPU-1"), 0.0)
    before = nodes.source("node-1", "NVIDIA")
    (change,) = nodes.tick(60.0)

    assert (Source.PLUGIN, Source.AGENT) == (before, nodes.source("node-1", "NVIDIA"))
    assert change.claim is not None
    assert ["GPU-1"] == [device.id for device in change.claim.devices]


def test_what_a_plugin_left_gives_way_to_an_agent_whose_devices_the_kubelet_takes() -> None:
    """After an upgrade from HAMi the node offers as much as before: it is our agent's now."""
    nodes = Nodes(CATALOG, {}, Hearing(0.0))
    nodes.saw(a_node({REGISTER: encode_register(cards("GPU-0"))}), 0.0)
    nodes.told(an_inventory("GPU-1"), 0.0)
    before = nodes.source("node-1", "NVIDIA")
    (change,) = nodes.heard(Heartbeat(node="node-1", agent="a", digest="d", offered=["NVIDIA"]), 1.0)
    again = nodes.heard(Heartbeat(node="node-1", agent="a", digest="d", offered=["NVIDIA"]), 2.0)

    assert (Source.PLUGIN, Source.AGENT) == (before, nodes.source("node-1", "NVIDIA"))
    assert change.claim is not None
    assert ["GPU-1"] == [device.id for device in change.claim.devices]
    assert () == again


def test_a_plugin_that_still_registers_is_believed_whoever_the_kubelet_takes_its_devices_from() -> None:
    """Both run: one of them must go, and nobody's word may change every half minute."""
    nodes = Nodes(CATALOG, {}, Hearing(0.0))
    nodes.told(an_inventory("GPU-0"), 0.0)
    nodes.heard(Heartbeat(node="node-1", agent="a", digest="d", offered=["NVIDIA"]), 0.0)
    nodes.saw(a_node({REGISTER: encode_register(cards("GPU-0")), AGENT_KEY: "NVIDIA"}), 1.0)
    before = nodes.source("node-1", "NVIDIA")
    nodes.saw(a_node({REGISTER: encode_register(cards("GPU-9")), AGENT_KEY: "NVIDIA"}), 2.0)

    assert (Source.AGENT, Source.PLUGIN) == (before, nodes.source("node-1", "NVIDIA"))


def test_a_node_given_back_to_a_plugin_is_the_plugins() -> None:
    """Our agent's last word was that the kubelet takes the cards from it; it is not there any more."""
    nodes = Nodes(CATALOG, {}, Hearing(0.0))
    nodes.told(an_inventory("GPU-0"), 0.0)
    nodes.heard(Heartbeat(node="node-1", agent="a", digest="d", offered=["NVIDIA"]), 0.0)
    nodes.saw(a_node({REGISTER: encode_register(cards("GPU-0")), AGENT_KEY: "NVIDIA"}), 1.0)
    nodes.heard(Heartbeat(node="node-1", agent="a", digest="d", offered=["NVIDIA"], leaving=True), 2.0)
    nodes.saw(a_node({REGISTER: encode_register(cards("GPU-0"))}), 3.0)

    assert Source.PLUGIN is nodes.source("node-1", "NVIDIA")


def test_garbage_written_over_our_agents_registration_is_nobodys() -> None:
    """The agent's word stands, so that the registration is written again."""
    mine = a_node({REGISTER: encode_register(cards("GPU-0")), AGENT_KEY: "NVIDIA"})
    spoilt = a_node({REGISTER: "[{", AGENT_KEY: "NVIDIA"})
    memory = remember(spoilt, remember(mine, Memory(), CATALOG), CATALOG)

    assert Source.AGENT is source_of(spoilt, an_inventory("GPU-0"), memory)


def test_a_node_served_by_an_agent_that_finds_its_pods_needs_no_lock() -> None:
    """Until it has said so, the lock is the safe way."""
    nodes = Nodes(CATALOG, {}, Hearing(0.0))
    nodes.saw(a_node({REGISTER: encode_register(cards("GPU-0")), AGENT_KEY: "NVIDIA"}), 0.0)
    before = nodes.needs_lock("node-1", "NVIDIA")
    nodes.told(an_inventory("GPU-0"), 0.0)

    assert before
    assert not nodes.needs_lock("node-1", "NVIDIA")


def test_who_leads_anew_believes_what_the_leader_before_it_has_written() -> None:
    """A follower sees an agent's card turn ill as a registration written over; a plugin's node is no agent's."""
    nodes = Nodes(CATALOG, {}, Hearing(0))
    agents = {AGENT_KEY: "NVIDIA", REGISTER: encode_register(cards("GPU-a"))}
    nodes.saw(a_node(agents), 0)
    nodes.saw(a_node({**agents, REGISTER: encode_register(cards("GPU-a", "GPU-b"))}), 1)
    following = nodes.source("node-1", "NVIDIA")
    changes = nodes.take_up(2)
    leading = nodes.source("node-1", "NVIDIA")
    nodes.saw(a_node({REGISTER: encode_register(cards("GPU-c"))}), 3)
    nodes.take_up(4)

    assert (Source.PLUGIN, Source.AGENT) == (following, leading)
    assert ["NVIDIA"] == [change.word for change in changes]
    assert Source.PLUGIN is nodes.source("node-1", "NVIDIA")
