"""Cards in MIG mode give instances: of a size that suffices, at a place that nobody has."""

from typing import Any

import msgspec
import pytest
from hami_model.allocation import Allocation
from hami_model.annotations import allocation_annotations
from hami_model.charge import has_initialised
from hami_model.demands import pod_demand
from hami_model.device import Device, MigProfile, Placement
from hami_model.explain import explain
from hami_model.fleet import Fleet
from hami_model.ledger import Ledger
from hami_model.life import BindSent, Bound, Released, Seen
from hami_model.objects import ContainerState, ContainerStatus, Pod, PodRef, PodStatus, Terminated
from hami_model.observe import Malformed, Unaccounted
from hami_model.place import Placement as Placed
from hami_model.place import Unfit, place
from hami_model.policies import PodPolicies
from hami_model.quota import UNLIMITED, Quotas, Room
from hami_model.rebuild import rebuild
from hami_testkit.builders import PodBuilder, a_card, a_node, a_pod
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from .inspected import CATALOG, NOW, look, rules

PARTS = "hami.io/vgpu-mig-allocations"
MODE = "nvidia.com/vgpu-mode"
SIZES = {"1g.5gb": 4864, "2g.10gb": 9856, "3g.20gb": 19968, "7g.40gb": 40192}


def a_profile(name: str, cores: int, size: int, *starts: int) -> MigProfile:
    placements = tuple(Placement(start=start, size=size) for start in starts)
    return MigProfile(name=name, memory=SIZES[name], cores=cores, slices=int(name[0]), placements=placements)


A100 = (
    a_profile("1g.5gb", 15, 1, 0, 1, 2, 3, 4, 5, 6),
    a_profile("2g.10gb", 29, 2, 0, 2, 4),
    a_profile("3g.20gb", 43, 4, 0, 4),
    a_profile("7g.40gb", 100, 8, 0),
)


def a_cut_card(uuid: str = "GPU-0", index: int = 0) -> Device:
    """Return an A100 of 40 GB in MIG mode."""
    return a_card(uuid, index=index, slots=7, memory=40960, model="NVIDIA A100", mode="mig", mig_profiles=A100)


def a_shared_card(uuid: str = "GPU-1") -> Device:
    return a_card(uuid, index=1, memory=24564, mode="hami-core")


class Books:
    """One node's books, and its pods as the API server shows them."""

    def __init__(self, *cards: Device) -> None:
        self.cards = cards or (a_cut_card(),)
        self.fleet = Fleet(CATALOG)
        self.fleet.set_devices("node-1", "NVIDIA", self.cards)
        self.ledger = Ledger(self.fleet, Quotas(CATALOG))
        self.pods: dict[str, Pod] = {}
        self._number = 0

    def ask(self, built: PodBuilder, *, room: Room | None = None) -> Placed | Unfit:
        """Ask where a pod would go."""
        pod = built.pod()
        quota = UNLIMITED if room is None else {"NVIDIA": room}
        return place(self.fleet, pod, pod_demand(pod, CATALOG), ["node-1"], policies=PodPolicies(), quota=quota)

    def run(self, built: PodBuilder) -> list[tuple[str, str, int]] | str:
        """Place a pod and bind it; return each instance as card, size and start, or HAMi's words why not."""
        pod, answer = built.pod(), self.ask(built)
        if isinstance(answer, Unfit):
            return ", ".join(answer.reasons)
        allocation = Allocation(pod=PodRef.of(pod), node="node-1", containers=answer.containers)
        self.ledger.apply(BindSent(uid=pod.metadata.uid, pod=pod, allocation=allocation))
        self.ledger.apply(Bound(uid=pod.metadata.uid))
        said = pod.annotations | allocation_annotations(CATALOG, allocation, pod, now=NOW)
        meta = structs.replace(pod.metadata, annotations=said)
        self.pods[pod.metadata.uid] = structs.replace(
            pod, metadata=meta, spec=structs.replace(pod.spec, node_name="node-1")
        )
        grants = [grant for container in allocation.containers for grant in container.grants]
        return [(g.uuid, cut.profile, cut.placement.start) for g in grants for cut in g.cuts]

    def end(self, built: PodBuilder) -> None:
        uid = built.pod().metadata.uid
        self.ledger.apply(Released(uid=uid))
        del self.pods[uid]

    def restarted(self, *pods: Pod) -> "tuple[Books, list[object]]":
        """Return the books that a new process makes of the pods alone, with what people hear."""
        new = Books(*self.cards)
        heard = rebuild(new.ledger, pods or tuple(self.pods.values()), CATALOG, new.fleet.devices)
        return new, list(heard)


