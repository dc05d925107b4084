"""The shared regions of containers: read as HAMi-core writes them, answered, and survived whatever is in them."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hami_model.objects import PodRef
from hami_node_agent.usage.monitor import GRACE, Monitor
from hami_node_agent.usage.region import BLOCKED, V0, V1, BadRegion, CardUse, Layout, Region
from hami_testkit.clock import FakeClock
from hami_testkit.nvml import NoCompiler
from hami_testkit.regions import write_region

A, B = "GPU-0f3b2a68-93c1-4d7a-b2e4-57d9a1c0e801", "GPU-1c7d4e92-5a86-4b3f-9d10-68eab2d1f902"
TRAIN, SERVE = PodRef("team-a", "train", "uid-1"), PodRef("team-a", "serve", "uid-2")
PODS = {TRAIN.uid: TRAIN, SERVE.uid: SERVE}
SWITCH, RECENT, PRIORITY = V1.switch, V1.switch + 4, V1.switch + 8


def written(folder: Path, layout: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "0b7c.cache"
    try:
        write_region(path, A, B, layout=layout)
    except NoCompiler as e:
        pytest.skip(str(e))
    return path


def put(path: Path, at: int, value: int) -> None:
    """Write one number as HAMi-core would."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack("<i", value))


def number(path: Path, at: int) -> int:
    (value,) = struct.unpack_from("<i", path.read_bytes(), at)
    return int(value)


@pytest.mark.parametrize(("layout", "last"), [(1, 1_700_000_000), (0, 0)], ids=["of today", "before versions"])
def test_what_a_c_program_wrote_is_read_back_exactly(tmp_path: Path, layout: int, last: int) -> None:
    """Three processes on two cards, one of them dead; each layout has its own places."""
    region = Region.open(written(tmp_path, layout))
    found = region.read()
    region.close()

    assert found.cards == (
        CardUse(
            uuid=A, limit=1 << 30, core_limit=30, used=3 * 4000, context=4000, module=0, data=2 * 4000, cores=10 + 30
        ),
        CardUse(
            uuid=B, limit=2 << 30, core_limit=60, used=3 * 4002, context=4002, module=0, data=2 * 4002, cores=11 + 31
        ),
    )
    assert (found.switch, found.recent_kernel, found.priority, found.last_kernel) == (1, 2, 1, last)


@pytest.mark.parametrize("layout", [V1, V0], ids=["of today", "before versions"])
def test_the_two_answers_stand_where_the_library_reads_them(tmp_path: Path, layout: Layout) -> None:
    """And nothing beside them changes."""
    path = written(tmp_path, 1 if layout is V1 else 0)
    before = path.read_bytes()
    region = Region.open(path)
    region.write_switch(0)
    region.write_recent_kernel(BLOCKED)
    region.close()

    after = path.read_bytes()
    at = layout.switch
    assert struct.unpack_from("<3i", after, at) == (0, -1, 1)
    assert (before[:at], before[at + 8 :]) == (after[:at], after[at + 8 :])


def hostile_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def short(path: Path) -> None:
    path.write_bytes(b"12345")


def other_magic(path: Path) -> None:
    path.write_bytes(bytes(V1.size))


def other_version(path: Path) -> None:
    path.write_bytes(struct.pack("<iII", 19920718, 2, 0) + bytes(V1.size))


@pytest.mark.parametrize("make", [hostile_link, fifo, short, other_magic, other_version])
def test_what_is_no_region_is_refused_and_nothing_is_waited_for(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A tenant may put anything there."""
    path = tmp_path / "x.cache"
    make(path)

    with pytest.raises((BadRegion, OSError)):
        Region.open(path)


def test_a_region_that_is_cut_short_meanwhile_ends_nothing(tmp_path: Path) -> None:
    """Mapped into memory it would end the process."""
    path = written(tmp_path)
    region = Region.open(path)
    os.truncate(path, 4000)

    with pytest.raises(BadRegion, match="it ends at byte 4000"):
        region.read()
    region.close()


def test_numbers_that_make_no_sense_are_clamped(tmp_path: Path) -> None:
    """More processes than there is room for, and a name that is no text."""
    path = written(tmp_path)
    put(path, V1.process_count, 2**31 - 1)
    with path.open("r+b") as file:
        file.seek(V1.uuids)
        file.write(b"\xff\xfe")
    region = Region.open(path)
    found = region.read()
    region.close()

    assert [card.uuid for card in found.cards] == [B]
    assert found.cards[0].used == 3 * 4002


class House:
    """The containers of a node, and a monitor over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.monitor = Monitor(folder, pods=list, holders=list, clock=self.clock)

    def container(self, pod: PodRef, name: str = "main") -> Path:
        return written(self.folder / "containers" / f"{pod.uid}_{name}")

    def round(self) -> dict[str, int]:
        """Do a round; return the memory used of the first card, by container."""
        seen = self.monitor.round(PODS, PODS)
        return {f"{use.pod.name}/{use.container}": use.reading.cards[0].used for use in seen}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_every_container_is_read_whatever_the_others_have(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """What is wrong with one is told once, by its name."""
    house.container(TRAIN)
    broken = house.container(SERVE)
    broken.write_bytes(b"nonsense of a tenant")
    (house.folder / "containers" / "uid-2_waiting").mkdir()

    assert [house.round(), house.round()] == [{"train/main": 12000}] * 2
    told = [record.getMessage() for record in caplog.records]
    assert told == ["container uid-2_main: its use cannot be read: it does not begin as HAMi-core's regions do"]
    house.monitor.close()


def test_a_container_that_starts_again_has_a_new_region(house: House) -> None:
    """The old file is let go of."""
    path = house.container(TRAIN)
    house.round()
    path.unlink()
    gone = house.round()
    house.container(TRAIN)

    assert (gone, house.round()) == ({}, {"train/main": 12000})
    house.monitor.close()


def test_a_high_priority_task_stops_the_launches_of_the_others(house: House) -> None:
    """Both on one card; when it has been quiet for two rounds they go on."""
    high, low = house.container(TRAIN), house.container(SERVE)
    put(high, PRIORITY, 0)
    house.round()
    blocked = number(low, RECENT), number(low, SWITCH)
    house.round()

    assert blocked == (BLOCKED, 1)
    assert (number(low, RECENT), number(high, RECENT)) == (0, 0)
    house.monitor.close()


def test_cores_are_limited_only_where_somebody_else_is_active(house: House) -> None:
    """Alone on its cards a container may use them all."""
    path = house.container(TRAIN)
    house.round()
    alone = number(path, SWITCH)
    other = house.container(SERVE)
    put(path, RECENT, 2)
    house.round()

    assert (alone, number(path, SWITCH), number(other, SWITCH)) == (0, 1, 1)
    house.monitor.close()


def test_what_dead_containers_left_is_cleared_away(house: House) -> None:
    """Not that of a pod which holds devices still, nor that of one which may be younger than our watch."""
    dead = house.container(PodRef("team-a", "old", "uid-9")).parent
    held = house.container(SERVE).parent
    os.utime(dead, (house.clock.now(), house.clock.now()))
    house.monitor.round({}, {SERVE.uid})
    young = dead.exists()
    house.clock.advance(GRACE + 1)
    house.monitor.round({}, {SERVE.uid})

    assert (young, dead.exists(), held.exists()) == (True, False, True)
    house.monitor.close()
