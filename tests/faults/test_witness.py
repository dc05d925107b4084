"""The observer of a storm sees what must never be, at the moment in which it is."""

import asyncio
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hami_testkit.cluster import Standin
from hami_testkit.cluster.client import ApiClient

from tests.faults.fleet import Card, FleetNode, Kind, fleet, pod, pods
from tests.faults.witness import PODS, Witness

CARD = Card(id="GPU-0", memory=1000, cores=100, slots=2)
NODE = FleetNode(name="n1", kind=Kind.PLUGIN, cards=(CARD,))
LIMITS = [{"nvidia.com/gpu": "1"}]
KEY = "hami.io/vgpu-devices-allocated"


async def seen(*steps: Any) -> Witness:
    """Return a witness that has followed these steps on an API server, each before the next."""
    async with Standin.start() as cluster, ApiClient.connect(cluster.url) as api:
        witness = Witness(api, [NODE])
        async with asyncio.timeout(10), witness.changed:
            following = asyncio.create_task(witness.run())
            await witness.changed.wait()  # the list: from here on it sees every event
        for step in steps:
            await step(api)
        last = versions((await api.get(PODS))["items"])
        async with asyncio.timeout(10), witness.changed:
            await witness.changed.wait_for(lambda: last == versions(witness.pods.values()))
        following.cancel()
    return witness


def versions(of: Iterable[dict[str, Any]]) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["metadata"]["resourceVersion"] for pod in of}


def bound(name: str, *shares: str, node: str = "n1") -> Any:
    async def step(api: ApiClient) -> None:
        await api.create(PODS, pod(name, LIMITS))
        meta = {"name": name, "annotations": {KEY: "".join(f"{share}:;" for share in shares)}}
        await api.create(f"{PODS}/{name}/binding", {"metadata": meta, "target": {"name": node}})

    return step


def ended(name: str) -> Any:
    async def step(api: ApiClient) -> None:
        await api.patch(f"{PODS}/{name}/status", {"status": {"phase": "Succeeded"}})

    return step


def rewritten(name: str, share: str) -> Any:
    async def step(api: ApiClient) -> None:
        await api.patch(f"{PODS}/{name}", {"metadata": {"annotations": {KEY: f"{share}:;"}}})

    return step


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ("GPU-0,NVIDIA,600,10", "GPU-0,NVIDIA,500,10", "card GPU-0 of n1 gives 1100 MiB of 1000 to a, b"),
        ("GPU-0,NVIDIA,100,60", "GPU-0,NVIDIA,100,50", "card GPU-0 of n1 gives 110 percent of 100 to a, b"),
        ("GPU-0,NVIDIA,100,10", "GPU-1,NVIDIA,100,10", "node n1 has no card GPU-1, which b hold"),
    ],
)
async def test_a_card_given_twice_is_found(first: str, second: str, sentence: str) -> None:
    """By memory, by cores, and where there is no such card."""
    assert [sentence] == (await seen(bound("a", first), bound("b", second))).findings


async def test_it_is_found_although_it_is_over_soon_after() -> None:
    """Every event counts, not how things stand in the end."""
    share = "GPU-0,NVIDIA,600,10"

    assert 1 == len((await seen(bound("a", share), bound("b", share), ended("a"))).findings)


async def test_who_has_ended_holds_nothing() -> None:
    """The next pod may have the same slice."""
    share = "GPU-0,NVIDIA,600,10"
    witness = await seen(bound("a", share), ended("a"), bound("b", share))

    assert ([], 2) == (witness.findings, witness.bound)


async def test_a_bound_pod_without_cards_and_one_whose_cards_change_are_found() -> None:
    """Both would go unaccounted."""
    witness = await seen(bound("a"), bound("b", "GPU-0,NVIDIA,600,10"), rewritten("b", "GPU-0,NVIDIA,1,1"))

    assert [True, True] == [
        words in text
        for words, text in zip(("cards for 0 of its containers", "holds other cards"), witness.findings, strict=True)
    ]


@pytest.mark.parametrize(("nodes", "count"), [(10, 60), (50, 300)])
def test_the_pods_of_a_storm_fill_most_of_the_fleet_and_the_biggest_fits_last(nodes: int, count: int) -> None:
    """On no arrangement of the others are all cards too full for it."""
    made = fleet(nodes)
    coming = [p["spec"]["containers"] for p in pods(made, count, random.Random(1))]
    asked = [[c["resources"]["limits"].get("nvidia.com/gpumem") for c in containers] for containers in coming]
    sizes = [sum(map(int, each)) for each in asked if each[0]]
    cards = [card for node in made for card in node.cards if card.id.startswith("GPU")]
    there = sum(card.memory for card in cards)

    assert count == len(asked)
    assert 0.7 < sum(sizes) / there < 0.9
    assert max(sizes) <= cards[0].memory * (1 - sum(sizes) / there)