def asking(name: str, mib: int, count: int = 1) -> PodBuilder:
    return a_pod(name).asking(gpu=count, gpumem=mib)


def test_each_gets_the_smallest_that_suffices() -> None:
    """Sizes 3g and 1g from the card's end, others from its beginning."""
    books = Books()

    assert [("GPU-0", "3g.20gb", 4)] == books.run(asking("a", 15000))
    assert [("GPU-0", "2g.10gb", 0)] == books.run(asking("b", 8000))
    assert [("GPU-0", "1g.5gb", 3)] == books.run(asking("c", 4000))
    assert [("GPU-0", "1g.5gb", 2)] == books.run(asking("d", 4000))


def test_a_larger_one_where_the_small_ones_are_blocked() -> None:
    """A bit more than three slices is all seven."""
    assert [("GPU-0", "7g.40gb", 0)] == Books().run(asking("a", 20000))


def test_the_whole_size_is_booked() -> None:
    """Memory and cores of the instance, not those asked for."""
    books = Books()
    books.run(asking("a", 3000))
    use = books.fleet.use("node-1")["NVIDIA", "GPU-0"]

    assert (1, 4864, 15, (Placement(start=6, size=1),)) == (use.slots, use.memory, use.cores, use.placements)


def test_seven_of_one_card_for_one_container() -> None:
    """Each is another instance of the same card; an eighth is not there."""
    assert [("GPU-0", "1g.5gb", start) for start in (6, 5, 4, 3, 2, 1, 0)] == Books().run(asking("a", 4000, count=7))
    assert "1/1 CardMigTopologyInfeasible, 7/1 AllocatedCardsInsufficientRequest" == Books().run(asking("b", 4000, 8))


def test_who_asks_for_a_whole_card_gets_its_largest_instance() -> None:
    """Which is a little smaller than the card; HAMi refuses this."""
    books = Books()

    assert [("GPU-0", "7g.40gb", 0)] == books.run(a_pod("a").asking(gpu=1, gpucores=100))
    assert "1/1 CardComputeUnitsExhausted" == books.run(asking("b", 100))


def test_a_card_shared_by_limits_is_as_ever() -> None:
    """Both kinds on one node, chosen by mode; too many of the shared kind is HAMi's bare word."""
    books = Books(a_cut_card(), a_shared_card())
    shared, cut = {MODE: "hami-core"}, {MODE: "mig"}

    assert [] == books.run(asking("a", 1000).annotated(shared))
    assert 1000 == books.fleet.use("node-1")["NVIDIA", "GPU-1"].memory
    assert [("GPU-0", "1g.5gb", 6)] == books.run(asking("b", 1000).annotated(cut))
    assert "NodeInsufficientDevice" == books.run(asking("c", 1000, count=3).annotated(shared))
    assert "1/2 CardTypeMismatch" in books.run(asking("d", 1000, count=8).annotated(cut))


def test_a_card_that_can_be_cut_into_nothing_is_not_given() -> None:
    """A share of its memory means nothing to anybody."""
    bare = structs.replace(a_cut_card(), mig_profiles=())

    assert "1/1 CardMigTopologyInfeasible" == Books(bare).run(asking("a", 1000))


def test_init_containers_have_places_of_their_own() -> None:
    """The node keeps an instance until the pod ends, whoever of the pod it was made for; HAMi gives it twice."""
    books = Books()
    pod = a_pod("a").starting_with(gpu=1, gpumem=15000).asking(gpu=1, gpumem=4000)

    assert [("GPU-0", "3g.20gb", 4), ("GPU-0", "1g.5gb", 3)] == books.run(pod)
    after = initialised(books.pods[pod.pod().metadata.uid])
    books.ledger.apply(Seen(uid=after.metadata.uid, pod=after))
    assert "1/1 CardMigTopologyInfeasible" == books.run(asking("b", 15000))
    assert [("GPU-0", "2g.10gb", 0)] == books.run(asking("c", 8000))


