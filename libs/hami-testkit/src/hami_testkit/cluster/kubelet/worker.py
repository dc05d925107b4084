"""The life of one admitted pod: its containers start, run as their script says, end, and are reported.

One rule: a worker never holds up the kubelet's main loop, nor another pod; what the container runtime knows
(``PodRun``) outlives it, as containers outlive a restart of the kubelet.
"""

import asyncio
import contextlib
import itertools
import logging
from pathlib import Path

import aiohttp
from msgspec import Struct

from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelet import status
from hami_testkit.cluster.kubelet.devices import AllocateFailed, DeviceManager
from hami_testkit.cluster.kubelet.endpoint import PluginEndpoint
from hami_testkit.cluster.kubelet.given import Gifts, given
from hami_testkit.cluster.kubelet.options import Options
from hami_testkit.cluster.kubelet.pod import Role, containers, path_of, script_of, stop_seconds, uid_of
from hami_testkit.cluster.kubelet.status import ContainerRun, Ended, Running
from hami_testkit.cluster.status import ApiError, Json

log = logging.getLogger(__name__)

WRITE_AGAIN = 0.2
"""Seconds before a status that could not be written is tried again."""
LONGEST_PAUSE = 300.0
KILLED = 137


class PodRun(Struct, kw_only=True):
    """A pod's containers as the container runtime knows them."""

    pod: Json
    runs: list[ContainerRun]
    started: str

    @classmethod
    def of(cls, pod: Json) -> "PodRun":
        """Return a pod of which nothing runs yet."""
        runs = [ContainerRun(spec=c, role=role, script=script_of(pod, c, role)) for c, role in containers(pod)]
        return cls(pod=pod, runs=runs, started=status.now())


class Surroundings(Struct, frozen=True, kw_only=True):
    """What a worker needs of its kubelet."""

    api: ApiClient
    manager: DeviceManager
    gifts: Gifts
    options: Options
    pods_folder: Path


async def write_status(api: ApiClient, pod: Json, new: Json) -> None:
    """Write a pod's status, again and again while the API server is away; a pod that is gone needs none."""
    body = {"metadata": {"uid": uid_of(pod)}, "status": new}
    while True:
        try:
            await api.patch(f"{path_of(pod)}/status", body)
        except ApiError as refusal:
            if refusal.code < 500 and refusal.code != 429:
                log.info("the status of pod %s was refused: %s", path_of(pod), refusal)
                return
        except (aiohttp.ClientError, OSError) as error:
            log.info("the status of pod %s could not be written, trying again: %s", path_of(pod), error)
        else:
            return
        await asyncio.sleep(WRITE_AGAIN)


