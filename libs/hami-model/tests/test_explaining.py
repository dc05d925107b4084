"""Why a pod is where it is, card by card and with numbers."""

from hami_model.bus.messages import CardVerdict, NodeVerdict
from hami_model.demands import pod_demand
from hami_model.explain import explain
from hami_model.fleet import Fleet
from hami_model.policies import Policies, for_pod
from hami_model.quota import UNLIMITED, QuotaView, Room
from hami_testkit.builders import PodBuilder, a_fleet, a_node, a_pod


def explained(fleet: Fleet, asking: PodBuilder, *names: str, quota: QuotaView = UNLIMITED) -> list[NodeVerdict]:
    """Explain a pod on these nodes."""
    pod = asking.pod()
    demand = pod_demand(pod, fleet.catalog)
    return explain(fleet, pod, demand, names, policies=for_pod(pod, Policies()), quota=quota)


def test_each_card_says_what_was_wanted_and_what_it_had() -> None:
    """Three cards, three different answers, one text in HAMi's words."""
    node = a_node().with_cards(2).with_cards(1, healthy=False)
    fleet = a_fleet(node.using("node-1-0", memory=7000, cores=20).using("node-1-1", cores=90))

    verdicts = explained(fleet, a_pod().asking(gpu=1, gpumem=3000, gpucores=30), "node-1")

    cards = [
        CardVerdict(device="node-1-0", reason="CardInsufficientMemory", wanted="3000 MiB", had="1000 MiB"),
        CardVerdict(device="node-1-1", reason="CardInsufficientCore", wanted="30 %", had="10 %"),
        CardVerdict(
            device="node-1-2", reason="CardNotHealth", wanted="a healthy card", had="unhealthy, or nobody serves it"
        ),
    ]
    text = "1/3 CardInsufficientCore, 1/3 CardInsufficientMemory, 1/3 CardNotHealth"
    assert [NodeVerdict(node="node-1", fits=False, text=text, cards=cards)] == verdicts


def test_a_node_that_fits_has_a_score() -> None:
    """Its cards say for themselves whether they would serve."""
    fleet = a_fleet(a_node().with_cards(2).using("node-1-0", slots=10, memory=8000, cores=100))

    verdict = explained(fleet, a_pod().asking(gpu=1, gpumem=3000), "node-1")[0]

    assert verdict.fits
    assert 15.0 == verdict.score
    assert ["CardTimeSlicingExhausted", ""] == [card.reason for card in verdict.cards]
    assert "10 of 10 taken" == verdict.cards[0].had


def test_every_name_is_answered_in_order() -> None:
    """Nodes without cards, and nodes with too few."""
    fleet = a_fleet(a_node("small").with_cards(1), a_node("large").with_cards(2))

    verdicts = explained(fleet, a_pod().asking(gpu=2, gpumem=10), "cpu", "small", "large")

    assert ["node unregistered", "NodeInsufficientDevice", ""] == [verdict.text for verdict in verdicts]
    assert [False, False, True] == [verdict.fits for verdict in verdicts]


def test_the_second_container_s_numbers_are_after_the_first() -> None:
    """What the first container took is not there for the second."""
    fleet = a_fleet(a_node().with_cards(1))

    verdict = explained(fleet, a_pod().asking(gpu=1, gpumem=5000).asking(gpu=1, gpumem=4000), "node-1")[0]

    assert "3000 MiB" == verdict.cards[0].had


def test_annotations_and_quota_are_named() -> None:
    """Who limits the pod should be easy to see."""
    fleet = a_fleet(a_node().with_cards(1, model="NVIDIA A40"))
    typed = a_pod().asking(gpu=1, gpumem=10).annotated({"nvidia.com/use-gputype": "a100"})
    named = a_pod().asking(gpu=1, gpumem=10).annotated({"nvidia.com/nouse-gpuuuid": "node-1-0"})
    greedy = a_pod().asking(gpu=1, gpumem=500)

    assert ("A100", "NVIDIA A40") == numbers(explained(fleet, typed, "node-1"))
    assert ("not node-1-0", "node-1-0") == numbers(explained(fleet, named, "node-1"))
    quota = {"NVIDIA": Room(memory=100)}
    assert ("500 MiB, 0 %", "100 MiB left in the namespace") == numbers(explained(fleet, greedy, "node-1", quota=quota))


def numbers(verdicts: list[NodeVerdict]) -> tuple[str, str]:
    """Return what the first card was asked for and had."""
    return verdicts[0].cards[0].wanted, verdicts[0].cards[0].had
