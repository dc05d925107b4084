"""The node's NVIDIA cards as the real nvidia-ml-py reads them, from a driver that the tests script."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hami_model import config
from hami_model.config import MigModels, Nvidia
from hami_model.device import Device, Placement
from hami_node_agent.inventory import Inventory
from hami_node_agent.node_config import NodeConfig
from hami_node_agent.probes import nvml as probe
from hami_node_agent.probes.nvml import NvmlProbe, XidRules
from hami_node_agent.probes.nvml.driver import Driver
from hami_testkit.clock import FakeClock
from hami_testkit.nvml import A100, Card, FakeNvml, NoCompiler, Process, Profile, fake_nvml
from msgspec import structs

DEADLINE = 10.0
A, B = Card(uuid="GPU-a"), Card(uuid="GPU-b", bus="00000000:5E:00.0")
CHART = config.DEFAULTS.nvidia or Nvidia()
NO_PERMISSION, DRIVER_NOT_LOADED, FUNCTION_NOT_FOUND, GPU_IS_LOST = 4, 9, 13, 15


@pytest.fixture
def nvml(tmp_path: Path) -> Iterator[FakeNvml]:
    try:
        with fake_nvml(tmp_path / "driver", A, B) as driver:
            yield driver
    except NoCompiler as e:
        pytest.skip(str(e))


class Watched:
    """A probe on the scripted driver, with a clock in the hand."""

    def __init__(self, folder: Path, nvidia: Nvidia, *, entry: str, deadline: float) -> None:
        self.clock = FakeClock()
        self.sysfs = folder / "sys"
        file = folder / "config.json"
        file.write_text(f'{{"nodeconfig": [{{"name": "n1", {entry}}}]}}' if entry else "{}")
        node, self.driver = NodeConfig(nvidia, node="n1", path=file), Driver(folder / "driver")
        self.probe = NvmlProbe(
            node, xids=XidRules(), clock=self.clock, driver=self.driver, deadline=deadline, sysfs=self.sysfs
        )

    async def look(self) -> dict[str, Device]:
        return {device.id: device for device in await self.probe.look()}

    async def healthy(self) -> list[str]:
        return [uuid for uuid, device in (await self.look()).items() if device.healthy]

    async def wait_healthy(self, *uuids: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while await self.healthy() != list(uuids):
                await self.probe.wait_news(0.01)


Watch = Callable[..., Watched]


@pytest.fixture
def watch(nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Lend probes; afterwards none of them waits for errors, which the driver tells only once."""
    monkeypatch.setattr(probe, "EVENT_WAIT", 50)
    monkeypatch.setattr(probe, "CLOSE_TIMEOUT", DEADLINE)
    lent: list[Watched] = []

    def lend(nvidia: Nvidia = CHART, *, entry: str = "", deadline: float = 5) -> Watched:
        lent.append(Watched(tmp_path, nvidia, entry=entry, deadline=deadline))
        return lent[-1]

    yield lend
    for each in lent:
        each.probe.close()
        each.driver.close()


@pytest.fixture
def watched(watch: Watch) -> Watched:
    return watch()


async def test_a_card_is_registered_as_the_driver_shows_it(watched: Watched) -> None:
    """MiB and percent, the model under its vendor's name, the NUMA node that the kernel says."""
    numa = watched.sysfs / "bus/pci/devices/0000:5e:00.0/numa_node"
    numa.parent.mkdir(parents=True)
    numa.write_text("1\n")

    found = await watched.look()

    assert found["GPU-a"] == Device(
        id="GPU-a", vendor="NVIDIA", slots=10, memory=48 * 1024, cores=100, model="NVIDIA A40", mode="hami-core",
        links={"GPU-b": 0},
    )  # fmt: skip
    assert (found["GPU-b"].index, found["GPU-b"].numa) == (1, 1)


async def test_the_device_config_scales_and_a_model_without_its_vendor_gets_it(nvml: FakeNvml, watch: Watch) -> None:
    """HAMi's arithmetic: whole MiB first, then the factor, cut off."""
    nvml.show(structs.replace(A, name="Tesla T4", memory=15843721216))
    scaled = structs.replace(CHART, device_memory_scaling=1.5, device_core_scaling=2, device_split_count=3)

    (card,) = (await watch(scaled).look()).values()

    assert (card.memory, card.cores, card.slots, card.model) == (int(15109 * 1.5), 200, 3, "NVIDIA-Tesla T4")


