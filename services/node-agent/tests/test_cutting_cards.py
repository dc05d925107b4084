"""MIG instances made and destroyed by the real nvidia-ml-py, on a driver that the tests script."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hami_model import config
from hami_model.allocation import Allocation, ContainerGrants, Cut, Grant
from hami_model.config import Nvidia
from hami_model.device import Placement
from hami_model.objects import Container, Meta, Pod, PodRef, PodSpec, Resources
from hami_model.request import Role
from hami_node_agent.mig.book import Book, BookFile, Piece, pieces
from hami_node_agent.mig.cutter import STUCK, CannotCut, Cutter
from hami_node_agent.mig.users import Users, users
from hami_node_agent.node_config import NodeConfig
from hami_node_agent.probes.nvml import NvmlProbe, XidRules
from hami_node_agent.probes.nvml.driver import Driver
from hami_node_agent.probes.nvml.instances import Scalpel
from hami_node_agent.probes.nvml.threads import Worker
from hami_testkit.clock import FakeClock
from hami_testkit.nvml import A100, FakeNvml, Made, NoCompiler, Process, fake_nvml
from msgspec import structs

DEADLINE = 10.0
CHART = config.DEFAULTS.nvidia or Nvidia()
P, Q = PodRef("default", "p", "uid-p"), PodRef("default", "q", "uid-q")
CARD = A100.uuid
NO_PERMISSION, UNKNOWN = 4, 999
STRANGE = Made(card=CARD, number=2, start=4, size=4)


def a_grant(profile: str, start: int, size: int, card: str = CARD) -> Grant:
    cut = Cut(profile=profile, placement=Placement(start, size))
    return Grant(uuid=card, vendor="NVIDIA", memory=1000, cores=10, cuts=(cut,))


SMALL, HALF = a_grant("1g.5gb", 6, 1), a_grant("3g.20gb", 0, 4)
WHOLE_CARD = Grant(uuid=CARD, vendor="NVIDIA", memory=1000, cores=10)


def a_pod(ref: PodRef) -> Pod:
    wanted = Resources(limits={"nvidia.com/gpu": "1"})
    meta = Meta(name=ref.name, namespace=ref.namespace, uid=ref.uid)
    return Pod(metadata=meta, spec=PodSpec(containers=[Container(name="main", resources=wanted)], node_name="n1"))


class Node:
    """A node in mode mig, and the agent's part that cuts its cards."""

    def __init__(self, nvml: FakeNvml, folder: Path) -> None:
        self.nvml = nvml
        self.clock = FakeClock()
        self.folder = folder
        self.config = folder / "config.json"
        self.given: dict[PodRef, tuple[Grant, ...] | None] = {}
        """Who lives here, and what was given to them; None = nobody can read that."""
        self.set_config()
        self.driver = Driver(folder / "driver")
        self.start_agent()

    def set_config(self, more: str = "") -> None:
        self.config.write_text(f'{{"nodeconfig": [{{"name": "n1", "operatingmode": "mig" {more}}}]}}')

    def start_agent(self, *, deadline: float = 5, refuses: str = "") -> None:
        """Start anew, from what was written down."""
        rules = NodeConfig(CHART, node="n1", path=self.config)
        self.probe = NvmlProbe(rules, xids=XidRules(), clock=self.clock, driver=self.driver)
        file = BookFile(self.folder / "mig.json")
        book = Book(file.read(), on_change=file.write)
        self.cutter = Cutter(
            cards=self.probe, knife=Scalpel(), book=book, worker=Worker(deadline), clock=self.clock, refuses=refuses
        )

    async def take_over(self) -> str:
        """Look at the cards and take them over; return what stands against the first one."""
        await self.probe.look()
        await self.cutter.take_over(self.users)
        return self.cutter.complaint(CARD)

    def users(self) -> Users:
        return users((), map(a_pod, self.given), allocation=self.allocation, resources=["nvidia.com/gpu"], cards=[CARD])

    def allocation(self, pod: PodRef) -> Allocation | None:
        grants = self.given[pod]
        if grants is None:
            return None
        return Allocation(pod=pod, node="n1", containers=(ContainerGrants(name="main", role=Role.APP, grants=grants),))

    async def make(self, pod: PodRef = P, *grants: Grant, container: str = "main") -> list[str]:
        return [piece.uuid for piece in await self.cutter.make(pod, container, grants)]

    @property
    def places(self) -> list[tuple[int, int]]:
        """Return where instances are."""
        return sorted((made.start, made.size) for made in self.nvml.made)


