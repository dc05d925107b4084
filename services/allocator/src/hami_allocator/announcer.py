"""Telling the outside: CloudEvents through the bus' outbox, Kubernetes Events through a bounded queue, best effort.

One rule: telling never holds up deciding, and is never needed for it. What does not fit is counted and dropped.
Kubernetes Events wait for a pause between decisions: in a burst of pods the API server and we have better to do.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

from hami_kit.bus import Bus
from hami_kit.clock import Clock
from hami_kit.errors import BoundaryError
from hami_kit.kube import Kube
from hami_kit.telemetry import Metrics
from prometheus_client import Counter

from hami_allocator.facts import Fact, PodNews, cloud_event

QUEUE = 2000
PATIENCE = 1.0
"""Seconds that one Kubernetes Event waits at most for a pause; none once the queue is half full."""
PAUSE = 0.1
"""Seconds without a decision that make a pause."""
SAID_FOR = 300.0
"""Seconds in which the same news of the same pod is not repeated."""
SAID_MOST = 10_000


class Announcer:
    """Tells; ``run`` empties the queue of what people read. ``is_busy(s)``: a decision was asked for in the last s."""

    def __init__(  # noqa: PLR0913 - named options
        self,
        *,
        kube: Kube,
        bus: Bus,
        clock: Clock,
        identity: str,
        component: str,
        metrics: Metrics,
        is_busy: Callable[[float], bool] = lambda _seconds: False,
    ) -> None:
        self._kube = kube
        self._bus = bus
        self._clock = clock
        self._identity = identity
        self._component = component
        self._is_busy = is_busy
        self._number = 0
        self._news: deque[PodNews] = deque(maxlen=QUEUE)
        self._said: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._arrived = asyncio.Event()
        self._dropped = Counter("hami_allocator_untold", "Kubernetes Events that were dropped untold", registry=metrics)
        self._told = Counter("hami_allocator_facts", "Facts told, by kind", ["kind"], registry=metrics)

    def tell(self, fact: Fact) -> None:
        """Tell integrations: into the bus' outbox."""
        self._told.labels(fact.kind).inc()
        self._number += 1
        self._bus.emit(cloud_event(fact, number=self._number, source=self._identity, now=self._clock.now()))

    def news(self, news: PodNews) -> None:
        """Tell people who look at the pod, soon."""
        if len(self._news) == QUEUE:
            self._dropped.inc()
        self._news.append(news)
        self._arrived.set()

    async def run(self) -> None:
        """Post the news that come in, for ever."""
        while True:
            while self._news:
                await self._wait_pause()
                await self._post(self._news.popleft())
            self._arrived.clear()
            await self._arrived.wait()

    async def _wait_pause(self) -> None:
        """Return in a pause between decisions, or when it has been waited for long enough."""
        left = PATIENCE
        while left > 0 and len(self._news) < QUEUE // 2 and self._is_busy(PAUSE):
            await asyncio.sleep(PAUSE)
            left -= PAUSE

    async def _post(self, news: PodNews) -> None:
        for message in news.write():
            if not self._is_repeated((news.pod.uid, news.reason, message)):
                await self._create(news, message)

    async def _create(self, news: PodNews, message: str) -> None:
        kind = "Warning" if news.warning else "Normal"
        try:
            await self._kube.create_event(
                news.pod, type=kind, reason=news.reason, message=message, component=self._component
            )
        except BoundaryError:
            self._dropped.inc()

    def _is_repeated(self, said: tuple[str, str, str]) -> bool:
        now = self._clock.monotonic()
        last = self._said.get(said)
        if last is not None and now - last < SAID_FOR:
            return True
        self._said[said] = now
        self._said.move_to_end(said)
        while len(self._said) > SAID_MOST:
            self._said.popitem(last=False)
        return False
