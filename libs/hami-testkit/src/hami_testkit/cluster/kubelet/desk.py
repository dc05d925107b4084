"""What the kubelet's main loop does with each change of a pod.

One rule: one change after another, and nothing here waits for the API server: only for plugins.
"""

import asyncio

import aiohttp

from hami_testkit.cluster.client import Informer
from hami_testkit.cluster.kubelet import status
from hami_testkit.cluster.kubelet.books import PodBooks, Stage
from hami_testkit.cluster.kubelet.devices import AllocateFailed
from hami_testkit.cluster.kubelet.pod import containers, has_ended, is_deleted, path_of, uid_of
from hami_testkit.cluster.kubelet.worker import WRITE_AGAIN, PodRun, PodWorker, Surroundings, write_status
from hami_testkit.cluster.status import ApiError, Json

UNEXPECTED = "UnexpectedAdmissionError"


class Desk:
    """What the main loop does with each change of a pod, for one life of the kubelet's process."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        books: PodBooks,
        around: Surroundings,
        runtime: dict[str, PodRun],
        workers: dict[str, PodWorker],
    ) -> None:
        self._tasks = tasks
        self._books = books
        self._around = around
        self._runtime = runtime
        self._workers = workers
        workers.clear()

    async def handle(self, old: Json | None, new: Json | None) -> None:
        """Admit a new pod, stop a deleted one, forget one that is gone."""
        if new is None:
            if old is not None:
                self._gone(uid_of(old))
        elif old is None:
            await self._seen(new)
        else:
            self._books.renew(new)
        if new is not None and is_deleted(new) and (worker := self._workers.get(uid_of(new))):
            worker.stop()

    async def take_leave_of_lost(self, informer: Informer) -> None:
        """Stop the containers of pods that went while the kubelet was away."""
        await informer.synced.wait()
        for uid in [uid for uid in self._runtime if uid not in informer.objects]:
            self._start(self._runtime[uid])
            self._gone(uid)

    async def _seen(self, pod: Json) -> None:
        uid = uid_of(pod)
        if has_ended(pod):
            self._books.put(pod, Stage.OVER)
        elif uid in self._runtime:
            self._books.put(pod, Stage.ADMITTED)
            self._start(self._runtime[uid])
        else:
            await self._admit(pod)

    async def _admit(self, pod: Json) -> None:
        self._books.put(pod, Stage.ADMITTING)
        try:
            for container, role in containers(pod):
                await self._around.manager.allocate(uid_of(pod), container, role)
        except AllocateFailed as failure:
            self._books.put(pod, Stage.REJECTED)
            why = f"Allocate failed due to {failure}, which is unexpected"
            self._tasks.create_task(write_status(self._around.api, pod, status.rejected(UNEXPECTED, why)))
            return
        self._books.put(pod, Stage.ADMITTED)
        self._runtime[uid_of(pod)] = run = PodRun.of(pod)
        self._start(run)

    def _gone(self, uid: str) -> None:
        self._books.remove(uid)
        self._around.gifts.forget(uid)
        if worker := self._workers.get(uid):
            worker.stop()

    def _start(self, run: PodRun) -> None:
        uid = uid_of(run.pod)
        self._workers[uid] = worker = PodWorker(run, self._around)
        self._tasks.create_task(self._live(uid, worker), name=f"pod {path_of(run.pod)}")

    async def _live(self, uid: str, worker: PodWorker) -> None:
        await worker.live()
        if self._books.knows(uid):
            self._books.put(worker.run.pod, Stage.OVER)
        await worker.report(over=True)
        del self._runtime[uid]
        await worker.wait_stop()
        await self._remove(worker.run.pod)
        self._workers.pop(uid, None)

    async def _remove(self, pod: Json) -> None:
        """Take the object away, as the kubelet does when a deleted pod has no containers left."""
        wanted: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        wanted["preconditions"] = {"uid": uid_of(pod)}
        while True:
            try:
                await self._around.api.delete(path_of(pod), wanted)
            except ApiError as refusal:
                if refusal.code < 500 and refusal.code != 429:
                    return
            except (aiohttp.ClientError, OSError):
                pass
            else:
                return
            await asyncio.sleep(WRITE_AGAIN)
