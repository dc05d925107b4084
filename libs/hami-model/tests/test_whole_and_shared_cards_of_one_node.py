"""A node that offers its cards whole and in shares has each of them once: who takes one form takes the other away."""

import json

import msgspec
import pytest
from hami_model.charge import Charge
from hami_model.demands import pod_demand
from hami_model.fleet import Fleet
from hami_model.objects import Node, Pod
from hami_model.place import Placement, place, why_not
from hami_model.policies import Policies, for_pod
from hami_testkit.builders import a_catalog, a_pod

CATALOG = a_catalog()
KUNLUN, ENFLAME, METAX = "kunlunxin.com/xpu", "enflame.com/gcu", "metax-tech.com/gpu"
"""By what whole cards are asked for."""
A_SHARE = {
    KUNLUN: {"kunlunxin.com/vxpu": 1, "kunlunxin.com/vxpu-memory": 24576},
    ENFLAME: {"enflame.com/drs-gcu": 1},
    METAX: {"metax-tech.com/sgpu": 1, "metax-tech.com/vmemory": 4, "metax-tech.com/vcore": 10},
}
SHARED_CARDS = {
    KUNLUN: {
        "hami.io/node-register-xpu": json.dumps(
            [{"id": f"xpu-{i}", "index": i, "count": 4, "devmem": 98304, "devcore": 100, "type": "XPU", "numa": 0,
              "health": True} for i in range(2)]
        )
    },
    ENFLAME: {
        "enflame.com/gcu-drs-capacity": json.dumps(
            {"devices": [{"index": i, "minor": i, "capacity": 6} for i in range(2)],
             "profiles": {"1g.8gb": 1, "6g.48gb": 6}}
        )
    },
    METAX: {
        "metax-tech.com/node-gpu-devices": json.dumps(
            [{"uuid": f"sgpu-{i}", "model": "MXC500", "totalDevCount": 16, "totalCompute": 100, "totalVRam": 65536,
              "healthy": True} for i in range(2)]
        )
    },
}  # fmt: skip
"""Two cards, as each plugin of shares publishes them."""


class Books:
    """A node with two cards in both forms, and who holds what."""

    def __init__(self, whole: str) -> None:
        meta = {"name": "n1", "annotations": SHARED_CARDS[whole]}
        amounts = {whole: "2"}
        status = {"capacity": amounts, "allocatable": amounts}
        self.node = msgspec.convert({"metadata": meta, "status": status}, Node)
        self.fleet = Fleet(CATALOG)
        self.lists()

    def lists(self) -> None:
        """Let the node list its cards in both forms."""
        for vendor in CATALOG.vendors:
            self.fleet.set_devices("n1", vendor.word, vendor.discover(vendor, self.node))

    def comes(self, *containers: dict[str, int]) -> tuple[int, ...] | str:
        """Place a pod: the indexes of its cards, or HAMi's words."""
        builder = a_pod("p")
        for asked in containers:
            builder = builder.asking(**asked)
        pod: Pod = builder.pod()
        demand, policies = pod_demand(pod, CATALOG), for_pod(pod, Policies())
        outcome = place(self.fleet, pod, demand, ["n1"], policies=policies)
        if not isinstance(outcome, Placement):
            return next(iter(why_not(self.fleet, pod, demand, ["n1"], policies=policies)))
        grants = [grant for container in outcome.containers for grant in container.grants]
        self.fleet.charge("n1", {(g.vendor, g.uuid): Charge(slots=1, memory=g.memory, cores=g.cores) for g in grants})
        return tuple(grant.index for grant in grants)


@pytest.fixture(params=SHARED_CARDS, ids=lambda whole: whole.partition(".")[0])
def whole(request: pytest.FixtureRequest) -> str:
    """Return the resource by which whole cards are asked for."""
    found: str = request.param
    return found


def test_a_whole_card_gives_no_shares(whole: str) -> None:
    """One is whole, the shares are the other's."""
    books = Books(whole)
    (taken,) = books.comes({whole: 1})

    assert books.comes(A_SHARE[whole]) == books.comes(A_SHARE[whole]) == (1 - taken,)


def test_a_card_with_shares_is_not_given_whole(whole: str) -> None:
    """Shares on both: nobody gets one whole."""
    books = Books(whole)
    (taken,) = books.comes(A_SHARE[whole])

    assert books.comes({whole: 1}) == (1 - taken,)
    assert isinstance(books.comes({whole: 1}), str)


def test_one_pod_may_want_both(whole: str) -> None:
    """Its containers get different cards too, and a third finds none."""

    assert sorted(Books(whole).comes({whole: 1}, A_SHARE[whole])) == [0, 1]
    assert sorted(Books(whole).comes(A_SHARE[whole], {whole: 1})) == [0, 1]
    assert isinstance(Books(whole).comes({whole: 2}, A_SHARE[whole]), str)
    assert isinstance(Books(whole).comes({whole: 1}, A_SHARE[whole], {whole: 1}), str)


def test_what_left_the_card_leaves_both_forms(whole: str) -> None:
    """When the whole card's pod has ended, shares fit again."""
    books = Books(whole)
    books.comes({whole: 2})
    assert isinstance(books.comes(A_SHARE[whole]), str)
    books.fleet.discharge("n1", dict(books.fleet.use("n1")))

    assert not isinstance(books.comes(A_SHARE[whole]), str)


def test_a_card_counts_as_used_though_its_form_is_not_listed_now(whole: str) -> None:
    """The plugin of whole cards is away: its pods still have them, and when they end the shares are there."""
    books = Books(whole)
    books.comes({whole: 2})
    word = next(vendor.word for vendor in CATALOG.vendors if vendor.resources.count == whole)
    books.fleet.drop("n1", word)
    assert isinstance(books.comes(A_SHARE[whole]), str)
    books.fleet.discharge("n1", dict(books.fleet.use("n1")))

    assert not isinstance(books.comes(A_SHARE[whole]), str)


def test_a_what_if_knows_both_forms(whole: str) -> None:
    """A copy of the books goes on alone."""
    books = Books(whole)
    books.comes({whole: 2})
    before, books.fleet = books.fleet, books.fleet.snapshot()
    books.fleet.discharge("n1", dict(books.fleet.use("n1")))

    assert not isinstance(books.comes(A_SHARE[whole]), str)
    books.fleet = before
    assert isinstance(books.comes(A_SHARE[whole]), str)
