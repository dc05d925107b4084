"""The reflector over a real HTTP watch: its view is the cluster's, whatever happens on the way."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from hami_kit.kube import Kube
from hami_kit.kube.client import PODS
from hami_kit.kube.reflector import SLICE, ChangeKind, Reflector, pause
from hami_kit.kube.transport import LONGEST_LINE
from hami_kit.kube.wire import Identity
from hami_model.objects import Pod
from hami_testkit.cluster import Standin
from hami_testkit.cluster.faults import Fault
from hami_testkit.cluster.resources import PODS as POD_RESOURCE

from .conftest import DEADLINE, until

ELSEWHERE = {"fieldSelector": "spec.nodeName=elsewhere"}


def a_pod(name: str, **labels: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default", "labels": labels}
    return {"metadata": meta, "spec": {"containers": [{"name": "main"}]}}


def unreadable(name: str) -> dict[str, Any]:
    pod = a_pod(name)
    return {**pod, "metadata": {**pod["metadata"], "uid": f"uid-{name}"}, "status": {"phase": 7}}


class View:
    """What a consumer of the reflector knows, and how it came to know it."""

    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}
        self.lists: list[int] = []
        self.changes: list[tuple[ChangeKind, str]] = []
        self.malformed: list[str] = []
        self.unread: list[str] = []

    def on_list(self, pods: Sequence[Pod], _version: str, unread: Sequence[Identity]) -> None:
        self.pods = {pod.metadata.name: pod for pod in pods}
        self.lists.append(len(pods))
        self.unread = [found.uid for found in unread]

    def on_change(self, kind: ChangeKind, pod: Pod) -> None:
        self.changes.append((kind, pod.metadata.name))
        if kind == ChangeKind.DELETED:
            self.pods.pop(pod.metadata.name, None)
        else:
            self.pods[pod.metadata.name] = pod

    @property
    def names(self) -> set[str]:
        return set(self.pods)


@asynccontextmanager
async def following(kube: Kube, view: View, **options: Any) -> AsyncIterator[Reflector[Pod]]:
    reflector = Reflector(
        kube, PODS, Pod,
        on_list=view.on_list, on_change=view.on_change,
        **{"on_malformed": lambda name, _text: view.malformed.append(name), **options},
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(reflector.run())
        try:
            await reflector.wait_synced()
            yield reflector
        finally:
            running.cancel()


def open_watches(cluster: Standin) -> tuple[object, ...]:
    return cluster.registry.store.of(POD_RESOURCE).hub.watches


async def create(cluster: Standin, *names: str) -> None:
    for name in names:
        await cluster.registry.create(POD_RESOURCE, a_pod(name), namespace="default")


def delete(cluster: Standin, name: str) -> None:
    cluster.registry.store.remove(POD_RESOURCE, ("default", name))


async def test_a_list_then_each_change(cluster: Standin, kube: Kube) -> None:
    """What was there is listed once; what happens after comes in order."""
    view = View()
    await create(cluster, "p0")
    async with following(kube, view) as reflector:
        await create(cluster, "p1")
        delete(cluster, "p0")
        await until(lambda: len(view.changes) >= 2)

        assert [1] == view.lists
        assert [(ChangeKind.ADDED, "p1"), (ChangeKind.DELETED, "p0")] == view.changes[:2]
        assert {"p1"} == view.names
        await until(lambda: reflector.resource_version == str(cluster.registry.store.revision))


async def test_a_list_of_many_pages_is_one_list(cluster: Standin, kube: Kube) -> None:
    """1,200 pods come in three pages and are told at once."""
    view = View()
    await create(cluster, *(f"p{number}" for number in range(1200)))
    async with following(kube, view):
        assert [1200] == view.lists


async def test_bookmarks_move_the_version_without_a_change(cluster: Standin, kube: Kube) -> None:
    """A quiet selection keeps up with the cluster's revision, so that a later 410 is rare."""
    view = View()
    async with following(kube, view, query=ELSEWHERE) as reflector:
        await until(lambda: len(open_watches(cluster)) == 1)
        await create(cluster, "p0")
        await until(lambda: reflector.resource_version == str(cluster.registry.store.revision))

        assert ([], [0]) == (view.changes, view.lists)


