"""What node-agents say, and what it changes."""

from collections.abc import Sequence
from typing import Any

import pytest
from hami_allocator.answers import node_use
from hami_model.allocation import MadeInstance, State
from hami_model.annotations import encode_register
from hami_model.bus.messages import (
    Confirm,
    Done,
    Drift,
    FilterPod,
    Heartbeat,
    Inventory,
    Placed,
    Refuse,
    Refused,
    Unplaced,
)
from hami_model.device import Device
from hami_model.life import BindSent, Bound, Made
from hami_model.objects import PodRef
from msgspec import structs

from .conftest import REGISTER, Bench, a_node, a_pod


def an_inventory(node: str, *names: str, vendor: str = "NVIDIA", vendors: Sequence[str] = ("NVIDIA",)) -> Inventory:
    devices = [
        Device(id=name, vendor=vendor, index=i, slots=10, memory=8000, cores=100, model="NVIDIA A40", mode="hami-core")
        for i, name in enumerate(names)
    ]
    return Inventory(node=node, agent="a", digest="d", vendors=list(vendors), devices=devices)


def a_bound_pod(bench: Bench, name: str = "p") -> PodRef:
    answer = bench.desk.filter(FilterPod(pod=a_pod(name), nodes=["agent-1"]))
    assert isinstance(answer, Placed), answer
    bench.world.apply(BindSent(uid=f"uid-{name}"), Bound(uid=f"uid-{name}"))
    return PodRef("team-a", name, f"uid-{name}")


def an_agents_node(bench: Bench) -> None:
    bench.see(a_node("agent-1", annotations={}))
    assert Done() == bench.agents.inventory(an_inventory("agent-1", "GPU-a"))


def test_an_inventory_brings_cards(bench: Bench) -> None:
    """And whoever is on duty makes it durable."""
    an_agents_node(bench)

    assert ["GPU-a"] == [device.id for device in bench.world.fleet.devices("agent-1")]
    assert "agent-1" in bench.duty.nodes


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"memory": 10**30}, f"card 0 has devmem {10**30}, which is not from"),
        ({"slots": 2**40}, f"card 0 has count {2**40}, which is not from"),
        ({"id": "a,b"}, "card 0 has the id 'a,b': it must not be empty nor hold any of , : ;"),
    ],
)
def test_an_inventory_of_impossible_cards_is_refused(bench: Bench, facts: dict[str, Any], why: str) -> None:
    """Numbers that no column holds and ids that no annotation holds change nothing; the card and the key are named."""
    bench.see(a_node("agent-1", annotations={}))
    told = an_inventory("agent-1", "GPU-a")

    answer = bench.agents.inventory(structs.replace(told, devices=[structs.replace(told.devices[0], **facts)]))

    assert isinstance(answer, Refused)
    assert answer.error.startswith(f"the inventory of node agent-1 cannot be believed: {why}")
    assert () == bench.world.nodes.devices("agent-1")


def test_an_inventory_of_cards_that_a_plugin_registers_is_turned_away(bench: Bench) -> None:
    """The foreign plugin wins; people read how to change that."""
    answer = bench.agents.inventory(an_inventory("node-1", "GPU-other"))

    assert isinstance(answer, Refused)
    assert REGISTER in answer.error
    assert "inventory.conflict" in bench.duty.kinds
    assert ["GPU-node-1-0", "GPU-node-1-1"] == [device.id for device in bench.world.fleet.devices("node-1")]


def test_an_inventory_of_a_vendor_that_we_do_not_know_is_refused(bench: Bench) -> None:
    """Nothing of it is taken."""
    told = an_inventory("node-1", "x", vendor="XYZ", vendors=["XYZ"])

    assert isinstance(bench.agents.inventory(told), Refused)


def test_one_malformed_registration_is_one_event_and_a_good_node_takes_the_pod(bench: Bench) -> None:
    """Nothing else is affected."""
    bench.see(a_node("bad", annotations={REGISTER: '[{"id":7}]'}))
    answer = bench.desk.filter(FilterPod(pod=a_pod("p"), nodes=["bad", "node-1"]))

    assert Placed(node="node-1") == answer
    assert ["inventory.malformed"] == [kind for kind in bench.duty.kinds if "malformed" in kind]