def initialised(pod: Pod) -> Pod:
    """Return the pod once its init containers have ended well."""
    ended = ContainerState(terminated=Terminated(exit_code=0))
    init = [ContainerStatus(name=c.name, state=ended) for c in pod.init_containers]
    after = structs.replace(pod, status=PodStatus(phase="Running", init_container_statuses=init))
    assert has_initialised(after)
    return after


def test_a_restart_finds_every_place_again() -> None:
    """From the annotations alone, those that the device plugin completed too."""
    books = Books()
    books.run(asking("a", 15000))
    books.run(asking("b", 4000, count=2))
    made = [completed(pod) for pod in books.pods.values()]
    again, heard = books.restarted(*made)

    assert [] == heard
    assert books.fleet.uses == again.fleet.uses
    assert [("GPU-0", "1g.5gb", 1)] == again.run(asking("c", 4000))


def completed(pod: Pod) -> Pod:
    """Return the pod after the device plugin has made its instances."""
    entries = msgspec.json.decode(pod.annotations[PARTS])
    made = [e | {"migUUID": f"MIG-{at}", "gpuInstanceID": at, "computeInstanceID": 0} for at, e in enumerate(entries)]
    return annotated(pod, {PARTS: msgspec.json.encode(made).decode()})


def annotated(pod: Pod, said: dict[str, str]) -> Pod:
    kept = {key: text for key, text in (pod.annotations | said).items() if text}
    return structs.replace(pod, metadata=structs.replace(pod.metadata, annotations=kept))


ENTRY: dict[str, Any] = {
    "containerIndex": 0, "deviceIndex": 0, "gpuUUID": "GPU-0", "profile": "1g.5gb",
    "placement": {"start": 6, "size": 1},
}  # fmt: skip


@pytest.mark.parametrize("entries", [
    [],
    [ENTRY, ENTRY],
    [ENTRY | {"gpuUUID": ""}],
    [ENTRY | {"gpuUUID": "GPU-9"}],
    [ENTRY | {"placement": {"start": 6, "size": 0}}],
    [ENTRY | {"migUUID": "MIG-1"}],
    [ENTRY | {"containerIndex": -1}],
    ["nonsense"],
])  # fmt: skip
def test_a_pod_that_does_not_say_its_place_holds_the_whole_card(entries: list[Any]) -> None:
    """Too much rather than an instance given twice; somebody is told."""
    books = Books()
    books.run(asking("a", 4000))
    (pod,) = books.pods.values()
    again, heard = books.restarted(annotated(pod, {PARTS: msgspec.json.encode(entries).decode()}))

    assert isinstance(heard[0], Malformed)
    assert isinstance(again.ask(asking("b", 100)), Unfit)


def test_a_running_pod_that_says_nothing_at_all_holds_every_card() -> None:
    """It has some instance: the kubelet started it."""
    books = Books()
    books.run(asking("a", 4000))
    (pod,) = books.pods.values()
    status = PodStatus(container_statuses=[ContainerStatus(name=pod.spec.containers[0].name, started=True)])
    bare = structs.replace(pod, status=status, metadata=structs.replace(pod.metadata, annotations={}))
    again, heard = books.restarted(bare)

    assert isinstance(heard[0], Unaccounted)
    assert isinstance(again.ask(asking("b", 100)), Unfit)


def test_a_pod_on_a_shared_card_may_write_what_it_likes() -> None:
    """Nobody makes instances for it, so nobody else is kept off."""
    books = Books(a_cut_card(), a_shared_card())
    books.run(asking("a", 4000).annotated({MODE: "hami-core"}))
    (pod,) = books.pods.values()
    again, heard = books.restarted(annotated(pod, {PARTS: "nonsense"}))

    assert [] == heard
    assert books.fleet.uses == again.fleet.uses


def test_a_card_that_comes_back_has_its_places_taken() -> None:
    """Also where the process started while it was away; and all of it, where no place was said."""
    books = Books()
    books.run(asking("a", 4000))
    (pod,) = books.pods.values()
    for said, then in ((pod, [("GPU-0", "1g.5gb", 5)]), (annotated(pod, {PARTS: ""}), "1/1 CardMigTopologyInfeasible")):
        away = Books(a_shared_card())
        rebuild(away.ledger, [said], CATALOG, away.fleet.devices)
        away.fleet.set_devices("node-1", "NVIDIA", [a_cut_card()])

        assert then == away.run(asking("b", 4000))