async def test_after_410_a_new_list_replaces_what_was_known(cluster: Standin, kube: Kube) -> None:
    """A pod deleted while the watch could not tell is gone after the relist."""
    view = View()
    await create(cluster, "p0", "p1")
    async with following(kube, view):
        cluster.faults.set(Fault(kind="hold"))
        delete(cluster, "p0")
        cluster.faults.set(Fault(kind="gone"))
        cluster.faults.set(Fault(kind="release"))
        await until(lambda: len(view.lists) >= 2 and view.names == {"p1"})


async def test_a_page_that_is_too_old_makes_the_list_begin_again(cluster: Standin, kube: Kube) -> None:
    """Half a list is told to nobody; the next one is whole."""
    view = View()
    cluster.registry.store.put(POD_RESOURCE, unreadable("bad"))  # comes with the first page, and is told at once
    await create(cluster, *(f"p{number}" for number in range(600)))

    def on_malformed(name: str, _text: str) -> None:
        if not view.malformed:
            cluster.faults.set(Fault(kind="gone"))
        view.malformed.append(name)

    async with following(kube, view, on_malformed=on_malformed):
        assert [600] == view.lists
        assert ["default/bad"] * 2 == view.malformed


async def test_410_before_the_watch_begins_makes_a_new_list(cluster: Standin, kube: Kube) -> None:
    """The refusal may be the answer to the watch itself, without any line."""
    view = View()
    cluster.faults.set(Fault(kind="refuse", verb="watch", code=410, times=1))
    async with following(kube, view):
        await until(lambda: len(view.lists) == 2)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'{"type":"ADDED","object":\n', id="cut short"),
        pytest.param(b'{"type":"SYNCED","object":{}}\n', id="an unknown kind"),
        pytest.param(b'{"type":"ERROR","object":{"code":500,"message":"etcd event without value"}}\n', id="an error"),
        pytest.param(b'{"type":"ERROR","object":7}\n', id="an error that says nothing"),
        pytest.param(b"x" * LONGEST_LINE + b"x\n", id="a line without end"),
    ],
)
async def test_a_line_that_cannot_be_read_makes_a_new_list(cluster: Standin, kube: Kube, line: bytes) -> None:
    """The same line would come again where the watch goes on from the same version: a list leads past it."""
    view = View()
    async with following(kube, view):
        await until(lambda: len(open_watches(cluster)) == 1)
        cluster.registry.store.of(POD_RESOURCE).hub.watches[0].say(line)
        await until(lambda: len(view.lists) == 2)
        await create(cluster, "p0")
        await until(lambda: view.names == {"p0"})


async def test_a_pod_as_big_as_a_pod_can_be_is_seen(cluster: Standin, kube: Kube) -> None:
    """Nobody can blind the watch with 250 KiB of annotations."""
    view = View()
    big = a_pod("big")
    big["metadata"]["annotations"] = {"example.com/note": "\u0001" * 250 * 1024}  # six bytes each in JSON
    async with following(kube, view):
        await until(lambda: len(open_watches(cluster)) == 1)
        await cluster.registry.create(POD_RESOURCE, big, namespace="default")
        await until(lambda: view.names == {"big"})

    assert 1 == len(view.lists)


async def test_an_event_older_than_what_was_seen_makes_a_new_list(cluster: Standin, kube: Kube) -> None:
    """It undoes nothing; whoever sends it counts from an earlier version on, so only a list says what is there."""
    view = View()
    async with following(kube, view) as reflector:
        await create(cluster, "p0")
        await until(lambda: view.names == {"p0"})
        old = {**a_pod("p0", old="yes"), "metadata": {**a_pod("p0")["metadata"], "resourceVersion": "7"}}
        cluster.registry.store.of(POD_RESOURCE).hub.watches[0].say(
            b'{"type":"DELETED","object":%s}\n' % msgspec.json.encode(old)
        )
        await until(lambda: len(view.lists) == 2)

        assert {"p0"} == view.names
        assert str(cluster.registry.store.revision) == reflector.resource_version