def test_a_heartbeat_names_unhealthy_cards(bench: Bench) -> None:
    """They take no pod until it names them no more."""
    an_agents_node(bench)
    beat = Heartbeat(node="agent-1", agent="a", digest="d", unhealthy=["GPU-a"])
    asked = bench.agents.heartbeat(beat)
    sick = bench.desk.filter(FilterPod(pod=a_pod("p"), nodes=["agent-1"]))
    bench.agents.heartbeat(Heartbeat(node="agent-1", agent="a", digest="d"))

    assert not asked
    assert not isinstance(sick, Placed)
    assert Placed(node="agent-1") == bench.desk.filter(FilterPod(pod=a_pod("p"), nodes=["agent-1"]))
    assert 2 == bench.duty.kinds.count("health.changed")


def test_a_heartbeat_says_nothing_of_cards_that_another_plugin_serves(bench: Bench) -> None:
    """The foreign plugin's own word on health stands, as it does on everything else."""
    bench.see(a_node("foreign"))

    bench.agents.heartbeat(Heartbeat(node="foreign", agent="a", digest="d", unhealthy=["GPU-0"]))

    assert Placed(node="foreign") == bench.desk.filter(FilterPod(pod=a_pod("p"), nodes=["foreign"]))
    assert "health.changed" not in bench.duty.kinds


def test_a_heartbeat_that_comes_before_the_inventory_counts_with_it(bench: Bench) -> None:
    """Heartbeats and inventories overtake each other; a sick card takes no pod in between."""
    bench.see(a_node("agent-1", annotations={}))
    bench.agents.heartbeat(Heartbeat(node="agent-1", agent="a", digest="d", unhealthy=["GPU-a"]))
    bench.agents.inventory(an_inventory("agent-1", "GPU-a"))

    assert not isinstance(bench.desk.filter(FilterPod(pod=a_pod("p"), nodes=["agent-1"])), Placed)


def test_what_an_agent_sees_and_should_not_is_shown_with_its_node(bench: Bench) -> None:
    """As its last heartbeat says; a silent agent's word is old."""
    an_agents_node(bench)
    seen = Drift(kind="stranger", says="process 4711 …", device="GPU-a")
    bench.agents.heartbeat(Heartbeat(node="agent-1", agent="a", digest="d", drift=[seen]))
    told = node_use(bench.world.fleet, bench.world.nodes, "agent-1").drift
    bench.clock.seconds += 31
    bench.hearing.tick(bench.clock.seconds, connected=True)

    assert [seen] == told
    assert [] == node_use(bench.world.fleet, bench.world.nodes, "agent-1").drift


def test_a_heartbeat_with_an_unknown_inventory_asks_for_it(bench: Bench) -> None:
    """Its hash rides in every heartbeat."""
    an_agents_node(bench)

    assert bench.agents.heartbeat(Heartbeat(node="agent-1", agent="a", digest="newer"))


def test_a_silent_agents_cards_take_no_pods(bench: Bench) -> None:
    """After thirty seconds; the pods that run there keep what they have."""
    an_agents_node(bench)
    a_bound_pod(bench)
    bench.clock.seconds += 31
    bench.hearing.tick(bench.clock.seconds, connected=True)
    bench.agents.tick()

    assert not isinstance(bench.desk.filter(FilterPod(pod=a_pod("q"), nodes=["agent-1"])), Placed)
    assert 1000 == bench.used("agent-1")


def test_an_agent_that_leaves_takes_no_pods_until_it_is_back(bench: Bench) -> None:
    """At once, since a pod that came without it would fail; what its pods hold stays booked."""
    an_agents_node(bench)
    a_bound_pod(bench)
    question = FilterPod(pod=a_pod("q"), nodes=["agent-1"])
    bench.agents.heartbeat(Heartbeat(node="agent-1", agent="a", digest="d", holding=["uid-p"], leaving=True))
    gone, still_held = bench.desk.filter(question), bench.world.nodes.is_held("agent-1", "uid-p")
    bench.agents.heartbeat(Heartbeat(node="agent-1", agent="a-2", digest="d"))

    assert isinstance(gone, Unplaced)
    assert still_held
    assert isinstance(bench.desk.filter(question), Placed)
    assert 2000 == bench.used("agent-1")