def test_places_beyond_what_was_granted_are_taken_too() -> None:
    """Somebody reserved them."""
    books = Books()
    books.run(asking("a", 4000))
    (pod,) = books.pods.values()
    more = [ENTRY, ENTRY | {"deviceIndex": 1, "placement": {"start": 5, "size": 1}}]
    again, _ = books.restarted(annotated(pod, {PARTS: msgspec.json.encode(more).decode()}))

    assert [("GPU-0", "1g.5gb", 4)] == again.run(asking("b", 4000))


def test_the_quota_counts_the_instance() -> None:
    """And stops the second instance of one card as it stops a second card; an instance is more than was asked for."""
    answers = [Books().ask(asking("a", 4000, count=2), room=Room(memory=room)) for room in (4863, 9727, 9728)]

    assert [
        Unfit(reasons={"1/1 ResourceQuotaNotFit": [0]}),
        Unfit(reasons={"1/1 AllocatedCardsInsufficientRequest, 1/1 ResourceQuotaNotFit": [0]}),
    ] == answers[:2]
    assert not isinstance(answers[2], Unfit)
    assert not isinstance(Books().ask(asking("a", 4000), room=Room(cores=A100[0].cores)), Unfit)
    assert isinstance(Books().ask(asking("a", 4000), room=Room(cores=A100[0].cores - 1)), Unfit)


def test_an_init_containers_instance_pays_for_the_containers_after_it() -> None:
    """The namespace pays for the most that ever runs at the same time, as for any card."""
    pod = a_pod("a").starting_with(gpu=1, gpumem=15000).asking(gpu=2, gpumem=4000)

    assert not isinstance(Books().ask(pod, room=Room(memory=19968)), Unfit)
    assert isinstance(Books().ask(pod, room=Room(memory=19967)), Unfit)


def test_why_a_card_has_no_part_for_a_pod() -> None:
    """In numbers."""
    books = Books()
    books.run(asking("a", 15000))
    pod = asking("b", 20500).pod()
    (verdict,) = explain(books.fleet, pod, pod_demand(pod, CATALOG), ["node-1"], policies=PodPolicies())
    assert "1/1 CardMigTopologyInfeasible" == verdict.text
    assert [("a part of 20500 MiB", "no such part is free")] == [(c.wanted, c.had) for c in verdict.cards]


def test_seven_instances_are_not_too_many_cores() -> None:
    """Each counts 15 %, rounded up, 105 % together: what the driver offers is not over-used."""
    books = Books()
    books.run(asking("a", 4000, count=7))
    node = a_node("node-1").with_card(a_cut_card()).node()

    assert 105 == books.fleet.use("node-1")["NVIDIA", "GPU-0"].cores
    assert () == look([node], tuple(books.pods.values()))


def test_the_checker_finds_parts_that_overlap() -> None:
    """Two pods whose annotations name the same slices."""
    books = Books()
    books.run(asking("a", 4000))
    (pod,) = books.pods.values()
    twin = structs.replace(pod, metadata=structs.replace(pod.metadata, name="b", uid="b"))
    node = a_node("node-1").with_card(a_cut_card()).node()

    assert () == look([node], [pod])
    assert ["parts-overlap"] == rules(look([node], [pod, twin]))


WISHES = st.lists(
    st.tuples(
        st.sampled_from(["asking", "starting_with", "both", "end"]),
        st.integers(1, 3),
        st.sampled_from([100, 4000, 8000, 15000, 20000]),
    ),
    max_size=14,
)


@given(WISHES)
def test_no_sequence_of_pods_overlaps_and_what_is_freed_is_given_again(wishes: list[tuple[str, int, int]]) -> None:
    """Pods come and go; at every step the checker finds nothing, and a restart books the same."""
    books, running = Books(a_cut_card(), a_cut_card("GPU-1", 1)), list[PodBuilder]()
    node = a_node("node-1").with_card(a_cut_card()).with_card(a_cut_card("GPU-1", 1)).node()
    for number, (what, count, mib) in enumerate(wishes):
        if what == "end":
            if running:
                books.end(running.pop(0))
            continue
        built = a_pod(f"p{number}")
        built = built.starting_with(gpu=count, gpumem=mib) if what != "asking" else built
        built = built.asking(gpu=count, gpumem=mib) if what != "starting_with" else built.asking()
        given_first = books.run(built)
        if isinstance(given_first, str):
            continue
        books.end(built)
        assert given_first == books.run(built)
        running.append(built)
        assert () == look([node], tuple(books.pods.values()))
    assert books.restarted()[0].fleet.uses == books.fleet.uses
    assert () == books.ledger.audit()
    for built in running:
        books.end(built)
    assert {} == books.fleet.uses
    assert [("GPU-1", "7g.40gb", 0), ("GPU-0", "7g.40gb", 0)] == books.run(asking("last", 20000, count=2))