async def test_an_etcd_that_was_restored_is_noticed_after_the_interruption(cluster: Standin, kube: Kube) -> None:
    """Its versions are lower than what was seen: a watch from there would be silent until they catch up."""
    view = View()
    await create(cluster, "p0", "p1")
    async with following(kube, view) as reflector:
        cluster.faults.set(Fault(kind="refuse", verb="watch", code=503, times=1))
        delete(cluster, "p1")
        cluster.registry.store.revision -= 1_000_000
        lost = reflector.resource_version
        cluster.faults.set(Fault(kind="end"))
        await until(lambda: len(view.lists) == 2)

        assert {"p0"} == view.names
        assert int(reflector.resource_version) < int(lost)


async def test_an_interruption_alone_is_no_reason_for_a_list(cluster: Standin, kube: Kube) -> None:
    """The watch goes on where it was: a restart of the API server must not make everybody list everything."""
    view = View()
    async with following(kube, view):
        cluster.faults.set(Fault(kind="refuse", verb="watch", code=503, times=2))
        cluster.faults.set(Fault(kind="end"))
        await create(cluster, "p0")
        await until(lambda: view.names == {"p0"})

        assert [0] == view.lists


async def test_a_watch_that_ends_goes_on_where_it_was(cluster: Standin, kube: Kube) -> None:
    """The server closes a watch now and then: no new list, nothing missed, nothing twice."""
    view = View()
    async with following(kube, view):
        for number in range(5):
            cluster.faults.set(Fault(kind="end"))
            await create(cluster, f"p{number}")
        await until(lambda: len(view.names) == 5)
        await create(cluster, "last")
        await until(lambda: "last" in view.names)

        assert 1 == len(view.lists)
        assert [f"p{number}" for number in range(5)] + ["last"] == [name for _kind, name in view.changes]


async def test_a_silent_watch_is_replaced(cluster: Standin, kube: Kube, caplog: pytest.LogCaptureFixture) -> None:
    """A half-open connection says nothing for ever; silence, bookmarks included, opens another watch."""
    caplog.set_level("INFO", "hami_kit")
    view = View()
    async with following(kube, view, silence=0.5):
        await until(lambda: len(open_watches(cluster)) == 1)
        cluster.faults.set(Fault(kind="silence"))
        await create(cluster, "p0")
        await until(lambda: view.names == {"p0"})

    assert "was silent for 0.5 s: opening another" in caplog.text


async def test_bookmarks_count_as_a_sign_of_life(cluster: Standin, kube: Kube) -> None:
    """A watch that only bookmarks come on is not taken for dead."""
    async with following(kube, View(), silence=0.7, query=ELSEWHERE):
        await until(lambda: len(open_watches(cluster)) == 1)
        await create(cluster, "p0")
        opened = open_watches(cluster)
        later = time.monotonic() + 2.0
        await until(lambda: time.monotonic() > later)

        assert opened == open_watches(cluster)


async def test_an_api_server_that_hangs_is_waited_for(cluster: Standin, kube: Kube) -> None:
    """Nothing is answered for a while, then everything is again: the view catches up."""
    view = View()
    async with following(kube, view, silence=0.3):
        cluster.faults.set(Fault(kind="pause"))
        cluster.faults.set(Fault(kind="end"))
        await create(cluster, "p0")
        cluster.faults.set(Fault(kind="resume"))
        await until(lambda: view.names == {"p0"})


async def test_refusals_are_tried_again(cluster: Standin, kube: Kube) -> None:
    """An API server that answers 503 or 429 for a while is asked again with pauses, never given up."""
    view = View()
    cluster.faults.set(Fault(kind="refuse", verb="list", code=503, times=2))
    cluster.faults.set(Fault(kind="refuse", verb="watch", code=429, times=2))
    async with following(kube, view):
        await create(cluster, "p0")
        await until(lambda: view.names == {"p0"})