@pytest.fixture
def nvml(tmp_path: Path) -> Iterator[FakeNvml]:
    try:
        with fake_nvml(tmp_path / "driver", A100) as driver:
            yield driver
    except NoCompiler as e:
        pytest.skip(str(e))


@pytest.fixture
def node(nvml: FakeNvml, tmp_path: Path) -> Iterator[Node]:
    found = Node(nvml, tmp_path)
    yield found
    found.probe.close()
    found.driver.close()


@pytest.fixture
async def ready(node: Node) -> Node:
    """A node whose card was taken over."""
    assert await node.take_over() == ""
    return node


# Taking over


async def test_a_card_is_turned_on_and_cleared_where_nobody_uses_it(node: Node, nvml: FakeNvml) -> None:
    """Nobody has to prepare it by hand."""
    nvml.change(CARD, mig=0)
    before = node.cutter.complaint(CARD)
    nvml.make(STRANGE)

    assert await node.take_over() == ""
    assert (before, nvml.is_cut(CARD), nvml.made) == ("it is not taken over yet", True, [])


async def test_a_card_whose_mig_is_off_shows_its_places_once_it_is_on(node: Node, nvml: FakeNvml) -> None:
    """The driver tells them no earlier."""
    nvml.change(CARD, mig=0)
    (before,) = await node.probe.look()
    await node.take_over()
    (after,) = await node.probe.look()

    assert (before.mig_profiles[0].placements, len(after.mig_profiles[0].placements)) == ((), 7)


async def test_mig_that_waits_for_a_reset_keeps_pods_away(node: Node, nvml: FakeNvml) -> None:
    """Older cards; the sentence names the way out."""
    nvml.change(CARD, mig=0, needs_reset=True)
    first, later = await node.take_over(), await node.take_over()
    nvml.reset()

    assert first == later == "MIG is turned on only by a reset: run nvidia-smi --gpu-reset, or reboot the node"
    assert await node.take_over() == ""


BUSY: dict[str, tuple[Callable[[Node], AbstractContextManager[None] | None], str]] = {
    "a process": (lambda n: n.nvml.change(CARD, processes=(Process(pid=42, instance=2),)), "process 42 is on it"),
    "a pod that lives": (lambda n: n.given.update({Q: (WHOLE_CARD,)}), "it is given to default/q"),
    "a pod that nobody understands": (lambda n: n.given.update({Q: None}), "it is given to default/q"),
    "nobody knows": (
        lambda n: n.nvml.failing("nvmlDeviceGetComputeRunningProcesses_v3", NO_PERMISSION),
        "the driver does not say whether a process is on it",
    ),
}


@pytest.mark.parametrize(("use", "why"), BUSY.values(), ids=BUSY)
@pytest.mark.parametrize("is_on", [True, False], ids=["with a strange instance", "with MIG off"])
async def test_a_card_in_use_is_left_as_it_is(
    node: Node, nvml: FakeNvml, use: Callable[[Node], AbstractContextManager[None] | None], why: str, *, is_on: bool
) -> None:
    """It takes no pods until its users are gone; a question that the driver does not answer counts as use."""
    nvml.change(CARD, mig=int(is_on))
    nvml.make(STRANGE)
    blocked = use(node)
    if blocked is None:
        complaint = await node.take_over()
    else:
        with blocked:
            complaint = await node.take_over()
    left = nvml.made
    node.given.clear()
    nvml.change(CARD, processes=())

    assert complaint.endswith(why)
    assert ("3g.20gb at 4+4" if is_on else "MIG is off") in complaint
    assert left == [STRANGE]
    assert await node.take_over() == ""


async def test_cards_that_the_node_leaves_alone_are_left_alone(node: Node, nvml: FakeNvml) -> None:
    """Neither turned on nor cleared; their neighbours are."""
    other = structs.replace(A100, uuid="GPU-o", mig=0)
    nvml.show(other, A100)
    nvml.make(STRANGE)
    nvml.make(structs.replace(STRANGE, card="GPU-o"))
    node.set_config(', "filterdevices": {"uuid": ["GPU-o"]}')

    assert await node.take_over() == ""
    assert (nvml.is_cut("GPU-o"), [made.card for made in nvml.made]) == (False, ["GPU-o"])


