"""``hamictl nodes`` and ``pods``: every card, and who holds which slice of it."""

from hami_model.allocation import Allocation, ContainerGrants, Grant, Role, State
from hami_model.bus.messages import Booking, Drift, NodeUse
from hami_model.objects import PodRef
from hami_testkit.builders import a_card

from .conftest import Allocator, Prompt, use


def a_booking(name: str, *cards: str, namespace: str = "default", state: State = State.ACTIVE) -> Booking:
    grants = tuple(Grant(uuid=card, vendor="NVIDIA", memory=3000, cores=30) for card in cards)
    container = ContainerGrants(name="main", role=Role.APP, grants=grants)
    pod = PodRef(namespace=namespace, name=name, uid=f"uid-{namespace}-{name}")
    return Booking(allocation=Allocation(pod=pod, node="gpu-a", containers=(container,)), state=state)


async def test_a_node_shows_its_cards_and_what_is_booked_on_them(prompt: Prompt, allocator: Allocator) -> None:
    """Booked and there, for slots, memory and cores; the node's name and source stand once."""
    cards = [use(a_card("GPU-0"), slots=2, memory=3000, cores=30), use(a_card("GPU-1"))]
    allocator.pages = [[NodeUse(node="gpu-a", source="agent", devices=cards)]]

    said = await prompt.hamictl("nodes")

    assert (0, "") == (said.code, said.err)
    assert ["NODE", "CARD", "MODEL", "SLOTS", "MEMORY", "MiB", "CORES", "%", "STATE", "TOLD", "BY"] == said.rows[0]
    assert ["gpu-a", "GPU-0", "NVIDIA", "2/10", "3000/8000", "30/100", "ok", "agent"] == said.rows[1]
    assert ["GPU-1", "NVIDIA", "0/10", "0/8000", "0/100", "ok"] == said.rows[2]


async def test_a_card_that_takes_nobody_says_why(prompt: Prompt, allocator: Allocator) -> None:
    """Unhealthy itself, or its node's agent has gone silent."""
    allocator.pages = [
        [
            NodeUse(node="a", devices=[use(a_card("GPU-0", healthy=False))]),
            NodeUse(node="b", ready=False, devices=[use(a_card("GPU-1"))]),
        ]
    ]

    _, first, second = (await prompt.hamictl("nodes")).out.splitlines()

    assert first.rstrip().endswith("unhealthy")
    assert second.rstrip().endswith("node silent")


async def test_all_pages_of_a_large_cluster_are_shown(prompt: Prompt, allocator: Allocator) -> None:
    """The allocator answers page by page; nobody sees that."""
    allocator.pages = [[NodeUse(node=f"n{i}", devices=[use(a_card(f"GPU-{i}"))])] for i in range(3)]
    allocator.bookings = [a_booking("p", "GPU-0")]

    nodes, pods = await prompt.hamictl("nodes", "-o", "json"), await prompt.hamictl("pods")

    assert ["n0", "n1", "n2"] == [node["node"] for node in nodes.json]
    assert 2 == len(pods.rows)


async def test_programs_get_the_messages_themselves(prompt: Prompt, allocator: Allocator) -> None:
    """``-o json``: nodes with devices and use, pods with their allocation and its state."""
    allocator.pages = [[NodeUse(node="gpu-a", source="agent", devices=[use(a_card("GPU-0"), memory=3000)])]]
    allocator.bookings = [a_booking("p", "GPU-0", state=State.BOUND)]

    (node,) = (await prompt.hamictl("nodes", "--output", "json")).json
    (booking,) = (await prompt.hamictl("pods", "-o", "json")).json

    assert ("gpu-a", "agent", True) == (node["node"], node["source"], node["ready"])
    assert ("GPU-0", 8000, 3000) == (
        node["devices"][0]["device"]["id"],
        node["devices"][0]["device"]["memory"],
        node["devices"][0]["used_memory"],
    )
    assert "BOUND" == booking["state"]
    assert {"namespace": "default", "name": "p", "uid": "uid-default-p"} == booking["allocation"]["pod"]
    assert "GPU-0" == booking["allocation"]["containers"][0]["grants"][0]["uuid"]


async def test_pods_are_shown_by_namespace_and_name(prompt: Prompt, allocator: Allocator) -> None:
    """Every slice has a line; a pod's name, state and node stand once."""
    allocator.bookings = [
        a_booking("z", "GPU-0", "GPU-1"),
        a_booking("a", "GPU-2", namespace="team-a", state=State.RESERVED),
        a_booking("b", "GPU-3"),
    ]

    said = await prompt.hamictl("pods")

    assert [
        ["default", "b", "ACTIVE", "gpu-a", "main", "GPU-3", "3000", "30"],
        ["default", "z", "ACTIVE", "gpu-a", "main", "GPU-0", "3000", "30"],
        ["main", "GPU-1", "3000", "30"],
        ["team-a", "a", "RESERVED", "gpu-a", "main", "GPU-2", "3000", "30"],
    ] == said.rows[1:]


async def test_pods_of_one_namespace(prompt: Prompt, allocator: Allocator) -> None:
    """Namesakes elsewhere are left out."""
    allocator.bookings = [a_booking("p", "GPU-0", namespace="team-a"), a_booking("p", "GPU-1", namespace="team-b")]

    said = await prompt.hamictl("pods", "-n", "team-b")
    as_json = await prompt.hamictl("pods", "--namespace", "team-b", "-o", "json")

    assert ["GPU-1"] == [row[5] for row in said.rows[1:]]
    assert ["team-b"] == [booking["allocation"]["pod"]["namespace"] for booking in as_json.json]


async def test_nothing_there_is_said(prompt: Prompt, allocator: Allocator) -> None:
    """A sentence for people, an empty list for programs, and no error."""
    nodes, pods = await prompt.hamictl("nodes"), await prompt.hamictl("pods", "-n", "team-c")

    assert (0, "no node has told of any card yet\n") == (nodes.code, nodes.out)
    assert (0, "no pod of namespace team-c holds a device\n") == (pods.code, pods.out)
    assert [] == (await prompt.hamictl("nodes", "-o", "json")).json


async def test_what_others_wrote_is_shown_as_it_is(prompt: Prompt, allocator: Allocator) -> None:
    """A model with brackets is no markup, and no line is broken however long it is."""
    model = "[bold]NVIDIA :car: [/]" + "x" * 300
    allocator.pages = [[NodeUse(node="n", devices=[use(a_card("GPU-0", model=model))])]]

    _, line = (await prompt.hamictl("nodes")).out.splitlines()

    assert model in line
    assert "0/8000" in line


async def test_what_a_nodes_agent_sees_and_should_not_stands_below(prompt: Prompt, allocator: Allocator) -> None:
    """A line each, with its node and kind, never broken."""
    drift = Drift(kind="stranger", says="process 4711 (jupyter, 300 MiB) on card GPU-0, of no pod", device="GPU-0")
    allocator.pages = [[NodeUse(node="gpu-a", devices=[use(a_card("GPU-0"))], drift=[drift])]]

    said = await prompt.hamictl("nodes")

    assert "gpu-a: stranger: process 4711 (jupyter, 300 MiB) on card GPU-0, of no pod" == said.out.splitlines()[-1]