async def test_waiting_for_a_version_makes_a_quiet_watch_list_again(cluster: Standin, kube: Kube) -> None:
    """A new leader need not wait for the next bookmark to know that its view is new enough."""
    view = View()
    async with following(kube, view) as reflector:
        cluster.faults.set(Fault(kind="hold"))
        await create(cluster, "p0")
        await reflector.wait_passed(str(cluster.registry.store.revision))

        assert {"p0"} == view.names
        assert 2 == len(view.lists)


async def test_a_version_of_another_history_is_passed_by_the_next_list(cluster: Standin, kube: Kube) -> None:
    """Waiting for a number that will not come again for months must not keep a new leader from leading."""
    view = View()
    async with following(kube, view) as reflector:
        await reflector.wait_passed(str(cluster.registry.store.revision + 1_000_000))

        assert 2 == len(view.lists)


async def test_a_change_shows_that_a_version_has_passed(cluster: Standin, kube: Kube) -> None:
    """A new leader waits for one: of a big cluster a second list would take as long as the first."""
    view = View()
    async with following(kube, view) as reflector:
        cluster.registry.ensure_namespace("elsewhere")
        waiting = asyncio.create_task(reflector.wait_passed(str(cluster.registry.store.revision)))
        await create(cluster, "p0")
        await waiting

    assert [0] == view.lists


async def test_what_is_not_kept_is_forgotten_as_it_is_read(cluster: Standin, kube: Kube) -> None:
    """Most pods of a cluster ask for no device: a list of them all would be large."""
    view = View()
    await create(cluster, "p0", "p1", "p2")
    async with following(kube, view, keep=lambda pod: pod.metadata.name != "p1"):
        assert {"p0", "p2"} == view.names


async def test_a_long_list_gives_others_their_turn(cluster: Standin, kube: Kube) -> None:
    """While hundreds of objects that came at once are read, a question waits for a few of them only."""
    await create(cluster, *(f"p{number}" for number in range(4 * SLICE)))
    turns, seen = 0, set[int]()

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(take_turns())
    async with following(kube, View(), keep=lambda _pod: not seen.add(turns)):  # type: ignore[func-returns-value]
        other.cancel()

    assert 4 <= len(seen)


async def test_one_object_that_cannot_be_read_affects_nothing_else(cluster: Standin, kube: Kube) -> None:
    """It is told by name and left out; the others come as ever, in lists and in changes."""
    view = View()
    cluster.registry.store.put(POD_RESOURCE, unreadable("bad"))
    await create(cluster, "p0")
    async with following(kube, view):
        cluster.registry.store.put(POD_RESOURCE, unreadable("worse"))
        await create(cluster, "p1")
        await until(lambda: view.names == {"p0", "p1"})

    assert ["default/bad", "default/worse"] == view.malformed


async def test_an_object_that_cannot_be_read_is_there_until_it_is_deleted(cluster: Standin, kube: Kube) -> None:
    """A list names it, so that nobody takes it for gone; its deletion is told with what can be read of it."""
    view = View()
    cluster.registry.store.put(POD_RESOURCE, unreadable("bad"))
    async with following(kube, view):
        unread = list(view.unread)
        delete(cluster, "bad")
        await until(lambda: len(view.changes) >= 1)

    assert ["uid-bad"] == unread
    assert [(ChangeKind.DELETED, "bad")] == view.changes


async def test_selectors_reach_the_server(cluster: Standin, kube: Kube) -> None:
    """An agent follows its own node's pods only."""
    view = View()
    await create(cluster, "p0")
    async with following(kube, view, query=ELSEWHERE):
        assert [0] == view.lists


def test_pauses_grow_and_end() -> None:
    """The first is short, they double, jitter spreads them, and none is longer than ten seconds."""
    pauses = [pause(failures) for failures in range(20)]

    assert 0.05 <= pauses[0] <= 0.1
    assert 5.0 <= min(pauses[7:])
    assert max(pauses) <= 10.0