class PodWorker:
    """Runs one pod."""

    def __init__(self, run: PodRun, around: Surroundings) -> None:
        self.run = run
        self._around = around
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._killed = asyncio.Event()
        self._runs_now = {r.name: asyncio.Event() for r in run.runs}

    @property
    def folder(self) -> Path:
        """Return the folder that exists as long as the pod has containers."""
        return self._around.pods_folder / uid_of(self.run.pod)

    def stop(self) -> None:
        """Tell the containers to stop: the pod is deleted, or gone already."""
        self._stop.set()

    def kill(self, container: str) -> None:
        """Let a container crash."""
        for run in self.run.runs:
            if run.name == container and run.is_running:
                run.kill = True
                self._killed.set()

    async def live(self) -> None:
        """Run the containers to their end, or until told to stop; their last status is not written here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        async with asyncio.TaskGroup() as tasks:
            work = {
                tasks.create_task(self._containers(), name="containers"),
                tasks.create_task(self._stop.wait(), name="told to stop"),
            }
            reporter = tasks.create_task(self._report_changes(), name="reporter")
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in (*work, reporter):
                task.cancel()
        if self._stop.is_set() and any(r.is_running for r in self.run.runs):
            await asyncio.sleep(stop_seconds(self.run.pod))
        for run in self.run.runs:
            if run.is_running:
                run.end(0)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    async def report(self, *, over: bool) -> None:
        """Write the status as it is now."""
        pod = self.run.pod
        new = status.of_pod(pod, self.run.runs, started=self.run.started, over=over)
        await write_status(self._around.api, pod, new)

    async def wait_stop(self) -> None:
        """Wait until the pod is to go."""
        await self._stop.wait()

    async def _report_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.report(over=False)

    # Containers

    async def _containers(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            sidecars = []
            for run in self.run.runs:
                if run.role is Role.SIDECAR:
                    sidecars.append(tasks.create_task(self._keep(run), name=run.name))
                    await self._runs_now[run.name].wait()
                elif run.role is Role.INIT and not await self._initialise(run):
                    break
            else:
                mains = [tasks.create_task(self._keep(r), name=r.name) for r in self.run.runs if r.role is Role.MAIN]
                await asyncio.wait(mains)
            for task in sidecars:
                task.cancel()

    async def _initialise(self, run: ContainerRun) -> bool:
        """Run an ordinary init container, again after a failure where the pod's restartPolicy wants that."""
        if isinstance(run.state, Ended) and not run.state.exit_code:
            return True
        await self._keep(run)
        return isinstance(run.state, Ended) and not run.state.exit_code

    async def _keep(self, run: ContainerRun) -> None:
        """Keep a container running as the pod's restartPolicy says."""
        while True:
            if not isinstance(run.state, Ended):
                if not run.is_running:
                    await self._start(run)
                self._runs_now[run.name].set()
                run.end(await self._exit_code(run))
            if not self._is_started_again(run):
                return
            pause = self._pause(run)
            run.wait("CrashLoopBackOff" if pause else "ContainerCreating")
            run.restarts += 1
            self._changed.set()
            await asyncio.sleep(pause)

    def _is_started_again(self, run: ContainerRun) -> bool:
        code = run.state.exit_code if isinstance(run.state, Ended) else 0
        if run.script.final and code != KILLED:
            return False
        if run.role is Role.SIDECAR:
            return True
        policy = self.run.pod["spec"].get("restartPolicy", "Always")
        if policy == "Never" or (run.role is Role.INIT and not code):
            return False
        return policy == "Always" or bool(code)

    def _pause(self, run: ContainerRun) -> float:
        """Return the back-off: the first restart comes at once."""
        if not run.restarts:
            return 0.0
        return min(self._around.options.restart_pause * 2.0 ** (run.restarts - 1), LONGEST_PAUSE)

    async def _exit_code(self, run: ContainerRun) -> int:
        """Wait until a container ends by itself, or is killed."""
        clock = asyncio.get_running_loop().time
        began = run.state.began if isinstance(run.state, Running) else clock()
        ends = None if run.script.seconds is None else began + run.script.seconds
        while not run.kill:
            self._killed.clear()
            try:
                async with asyncio.timeout_at(ends):
                    await self._killed.wait()
            except TimeoutError:
                return run.script.exit_code
        run.kill = False
        return KILLED

    async def _start(self, run: ContainerRun) -> None:
        for attempt in itertools.count():
            why = await self._prepare(run)
            if not why:
                break
            run.wait("CreateContainerConfigError", why)
            self._changed.set()
            pauses = self._around.options.prestart_pauses
            await asyncio.sleep(pauses[min(attempt, len(pauses) - 1)])
        manager, uid = self._around.manager, uid_of(self.run.pod)
        gift = given(self.run.pod, run.spec, manager.responses(uid, run.name), manager.of_container(uid, run.name))
        self._around.gifts.keep(gift)
        run.start(asyncio.get_running_loop().time())
        self._changed.set()

    async def _prepare(self, run: ContainerRun) -> str:
        """Let plugins prepare the start; return why it cannot be, empty for success."""
        manager, uid = self._around.manager, uid_of(self.run.pod)
        if run.restarts and not manager.of_container(uid, run.name):
            try:  # the checkpoint was lost: the real kubelet asks the plugin again from here, beside its main loop
                await manager.allocate(uid, run.spec, run.role)
            except AllocateFailed as failure:
                return str(failure)
        for resource, ids in manager.of_container(uid, run.name).items():
            endpoint = manager.endpoint(resource)
            if isinstance(endpoint, PluginEndpoint) and endpoint.prepares:
                deadline = self._around.options.prestart_deadline
                if why := await endpoint.prepare(ids, deadline=deadline):
                    return why
        return ""