async def test_a_card_whose_memory_nobody_tells_is_registered_only_where_it_is_configured(
    nvml: FakeNvml, watch: Watch
) -> None:
    """Unified memory: the driver does not know how much of it is the card's."""
    nvml.show(structs.replace(A, memory=None))
    configured = structs.replace(CHART, pre_configured_device_memory=65536)

    assert await watch().look() == {}
    assert (await watch(configured).look())["GPU-a"].memory == 65536


async def test_cards_that_the_node_leaves_alone_are_not_registered(nvml: FakeNvml, watch: Watch) -> None:
    """By uuid or by the driver's index."""
    nvml.show(A, B, Card(uuid="GPU-c"))
    watched = watch(entry='"filterdevices": {"uuid": ["GPU-c"], "index": [0]}')

    assert list(await watched.look()) == ["GPU-b"]


MIG = '"operatingmode": "mig", "devicememoryscaling": 2'


async def test_cards_in_mode_mig_say_how_they_can_be_cut(nvml: FakeNvml, watch: Watch) -> None:
    """Profiles of the allowlist that the driver knows; cores by multiprocessors, rounded up; memory unscaled."""
    nvml.show(A100)

    (card,) = (await watch(entry=MIG).look()).values()

    assert (card.mode, card.slots, card.memory, card.cores, card.healthy) == ("mig", 7, 40 * 1024, 100, True)
    assert [(p.name, p.memory, p.cores, p.slices) for p in card.mig_profiles] == [
        ("1g.5gb", 4864, 15, 1),
        ("2g.10gb", 9856, 29, 2),
        ("3g.20gb", 19968, 43, 3),
        ("7g.40gb", 40192, 100, 7),
    ]
    assert card.mig_profiles[0].placements[6] == Placement(6, 1)


@pytest.mark.parametrize("tells_names", [True, False], ids=["the driver names them", "an older driver"])
async def test_a_profile_is_known_by_its_name(nvml: FakeNvml, watch: Watch, *, tells_names: bool) -> None:
    """Variants of as many slices are profiles of their own; HAMi takes each for the plain one."""
    nvml.show(A100)
    wanted = MigModels(
        models=("A100",), profiles=("1g.10gb", "1g.5gb+me", "7g.39gb", "1g.20gb", "6g.40gb", "2g.10gb+me")
    )
    asked = structs.replace(CHART, mig_profile_allowlist=(wanted,))

    with nullcontext() if tells_names else nvml.failing("nvmlDeviceGetGpuInstanceProfileInfoV", FUNCTION_NOT_FOUND):
        (card,) = (await watch(asked, entry=MIG).look()).values()

    assert [(p.name, p.memory, p.placements[0]) for p in card.mig_profiles] == [
        ("1g.10gb", 9856, Placement(0, 2)),
        ("1g.5gb+me", 4864, Placement(0, 1)),
        ("7g.39gb", 40192, Placement(0, 8)),
    ]


async def test_a_model_whose_name_is_in_anothers_gets_its_own_profiles(nvml: FakeNvml, watch: Watch) -> None:
    """H20 is in the name of an H200, whose profiles are larger."""
    one = Profile(number=0, name="1g.18gb", slices=1, instances=7, sms=16, mb=16384, placements=((0, 1),))
    nvml.show(structs.replace(A100, name="NVIDIA H200 NVL", profiles=(one,)))

    (card,) = (await watch(entry=MIG).look()).values()

    assert [p.name for p in card.mig_profiles] == ["1g.18gb"]