async def test_what_somebody_makes_later_is_not_destroyed(ready: Node, nvml: FakeNvml) -> None:
    """A pod that would have been given the place is refused, and no more come until an admin has cleared it."""
    nvml.make(STRANGE)
    with pytest.raises(CannotCut, match=r"3g\.20gb at 4\+4 of GPU-m: .* somebody else has made an instance"):
        await ready.make(P, a_grant("3g.20gb", 4, 4))

    assert "somebody else has made MIG instances on it (3g.20gb at 4+4)" in await ready.take_over()
    assert (nvml.made, ready.cutter.book.pieces) == ([STRANGE], ())


async def test_with_cdi_no_card_is_cut(node: Node, nvml: FakeNvml) -> None:
    """No CDI specification would list the instances: the card takes no pods, and says what to change."""
    nvml.make(STRANGE)
    node.start_agent(refuses="no CDI here")

    assert (await node.take_over(), nvml.made) == ("no CDI here", [STRANGE])


# Making


async def test_an_instance_is_made_at_exactly_its_place(ready: Node, nvml: FakeNvml) -> None:
    """With one compute instance, under the name that the driver gives it."""
    given = await ready.make(P, SMALL, HALF)

    assert ready.places == [(0, 4), (6, 1)]
    assert sorted(given) == sorted(made.uuid for made in nvml.made)
    assert all(made.computes for made in nvml.made)


async def test_a_container_that_is_asked_for_again_gets_the_same(ready: Node, nvml: FakeNvml) -> None:
    """Also by an agent that started anew in between."""
    first = await ready.make(P, SMALL)
    again = await ready.make(P, SMALL)
    ready.start_agent()
    await ready.take_over()

    assert first == again == await ready.make(P, SMALL)
    assert len(nvml.made) == 1


async def test_who_gets_none_leaves_nothing_behind(ready: Node, nvml: FakeNvml) -> None:
    """What others have stays."""
    await ready.make(Q, HALF)
    making = ready.make(P, SMALL)
    with nvml.failing("nvmlGpuInstanceCreateComputeInstance", UNKNOWN), pytest.raises(CannotCut, match=r"1g\.5gb at 6"):
        await making

    assert ready.places == [(0, 4)]
    assert [piece.pod for piece in ready.cutter.book.pieces] == [Q]


async def test_what_cannot_be_taken_back_goes_with_its_pod(ready: Node, nvml: FakeNvml) -> None:
    """The driver fails throughout; nothing that was begun is forgotten."""
    making = ready.make(P, SMALL)
    with nvml.failing("nvmlDeviceGetMigDeviceHandleByIndex", UNKNOWN), pytest.raises(CannotCut, match="is left on"):
        await making
    left = ready.places

    assert (left, await ready.cutter.destroy_of(P), nvml.made) == ([(6, 1)], True, [])


async def test_the_second_of_two_fails_and_the_first_goes_too(ready: Node, nvml: FakeNvml) -> None:
    """A container runs with all its devices or not at all."""
    nvml.make(STRANGE)
    with pytest.raises(CannotCut):
        await ready.make(P, SMALL, a_grant("2g.10gb", 4, 2))

    assert (ready.places, ready.cutter.book.pieces) == ([(4, 4)], ())


async def test_a_driver_that_hangs_is_waited_for_once(node: Node, nvml: FakeNvml) -> None:
    """Whoever comes next is told at once; what comes about late is destroyed with its pod."""
    assert await node.take_over() == ""
    node.start_agent(deadline=0.1)
    with nvml.hanging("nvmlGpuInstanceCreateComputeInstance"):
        with pytest.raises(CannotCut, match=r"the NVIDIA driver has not answered for 0\.1 s"):
            await node.make(P, SMALL)
        with pytest.raises(CannotCut, match="has not returned from an earlier call"):
            await node.make(Q, HALF)
        assert not await node.cutter.destroy_of(P)
    async with asyncio.timeout(DEADLINE):
        while not await node.cutter.destroy_of(P):
            await node.probe.wait_news(0.01)

    assert (nvml.made, node.cutter.book.pieces) == ([], ())


