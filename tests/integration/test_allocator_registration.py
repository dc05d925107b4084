"""Nodes' cards: from plugins and from our agents, malformed ones, and conflicts between the two."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hami_allocator.registration import AGENT_KEY
from hami_model.annotations import encode_register
from hami_model.bus import subjects
from hami_model.bus.events import CloudEvent
from hami_model.bus.messages import Done, Heartbeat, Placed, Refused, ReportWanted, Unplaced
from hami_testkit.cluster.resources import EVENTS

from .allocator_bench import (
    NODES,
    PODS,
    REGISTER,
    Bench,
    a_bench,
    a_node,
    a_pod,
    cards,
    page,
    plugin_node,
    state,
    until,
    until_async,
)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A node that HAMi's plugin serves, one for our agent, and one whose registration is broken."""
    broken = a_node("broken", {REGISTER: '[{"id": 7}]'})
    async with a_bench(tmp_path, [plugin_node("node-1"), a_node("agent-1"), broken]) as made:
        yield made


async def events(bench: Bench) -> list[CloudEvent]:
    """Listen to everything that is told."""
    heard: list[CloudEvent] = []

    async def on_event(_subject: str, event: CloudEvent) -> None:
        heard.append(event)

    await bench.bus.subscribe(subjects.ALL_EVENTS, CloudEvent, on_event)
    return heard


def kinds(heard: list[CloudEvent], subject: str) -> list[str]:
    return [e.type.removeprefix("io.hami.").removesuffix(".v1") for e in heard if e.subject == subject]


async def test_an_agents_inventory_is_written_down_in_hamis_format(bench: Bench) -> None:
    """HAMi's WebUI, HAMi itself and a cold start read it there."""
    async with bench.allocator():
        assert Done() == await bench.register("agent-1")
        written = bench.node_annotations("agent-1")

        assert encode_register(cards("agent-1")) == written[REGISTER]
        assert "NVIDIA" == written[AGENT_KEY]


async def test_a_foreign_plugin_wins_until_its_registration_is_taken_away(bench: Bench) -> None:
    """The agent reads what to do; afterwards its inventory counts."""
    async with bench.allocator():
        heard = await events(bench)
        refused = await bench.register("node-1")
        await until(lambda: "inventory.conflict" in kinds(heard, "node-1"))
        bench.annotate(NODES, ("", "node-1"), {REGISTER: None})
        await until_async(lambda: _accepted(bench))

        assert isinstance(refused, Refused)
        assert REGISTER in refused.error
        assert "NVIDIA" == bench.node_annotations("node-1")[AGENT_KEY]


async def _accepted(bench: Bench) -> bool:
    return await bench.register("node-1") == Done()


async def test_broken_things_are_each_one_error_and_a_good_pod_is_placed(bench: Bench) -> None:
    """Node JSON, a pod's annotation, a bus message: nothing else is affected."""
    bad = a_pod("bad", **{"hami.io/vgpu-devices-allocated": "nonsense,x:;", "hami.io/vgpu-node": "node-1"})
    bad["spec"]["nodeName"] = "node-1"
    async with bench.allocator() as process:
        heard = await events(bench)
        bad_pod = await bench.create_pod(bad)
        await until(lambda: state(process, bad_pod) == "BOUND")
        await bench.bus.publish(subjects.FILTER, ReportWanted(node="not a filter"))
        bench.annotate(NODES, ("", "broken"), {REGISTER: "[{"})
        await until(lambda: "inventory.malformed" in kinds(heard, "broken"))
        await until(lambda: "malformed" in kinds(heard, "team-a/bad"))
        await until(lambda: any(e.subject == subjects.FILTER for e in heard))
        await bench.register("agent-1")
        pod = await bench.create_pod(a_pod("good"))

        assert Placed(node="agent-1") == await bench.filter("good", ["broken", "agent-1"])
        assert Done() == await bench.bind(pod, "agent-1")
        assert 1 == kinds(heard, "team-a/bad").count("malformed")


async def test_a_bound_pod_without_allocation_is_told_and_counted(bench: Bench) -> None:
    """Somebody put it on the node past us: its devices are unknown."""
    past_us = a_pod("past-us")
    past_us["spec"]["nodeName"] = "node-1"
    async with bench.allocator() as process:
        heard = await events(bench)
        await bench.create_pod(past_us)
        await until(lambda: "unaccounted" in kinds(heard, "team-a/past-us"))

        assert "hami_allocator_unaccounted 1.0" in (await page(process, "/metrics")).text


async def test_an_unknown_inventory_is_asked_for(bench: Bench) -> None:
    """Its hash rides in the heartbeat."""
    asked: list[str] = []

    async def on_report(_subject: str, wanted: ReportWanted) -> None:
        asked.append(wanted.node)

    async with bench.allocator():
        await bench.bus.subscribe(subjects.of_node("agent-1", "report"), ReportWanted, on_report)
        beat = Heartbeat(node="agent-1", agent="a", digest="unknown")
        await bench.bus.publish(subjects.of_node("agent-1", "heartbeat"), beat)

        await until(lambda: asked)
        assert ["agent-1"] == asked


async def test_a_pods_way_is_told_to_integrations_and_to_people(bench: Bench) -> None:
    """CloudEvents on the bus, HAMi's texts as Kubernetes Events."""
    async with bench.allocator():
        heard = await events(bench)
        pod = await bench.create_pod(a_pod("p"))
        await bench.create_pod(a_pod("huge", mem=99999))
        await bench.filter("p", ["node-1", "nowhere"])
        await bench.bind(pod, "node-1")
        assert isinstance(await bench.filter("huge", ["node-1"]), Unplaced)
        bench.annotate(PODS, ("team-a", "p"), {"hami.io/bind-phase": "success"})
        await until(lambda: "active" in kinds(heard, "team-a/p"))
        bench.delete_pod("p")
        await until(lambda: "released" in kinds(heard, "team-a/p"))
        await until(lambda: len(_messages(bench)) >= 4)

        assert ["reserved", "bound", "active", "released"] == kinds(heard, "team-a/p")
        assert ["rejected"] == kinds(heard, "team-a/huge")
        assert {
            "find fit node(node-1), 1 nodes not fit, 1 nodes fit(node-1:0.00)",
            "Successfully binding node [node-1] to team-a/p",
            "1 nodes CardInsufficientMemory(node-1)",
            "no available node, 1 nodes do not meet",
        } == _messages(bench)


def _messages(bench: Bench) -> set[str]:
    stored = bench.cluster.registry.store.of(EVENTS).objects
    return {event.object["message"] for event in stored.values()}
