"""Switches that no real API server has: what a test turns to see how a client bears it.

One rule: a switch changes when and whether an answer arrives, never what the store holds. The stand-in has them; the
proxy in front of a real server has the same.

``delay``    the request waits before it is looked at
``drop``     the request is carried out, the connection is cut instead of answering
``refuse``   the request is answered with an error and not carried out
``pause``    nothing is answered any more, watches included, until ``resume``
``gone``     open watches end with 410; older revisions and continue tokens are too old
``hold``     watches fall behind (lists stay fresh) until ``release``
``silence``  watches open now never say anything again; new ones work
``end``      open watches are closed
"""

from __future__ import annotations

import asyncio
from fnmatch import fnmatchcase
from typing import Literal

from msgspec import Struct, structs

from hami_testkit.cluster.resources import RESOURCES
from hami_testkit.cluster.status import REASONS, ApiError, bad_request
from hami_testkit.cluster.store import Collection, Store

Kind = Literal["delay", "drop", "refuse", "pause", "resume", "gone", "hold", "release", "silence", "end"]


class Fault(Struct, kw_only=True, forbid_unknown_fields=True):
    """One switch; ``verb``, ``resource`` (``pods``, ``pods/binding``) and ``name`` are patterns of requests."""

    kind: Kind
    verb: str = "*"
    resource: str = "*"
    name: str = "*"
    seconds: float = 0
    code: int = 503
    times: int | None = None
    """How many requests it meets; None is all of them."""


class Call(Struct, frozen=True):
    """What a request is about, as the switches see it."""

    verb: str
    resource: str
    name: str


class Switches:
    """The switches that requests meet; what watches do is turned by ``turn_watches`` and ``release_watches``."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._running = asyncio.Event()
        self._running.set()

    @property
    def active(self) -> tuple[Fault, ...]:
        """Return the switches that still meet requests."""
        return tuple(self._faults)

    def set(self, fault: Fault) -> None:
        """Turn one switch."""
        match fault.kind:
            case "pause":
                self._running.clear()
            case "resume":
                self._running.set()
            case "delay" | "drop" | "refuse":
                self._faults.append(structs.replace(fault))
            case _:
                self.turn_watches(fault)

    def turn_back(self, kind: Kind) -> None:
        """Turn back what delays, drops or refuses requests, those that it has not met yet included."""
        self._faults = [fault for fault in self._faults if fault.kind != kind]

    def clear(self) -> None:
        """Turn everything back: requests are answered, watches catch up."""
        self._faults.clear()
        self._running.set()
        self.release_watches()

    def turn_watches(self, fault: Fault) -> None:
        """Turn a switch of watches."""
        raise NotImplementedError

    def release_watches(self) -> None:
        """Let all watches catch up."""
        raise NotImplementedError

    async def running(self) -> None:
        """Wait while the stand-in is paused."""
        await self._running.wait()

    async def before(self, call: Call) -> None:
        """Let a request meet the switches that act before it is carried out."""
        await self.running()
        if delay := self._meet("delay", call):
            await asyncio.sleep(delay.seconds)
        if refusal := self._meet("refuse", call):
            reason = REASONS.get(refusal.code, "")
            raise ApiError(refusal.code, "refused by a fault switch of the stand-in", reason=reason)

    def drops(self, call: Call) -> bool:
        """Say whether the answer to this request, now carried out, is to be lost."""
        return self._meet("drop", call) is not None

    def _meet(self, kind: Kind, call: Call) -> Fault | None:
        for fault in self._faults:
            if fault.kind == kind and _is_about(fault, call):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                return fault
        return None


class Faults(Switches):
    """The switches of one stand-in."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def release_watches(self) -> None:
        """Let all watches catch up."""
        for collection in self._store.collections:
            collection.hub.release()

    def turn_watches(self, fault: Fault) -> None:
        """Turn a switch of the watches of the resources that the pattern meets."""
        collections = [self._store.of(resource) for resource in RESOURCES if fnmatchcase(resource.name, fault.resource)]
        if not collections:
            raise bad_request(f"resource {fault.resource!r} is not served; name one such as pods, or leave it out")
        for collection in collections:
            self._turn_watch(fault.kind, collection)

    def _turn_watch(self, kind: Kind, collection: Collection) -> None:
        match kind:
            case "gone":
                collection.compact(self._store.revision)
                self._store.forget_pages()
                collection.hub.expire(self._store.revision)
            case "hold":
                collection.hub.hold()
            case "release":
                collection.hub.release()
            case "silence":
                collection.hub.silence()
            case _:
                collection.hub.end()


def _is_about(fault: Fault, call: Call) -> bool:
    return (
        fnmatchcase(call.verb, fault.verb)
        and fnmatchcase(call.resource, fault.resource)
        and fnmatchcase(call.name, fault.name)
    )
