"""One simulated node: admits its pods one after another, runs nothing, and reports as if it did.

One rule: admission is serial. While a plugin's Allocate hangs, no other pod of the node starts, stops or reports; that
is how the real kubelet behaves, and what the node-agent must live with.

A pod runs until it is deleted, or for the seconds in its annotation ``standin.hami.io/run-seconds`` (exit code 0, or
that in ``standin.hami.io/exit-code``). What a container was given stands in ``<root>/containers/<uid>_<container>.json``.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from hami_kit.kubelet.deviceplugin_v1beta1_pb2_grpc import add_RegistrationServicer_to_server
from hami_kit.kubelet.podresources_v1_pb2_grpc import add_PodResourcesListerServicer_to_server

from hami_testkit.cluster.kubelet import status
from hami_testkit.cluster.kubelet.client import ApiClient, ApiError, Json
from hami_testkit.cluster.kubelet.devices import CHECKPOINT, AdmissionError, DeviceManager, Response
from hami_testkit.cluster.kubelet.sockets import PodResources, Registration

log = logging.getLogger(__name__)

RUN_SECONDS = "standin.hami.io/run-seconds"
EXIT_CODE = "standin.hami.io/exit-code"
SOCKET = "kubelet.sock"


class Kubelet:
    """The kubelet of ``node``; its folders stand under ``root``: a short path, since sockets' end at 108 bytes."""

    def __init__(self, api: ApiClient, node: str, root: Path) -> None:
        self.node = node
        self.root = root
        self.plugins = root / "device-plugins"
        self._api = api
        self._manager: DeviceManager
        self._pods: dict[str, Json] = {}
        self._admitted: dict[str, Json] = {}
        self._rejected: dict[str, Json] = {}
        self._in_admission: Json | None = None
        self._given: dict[tuple[str, str, str], Response] = {}
        self._work: asyncio.Queue[str] = asyncio.Queue()
        self._status_due = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._servers: list[grpc.aio.Server] = []

    # Starting and stopping

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Kubelet"]:
        """Run the kubelet for the length of a block."""
        await self.start()
        try:
            yield self
        finally:
            await self.stop()

    async def start(self) -> None:
        """Open the sockets, load the checkpoint, follow the node's pods."""
        for folder in (self.plugins, self.root / "pod-resources", self.root / "containers"):
            folder.mkdir(parents=True, exist_ok=True)
        self._wipe_sockets()
        self._manager = DeviceManager(self.plugins)
        registration = Registration(self.plugins, self._manager, self._status_due.set, self._spawn)
        await self._serve(self.plugins / SOCKET, lambda s: add_RegistrationServicer_to_server(registration, s))
        resources = PodResources(self._manager, self._shown, self._known)
        await self._serve(
            self.root / "pod-resources" / SOCKET, lambda s: add_PodResourcesListerServicer_to_server(resources, s)
        )
        self._spawn(self._follow())
        self._spawn(self._main_loop())
        self._spawn(self._report_node())

    async def stop(self) -> None:
        """Close everything; pods stay as they are in the API."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers:
            await server.stop(grace=None)
        self._servers.clear()
        for folder in (self.plugins, self.root / "pod-resources"):
            (folder / SOCKET).unlink(missing_ok=True)

    async def restart(self, *, lose_checkpoint: bool = False) -> None:
        """Stop and start again, as a real one does: every socket in the folder goes, plugins must register anew."""
        await self.stop()
        if lose_checkpoint:
            (self.plugins / CHECKPOINT).unlink(missing_ok=True)
        self._pods, self._admitted, self._in_admission = {}, {}, None
        self._work = asyncio.Queue()
        await self.start()

    def _wipe_sockets(self) -> None:
        for socket in self.plugins.glob("*.sock"):
            socket.unlink()

    async def _serve(self, socket: Path, add: Any) -> None:
        server = grpc.aio.server()
        add(server)
        socket.unlink(missing_ok=True)
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        self._servers.append(server)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # What others see

    def given(self, namespace: str, pod: str, container: str) -> Response | None:
        """Return what a container was given (envs, mounts, devices, annotations), or None before its admission."""
        return self._given.get((namespace, pod, container))

    def _shown(self) -> list[Json]:
        active = [p for p in self._admitted.values() if not status.has_ended(p)]
        return [*active, self._in_admission] if self._in_admission else active

    def _known(self) -> list[Json]:
        return [*self._shown(), *self._rejected.values()]

    # Following the API

    async def _follow(self) -> None:
        async for kind, pod in self._api.pods_of(self.node):
            if kind == "LISTED":
                for uid in set(self._pods) - set(pod["uids"]):
                    self._gone(uid)
                continue
            uid = pod["metadata"]["uid"]
            if kind == "DELETED":
                self._gone(uid)
            else:
                self._seen(uid, pod)

    def _seen(self, uid: str, pod: Json) -> None:
        new = uid not in self._pods
        self._pods[uid] = pod
        if status.has_ended(pod):
            self._rejected.pop(uid, None)
        was_admitted = new and (pod["status"].get("startTime") or status.has_ended(pod))
        if uid in self._admitted or was_admitted:
            self._admitted[uid] = pod
        if new or pod["metadata"].get("deletionTimestamp"):
            self._work.put_nowait(uid)

    def _gone(self, uid: str) -> None:
        for books in (self._pods, self._admitted, self._rejected):
            books.pop(uid, None)

    # The main loop

    async def _main_loop(self) -> None:
        while True:
            uid = await self._work.get()
            pod = self._pods.get(uid)
            if pod is None:
                continue
            with suppress(ApiError):
                if uid not in self._admitted:
                    await self._admit(uid, pod)
                if self._pods.get(uid, pod)["metadata"].get("deletionTimestamp"):
                    await self._terminate(uid, pod)

    async def _admit(self, uid: str, pod: Json) -> None:
        self._manager.forget_ended(p["metadata"]["uid"] for p in self._shown())
        self._in_admission = pod
        try:
            for container, keeps in status.containers(pod):
                wanted = status.wanted(container)
                given = await self._manager.allocate(uid, container["name"], wanted, keeps=keeps)
                self._keep(pod, container["name"], given)
        except AdmissionError as e:
            self._rejected[uid] = pod
            self._in_admission = None
            await self._set_status(pod, status.rejected(str(e)))
            return
        self._admitted[uid] = self._pods.get(uid, pod)
        self._in_admission = None
        await self._set_status(pod, status.running(pod, _now()))
        seconds = pod["metadata"].get("annotations", {}).get(RUN_SECONDS)
        if seconds is not None:
            self._spawn(self._end_later(uid, pod, float(seconds)))

    def _keep(self, pod: Json, container: str, given: Response) -> None:
        meta = pod["metadata"]
        self._given[meta["namespace"], meta["name"], container] = given
        file = self.root / "containers" / f"{meta['uid']}_{container}.json"
        file.write_text(json.dumps(given, indent=1))

    async def _end_later(self, uid: str, pod: Json, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if uid in self._pods:
            code = int(pod["metadata"].get("annotations", {}).get(EXIT_CODE, "0"))
            with suppress(ApiError):
                await self._set_status(pod, status.ended(self._pods[uid], _now(), code))

    async def _terminate(self, uid: str, pod: Json) -> None:
        """End the containers, then remove the object, as the kubelet does after the grace period."""
        self._admitted.pop(uid, None)
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        await self._api.call("DELETE", path, body)

    async def _set_status(self, pod: Json, new: Json) -> None:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
        await self._api.merge(path, {"metadata": {"uid": meta["uid"]}, "status": new})

    # The node's status

    async def _report_node(self) -> None:
        while True:
            await self._status_due.wait()
            self._status_due.clear()
            counts = self._manager.status()
            capacity = {resource: str(all_of_them) for resource, (all_of_them, _) in counts.items()}
            allocatable = {resource: str(healthy) for resource, (_, healthy) in counts.items()}
            try:
                body = {"status": {"capacity": capacity, "allocatable": allocatable}}
                await self._api.merge(f"/api/v1/nodes/{self.node}/status", body)
            except (ApiError, OSError) as e:
                log.warning("the status of node %s could not be written, trying again: %s", self.node, e)
                await asyncio.sleep(0.5)
                self._status_due.set()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