async def test_a_call_that_fails_after_it_was_given_up_is_told(
    node: Node, nvml: FakeNvml, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was made; the next container is served."""
    assert await node.take_over() == ""
    node.start_agent(deadline=0.1)
    with nvml.failing("nvmlDeviceCreateGpuInstanceWithPlacement", UNKNOWN):
        with nvml.hanging("nvmlDeviceCreateGpuInstanceWithPlacement"), pytest.raises(CannotCut):
            await node.make(P, SMALL)
        async with asyncio.timeout(DEADLINE):
            while "that was given up has failed" not in caplog.text:
                await node.probe.wait_news(0.01)
    node.start_agent()

    assert await node.cutter.destroy_of(P)
    assert len(await node.make(Q, SMALL)) == 1


async def test_cutting_does_not_depend_on_who_looks(ready: Node) -> None:
    """Whoever looks at the cards lets go of a driver that is reloaded, at any time."""
    ready.driver.close()

    assert len(await ready.make(P, SMALL)) == 1


async def test_nobody_is_given_slices_that_another_still_has(ready: Node) -> None:
    """The sentence names who has them."""
    await ready.make(Q, HALF)
    wanted = pieces(P, "main", [a_grant("2g.10gb", 2, 2)])

    assert ready.cutter.objection(wanted) == (
        "MIG instance 2g.10gb at 2+2 of GPU-m cannot be made while pod default/q has 3g.20gb at 0+4 of GPU-m"
    )
    assert ready.cutter.objection(pieces(P, "main", [SMALL])) is None


# Destroying


async def test_a_pod_that_is_gone_leaves_its_slices_to_the_next(ready: Node) -> None:
    """Another profile fits where its instance was."""
    await ready.make(P, HALF)

    assert await ready.cutter.destroy_of(P)
    assert len(await ready.make(Q, a_grant("2g.10gb", 2, 2))) == 1
    assert ready.places == [(2, 2)]


async def test_an_instance_with_a_process_on_it_stays_until_that_ends(
    ready: Node, nvml: FakeNvml, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever Kubernetes says; a card that waits long for it takes no more pods."""
    await ready.make(P, SMALL)
    (made,) = nvml.made
    nvml.change(CARD, processes=(Process(pid=42, instance=made.id),))
    soon = await ready.cutter.destroy_of(P), ready.cutter.complaint(CARD)
    ready.clock.advance(STUCK)
    late = ready.cutter.complaint(CARD)
    nvml.change(CARD, processes=())

    assert soon == (False, "")
    assert "of pod default/p cannot be destroyed now: process 42 is on it" in caplog.text
    assert late == "1g.5gb at 6+1 of GPU-m of pod default/p, which is gone, cannot be destroyed"
    assert nvml.made == [made]
    assert (await ready.cutter.destroy_of(P), ready.cutter.complaint(CARD), nvml.made) == (True, "", [])


async def test_what_was_half_destroyed_is_destroyed_the_next_time(ready: Node, nvml: FakeNvml) -> None:
    """The compute instance went, the GPU instance did not."""
    await ready.make(P, SMALL)
    with nvml.failing("nvmlGpuInstanceDestroy", UNKNOWN):
        first = await ready.cutter.destroy_of(P)

    assert (first, await ready.cutter.destroy_of(P), nvml.made) == (False, True, [])


async def test_a_card_that_was_taken_away_has_nothing_to_destroy(ready: Node, nvml: FakeNvml) -> None:
    """Its pods must not hold their devices for ever."""
    await ready.make(P, SMALL)
    nvml.show()

    assert await ready.cutter.destroy_of(P)


# Starting anew


async def test_an_agent_that_starts_anew_keeps_what_is_its_own(ready: Node, nvml: FakeNvml) -> None:
    """Of pods that live and of those that ended meanwhile; the latter are destroyed as if it had never been away."""
    await ready.make(P, SMALL)
    await ready.make(Q, HALF)
    ready.start_agent()
    ready.given[Q] = (HALF,)

    assert await ready.take_over() == ""
    assert ready.places == [(0, 4), (6, 1)]
    assert await ready.cutter.destroy_of(P)
    assert ready.places == [(0, 4)]


@pytest.mark.parametrize("computes", [True, False], ids=["whole", "without its compute instance"])
async def test_an_agent_that_crashed_while_making_finds_what_it_made(
    ready: Node, nvml: FakeNvml, *, computes: bool
) -> None:
    """It was written down before; the container that asks again gets it, completed."""
    ready.cutter.book.put(*pieces(P, "main", [SMALL]))
    nvml.make(Made(card=CARD, number=0, start=6, size=1, computes=computes))
    ready.start_agent()

    assert await ready.take_over() == ""
    assert await ready.make(P, SMALL) == [f"MIG-{CARD}-13"]
    assert nvml.made == [Made(card=CARD, number=0, start=6, size=1)]


async def test_instances_that_hamis_plugin_made_are_taken_over(node: Node, nvml: FakeNvml) -> None:
    """A pod that lives was promised them by its annotation."""
    nvml.make(STRANGE)
    node.given[Q] = (a_grant("3g.20gb", 4, 4),)

    assert await node.take_over() == ""
    assert [(piece.pod, piece.uuid) for piece in node.cutter.book.pieces] == [(Q, STRANGE.uuid)]
    assert await node.cutter.destroy_of(Q)
    assert nvml.made == []


async def test_another_profile_at_the_same_place_is_nobodys(node: Node, nvml: FakeNvml) -> None:
    """Two slices of memory with one of computing are not what the pod was promised."""
    nvml.make(Made(card=CARD, number=9, start=0, size=2))
    node.given[Q] = (a_grant("2g.10gb", 0, 2),)

    assert await node.take_over() == (
        "it has MIG instances that no pod of this node was given (1g.10gb at 0+2), and it is given to default/q"
    )


@pytest.mark.parametrize("keeps_mode", [True, False], ids=["MIG is on", "MIG is off"])
async def test_instances_that_a_reboot_took_are_made_again(ready: Node, nvml: FakeNvml, *, keeps_mode: bool) -> None:
    """Under the same names, which the containers of living pods know; nobody waits for those of the others."""
    before = await ready.make(P, SMALL)
    await ready.make(Q, HALF)
    ready.given[P] = (SMALL,)
    nvml.reset()
    nvml.change(CARD, mig=int(keeps_mode))
    ready.start_agent()

    assert await ready.take_over() == ""
    assert ([piece.uuid for piece in ready.cutter.book.pieces], [m.uuid for m in nvml.made]) == (before, before)


async def test_what_cannot_be_made_again_is_tried_again(ready: Node, nvml: FakeNvml) -> None:
    """Until then the card takes no pods."""
    before = await ready.make(P, SMALL)
    ready.given[P] = (SMALL,)
    nvml.reset()
    ready.start_agent()
    with nvml.failing("nvmlDeviceCreateGpuInstanceWithPlacement", UNKNOWN):
        first = await ready.take_over()

    assert "1g.5gb at 6+1 of GPU-m: " in first
    assert (await ready.take_over(), [made.uuid for made in nvml.made]) == ("", before)


async def test_a_pod_that_knows_its_instance_by_another_name_is_called_out(
    ready: Node, nvml: FakeNvml, caplog: pytest.LogCaptureFixture
) -> None:
    """Its container cannot start with what was made again."""
    (piece,) = pieces(P, "main", [SMALL])
    ready.cutter.book.put(structs.replace(piece, uuid="MIG-old", gpu_instance=3))
    ready.given[P] = (SMALL,)
    ready.start_agent()

    assert await ready.take_over() == ""
    assert "main of pod default/p knows it as MIG-old: delete the pod" in caplog.text


async def test_mig_turned_off_under_us_is_turned_on_again(ready: Node, nvml: FakeNvml) -> None:
    """As soon as nobody uses the card."""
    nvml.change(CARD, mig=0)

    assert await ready.take_over() == ""
    assert nvml.is_cut(CARD)


def test_a_book_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """The agent starts all the same: pods' annotations say whose the instances are."""
    (tmp_path / "mig.json").write_text('{"type": "mig.v1", "pieces": 3}')

    with pytest.raises(ValueError, match=r"mig\.json does not say which MIG instances are ours"):
        BookFile(tmp_path / "mig.json").read()


def test_a_piece_is_written_as_it_is_read(tmp_path: Path) -> None:
    """Another version of the agent reads it."""
    file = BookFile(tmp_path / "agent" / "mig.json")
    (piece,) = pieces(P, "main", [SMALL])
    made: Piece = structs.replace(piece, uuid="MIG-1", gpu_instance=3)
    file.write((made,))

    assert file.read() == (made,)