CARDS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 1), st.lists(st.sampled_from(range(4)), unique=True)),
    min_size=1,
    max_size=4,
)


@given(CARDS, st.integers(1, 6), st.sampled_from([4000, 8000, 15000, 30000]), st.booleans(), st.integers(0, 60000))
def test_cards_are_asked_as_plain_loops_do(
    kinds: list[tuple[bool, int, list[int]]], count: int, mib: int, binds: bool, room: int
) -> None:
    """Idle cards of both kinds, with and without numa-bind, under a quota."""
    cards = [
        structs.replace(
            a_cut_card(f"GPU-{at}", at), numa=numa, mig_profiles=tuple(A100[each] for each in sorted(sizes))
        )
        if is_cut
        else a_card(f"GPU-{at}", index=at, numa=numa, memory=24564, model="NVIDIA A40", mode="hami-core")
        for at, (is_cut, numa, sizes) in enumerate(kinds)
    ]
    pod = asking("a", mib, count).annotated({"nvidia.com/numa-bind": "true"} if binds else {})
    answer = Books(*cards).ask(pod, room=Room(memory=room))
    expected = plainly(cards, count, mib, binds=binds, room=room)

    if isinstance(answer, Unfit):
        assert expected == next(iter(answer.reasons))
    else:
        assert expected == [(g.uuid, [c.placement for c in g.cuts]) for c in answer.containers for g in c.grants]


def plainly(
    cards: list[Device], count: int, mib: int, *, binds: bool, room: int
) -> str | list[tuple[str, list[Placement]]]:
    """Ask card by card, each that is cut until it has no part left."""
    if count > len(cards) and not any(card.mode == "mig" for card in cards):
        return "NodeInsufficientDevice"
    chosen: list[tuple[str, list[Placement]]] = []
    why: dict[str, int] = {}
    run: int | None = None
    spent = 0
    for card in sorted(cards, key=lambda c: (-c.numa, -c.index)):
        if binds and card.numa != run:
            if chosen:
                why["NumaNotFit"] = why.get("NumaNotFit", 0) + len(chosen)
            chosen, run, spent = [], card.numa, 0
        taken: list[Placement] = []
        while True:
            reason, part, price = one_answer(card, mib, taken, left=room - spent)
            if reason:
                why[reason] = why.get(reason, 0) + 1
                break
            chosen.append((card.id, part))
            taken, spent = taken + part, spent + price
            if len(chosen) == count:
                return chosen
            if card.mode != "mig":
                break
    if chosen:
        why["AllocatedCardsInsufficientRequest"] = len(chosen)
    return ", ".join(sorted(f"{number}/{len(cards)} {reason}" for reason, number in why.items()))


def one_answer(card: Device, mib: int, taken: list[Placement], *, left: int) -> tuple[str, list[Placement], int]:
    """Return why a card refuses, or the part that it gives and what that costs."""
    part, price = one_part(card, mib, taken) if card.mode == "mig" and mib <= card.memory else ([], mib)
    if price > left:
        return "ResourceQuotaNotFit", [], 0
    if mib > card.memory:
        return "CardInsufficientMemory", [], 0
    return ("", part, price) if part or card.mode != "mig" else ("CardMigTopologyInfeasible", [], 0)


def one_part(card: Device, mib: int, taken: list[Placement]) -> tuple[list[Placement], int]:
    """Return the place that a card gives, and its memory; none, and what was asked for."""
    for profile in sorted(card.mig_profiles, key=lambda p: p.memory):
        places = sorted(profile.placements, key=lambda p: p.start, reverse=profile.name[:3] in ("1g.", "3g."))
        for place_ in places if profile.memory >= mib else ():
            if not any(p.start < place_.start + place_.size and place_.start < p.start + p.size for p in taken):
                return [place_], profile.memory
    return [], mib