async def test_a_card_that_mig_cannot_cut_is_not_registered_beside_those_it_can(
    nvml: FakeNvml, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """It says why; HAMi cuts none of the node's cards then."""
    nvml.show(A, A100, structs.replace(A100, uuid="GPU-x", name="NVIDIA X1"))

    assert list(await watch(entry=MIG).look()) == ["GPU-m"]
    assert "card GPU-a: a NVIDIA A40 cannot be cut with MIG, and the node is in mode mig" in caplog.text
    assert "card GPU-x: migProfileAllowlist has no profile for a NVIDIA X1, which has 1g.5gb, 2g.10gb" in caplog.text


async def test_a_card_that_is_cut_on_a_node_that_shares_by_limits_takes_nobody(
    nvml: FakeNvml, watched: Watched
) -> None:
    """Limits mean nothing to its instances; turned off it is a card like any other."""
    nvml.change("GPU-a", mig=1)
    cut = await watched.healthy()
    nvml.change("GPU-a", mig=0)

    assert (cut, await watched.healthy()) == (["GPU-b"], ["GPU-a", "GPU-b"])


@pytest.mark.parametrize(
    ("ends", "level", "score"),
    [
        (((), ()), 50, 10),
        (((), ()), 0, 60),
        (((("gpu", B.bus),) * 4, (("gpu", A.bus),) * 4), 40, 20 + 400),
        (((("switch", "00000000:AA:00.0"),) * 18, (("switch", "00000000:AB:00.0"),) * 12), 40, 20 + 1200),
        (((("gpu", B.bus),), ()), 40, 0),
    ],
    ids=["across sockets", "one board", "four NVLinks", "through switches", "one end only"],
)
async def test_pairs_score_by_what_connects_them(
    nvml: FakeNvml, watched: Watched, ends: tuple[Any, Any], level: int, score: int
) -> None:
    """HAMi's points; both ends must see an NVLink."""
    nvml.change("GPU-a", links=ends[0])
    nvml.change("GPU-b", links=ends[1])
    nvml.set_level(0, 1, level)

    found = await watched.look()

    assert (found["GPU-a"].links, found["GPU-b"].links) == ({"GPU-b": score}, {"GPU-a": score})


async def test_a_card_that_falls_off_the_bus_is_there_and_unhealthy_until_it_is_back(
    nvml: FakeNvml, watched: Watched
) -> None:
    """Whether the driver counts it still, or has forgotten it."""
    await watched.look()
    nvml.change("GPU-b", is_lost=True)
    lost = await watched.look()
    nvml.show(A)
    forgotten = await watched.healthy()
    nvml.show(A, B)

    assert (lost["GPU-b"].healthy, lost["GPU-b"].memory) == (False, 48 * 1024)
    assert forgotten == ["GPU-a"]
    assert await watched.healthy() == ["GPU-a", "GPU-b"]


async def test_an_error_of_a_card_is_told_at_once(nvml: FakeNvml, watched: Watched) -> None:
    """Nobody waits for the next regular look."""
    inventory = Inventory(watched.probe)
    await inventory.look()
    running = asyncio.create_task(inventory.run())
    nvml.raise_xid("GPU-b", 79)
    async with asyncio.timeout(2):
        await inventory.wait_changed(inventory.revision)
    running.cancel()

    assert inventory.unhealthy == ["GPU-b"]


async def test_what_an_application_did_wrong_is_not_the_cards_fault(nvml: FakeNvml, watched: Watched) -> None:
    """An illegal address is told and forgotten; the error after it, which counts, shows that it was heard."""
    await watched.look()
    nvml.raise_xid("GPU-a", 31)
    nvml.raise_xid("GPU-b", 48)
    await watched.wait_healthy("GPU-a")


@pytest.mark.parametrize(
    ("ignore", "count", "xid", "counts"),
    [
        ("", "", 48, True),
        ("", "", 13, False),
        ("48", "", 48, False),
        ("all", "", 48, False),
        ("all", "48", 48, True),
        ("", "13", 13, True),
        ("", "xids", 13, True),
    ],
)
def test_an_admin_says_which_errors_count(ignore: str, count: str, xid: int, counts: bool) -> None:
    """DP_DISABLE_HEALTHCHECKS and DP_ENABLE_HEALTHCHECKS; what is named as counting counts, also beside ``all``."""
    assert XidRules.of(ignore, count).counts(xid) is counts


@pytest.mark.parametrize(("recovery", "quiet"), [(0, 60), (None, 300)], ids=["the driver says so", "it cannot say"])
async def test_a_card_recovers_when_it_has_been_quiet(
    nvml: FakeNvml, watched: Watched, recovery: int | None, quiet: float
) -> None:
    """HAMi's plugin never believes in it again before it is restarted."""
    nvml.change("GPU-b", recovery=recovery)
    await watched.look()
    nvml.raise_xid("GPU-b", 48)
    await watched.wait_healthy("GPU-a")
    watched.clock.advance(quiet - 1)
    soon = await watched.healthy()
    watched.clock.advance(2)

    assert (soon, await watched.healthy()) == (["GPU-a"], ["GPU-a", "GPU-b"])


async def test_a_card_that_must_be_reset_does_not_recover_by_waiting(nvml: FakeNvml, watched: Watched) -> None:
    """The driver's own word: until it has what it asks for, the card takes nobody."""
    nvml.change("GPU-b", recovery=1)
    before = await watched.healthy()
    watched.clock.advance(10_000)
    waited = await watched.healthy()
    nvml.change("GPU-b", recovery=0)

    assert (before, waited, await watched.healthy()) == (["GPU-a"], ["GPU-a"], ["GPU-a", "GPU-b"])


async def test_a_driver_that_hangs_holds_nothing_up(nvml: FakeNvml, watch: Watch) -> None:
    """Its cards take nobody until it answers; no second call is piled on the first."""
    watched = watch(deadline=0.05)
    async with asyncio.timeout(DEADLINE):
        while not await _seen(watched.healthy):
            pass
    with nvml.hanging("nvmlDeviceGetCount_v2"):
        hanging = [await watched.healthy(), await watched.healthy()]

    await watched.wait_healthy("GPU-a", "GPU-b")
    assert hanging == [[], []]


async def _seen(healthy: Callable[[], Any]) -> bool:
    """Look once; a first look on a busy machine may take longer than its deadline."""
    try:
        return bool(await healthy())
    except ValueError:
        return False


async def test_a_driver_that_is_reloaded_is_opened_anew(nvml: FakeNvml, watched: Watched) -> None:
    """While it is away the cards are there and take nobody; errors are heard again afterwards."""
    await watched.look()
    with nvml.failing("nvmlDeviceGetCount_v2", DRIVER_NOT_LOADED):
        away = await watched.healthy()
    back = await watched.healthy()
    nvml.raise_xid("GPU-a", 48)
    await watched.wait_healthy("GPU-b")

    assert (away, back) == ([], ["GPU-a", "GPU-b"])


async def test_without_a_driver_there_is_a_sentence(nvml: FakeNvml, watched: Watched) -> None:
    """Somebody has labelled a node without cards, or the driver is still to be installed."""
    with (
        nvml.failing("nvmlInitWithFlags", DRIVER_NOT_LOADED),
        pytest.raises(ValueError, match="the NVIDIA driver is not loaded on this node: install it"),
    ):
        await watched.look()


async def test_who_runs_on_a_card_is_told_beside_it(nvml: FakeNvml, watched: Watched) -> None:
    """Who computes and who draws, each process once; by the driver's calls of two sizes."""
    nvml.change(
        "GPU-a",
        processes=(Process(pid=7, memory=300), Process(pid=8, kind="graphics"), Process(pid=7, kind="graphics")),
    )
    await watched.look()

    told = {pid.pid: pid.memory for pid in watched.probe.facts["GPU-a"].processes or ()}
    assert (told, watched.probe.facts["GPU-b"].processes) == ({7: 300, 8: 0}, ())


@pytest.mark.parametrize("code", [NO_PERMISSION, FUNCTION_NOT_FOUND])
async def test_a_driver_that_does_not_tell_who_runs_shows_its_cards_all_the_same(
    nvml: FakeNvml, watched: Watched, code: int
) -> None:
    """Not allowed, or too old to know the call: nobody can say who runs there."""
    of = "nvmlDeviceGet{}RunningProcesses_v3"
    with nvml.failing(of.format("Compute"), code), nvml.failing(of.format("Graphics"), code):
        healthy = await watched.healthy()

    assert healthy == ["GPU-a", "GPU-b"]
    assert [facts.processes for facts in watched.probe.facts.values()] == [None, None]