def test_a_complete_confirmation_makes_the_pod_active(bench: Bench) -> None:
    """Whoever bound it."""
    an_agents_node(bench)
    pod = a_bound_pod(bench)
    partly = bench.agents.confirm(Confirm(node="agent-1", pod=pod, container="main", devices=["GPU-a"]))
    entry = bench.world.ledger.entry(pod.uid)
    before = entry.state if entry else None
    bench.agents.confirm(Confirm(node="agent-1", pod=pod, container="main", devices=["GPU-a"], complete=True))
    entry = bench.world.ledger.entry(pod.uid)

    assert (Done(), State.BOUND) == (partly, before)
    assert entry is not None
    assert State.ACTIVE is entry.state


def test_what_the_node_made_is_remembered_and_acted_on_once(bench: Bench) -> None:
    """Agents say it with each container and to each new leader; it changes no books."""
    an_agents_node(bench)
    pod = a_bound_pod(bench)
    made = MadeInstance(container="main", place=0, device="GPU-a", uuid="MIG-1", gpu_instance=1, compute_instance=0)
    word = Confirm(node="agent-1", pod=pod, container="main", devices=["GPU-a"], complete=True, instances=[made])
    bench.agents.confirm(word)
    bench.agents.confirm(word)
    entry = bench.world.ledger.entry(pod.uid)

    assert entry is not None
    assert (made,) == entry.instances
    assert [Made(uid=pod.uid, instances=(made,))] == [step for step in bench.duty.steps if isinstance(step, Made)]
    assert () == bench.world.ledger.audit()


def test_an_agent_speaks_for_its_own_node_and_granted_cards_only(bench: Bench) -> None:
    """Nothing that it says lowers what is in use."""
    an_agents_node(bench)
    pod = a_bound_pod(bench)
    elsewhere = bench.agents.confirm(Confirm(node="node-1", pod=pod, container="main", devices=[], complete=True))
    strange = bench.agents.confirm(Confirm(node="agent-1", pod=pod, container="main", devices=["GPU-z"]))

    assert isinstance(elsewhere, Refused)
    assert isinstance(strange, Refused)
    assert "drift" in bench.duty.kinds
    assert 1000 == bench.used("agent-1")


def test_a_refusal_of_a_pod_on_another_node_is_turned_away(bench: Bench) -> None:
    """Nobody can tell people that a pod elsewhere was rejected."""
    an_agents_node(bench)
    pod = a_bound_pod(bench)

    assert isinstance(bench.agents.refuse(Refuse(node="node-1", why="no", pod=pod, container="main")), Refused)
    assert "rejected" not in bench.duty.kinds


def test_a_refusal_is_told_and_frees_nothing(bench: Bench) -> None:
    """The kubelet fails the pod, and that ends it."""
    an_agents_node(bench)
    pod = a_bound_pod(bench)

    assert Done() == bench.agents.refuse(Refuse(node="agent-1", why="the card is full", pod=pod, container="main"))
    assert 1000 == bench.used("agent-1")
    assert "rejected" in bench.duty.kinds


def test_an_allocation_outlives_its_card_and_counts_again_when_it_returns(bench: Bench) -> None:
    """Meanwhile it shows as drift."""
    bench.desk.filter(FilterPod(pod=a_pod("p", mem=8000), nodes=["node-1"]))
    bench.see(a_node("node-1", annotations={REGISTER: encode_register([])}))
    drifted = "drift" in bench.duty.kinds
    bench.see(a_node("node-1", cards=2))
    bench.desk.filter(FilterPod(pod=a_pod("q", mem=8000), nodes=["node-1"]))

    assert drifted
    assert not isinstance(bench.desk.filter(FilterPod(pod=a_pod("r", mem=8000), nodes=["node-1"])), Placed)
