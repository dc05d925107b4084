"""Where plugins come to register, and what the kubelet learns from them until they are gone."""

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp
from hami_kit.kubelet.deviceplugin_v1beta1_pb2_grpc import RegistrationServicer

from hami_testkit.cluster.kubelet.devices import DeviceManager
from hami_testkit.cluster.kubelet.endpoint import PluginEndpoint, greeted, in_go_words

log = logging.getLogger(__name__)

VERSION = "v1beta1"
_EXTENDED = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


class Registration(RegistrationServicer):
    """``device-plugins/kubelet.sock``: it calls the plugin back before it answers."""

    def __init__(
        self,
        folder: Path,
        manager: DeviceManager,
        *,
        tasks: asyncio.TaskGroup,
        changed: Callable[[], None],
        plugin_grace: float,
    ) -> None:
        self._folder = folder
        self._manager = manager
        self._tasks = tasks
        self._changed = changed
        self._grace = plugin_grace

    async def Register(self, request: dp.RegisterRequest, context: Any) -> dp.Empty:  # noqa: N802 - the protocol's name
        """Take a plugin in, in place of one that served the same resource."""
        if request.version != VERSION:
            why = f'requested API version "{request.version}" is not supported by kubelet.'
            await context.abort(grpc.StatusCode.UNKNOWN, f'{why} Supported version is ["{VERSION}"]')
        if not _EXTENDED.fullmatch(request.resource_name):
            await context.abort(grpc.StatusCode.UNKNOWN, f'the ResourceName "{request.resource_name}" is invalid')
        try:
            endpoint = await greeted(self._folder / request.endpoint, request.resource_name)
        except grpc.aio.AioRpcError as error:
            await context.abort(
                grpc.StatusCode.UNKNOWN, f"failed to dial device plugin with socketPath: {in_go_words(error)}"
            )
        except TimeoutError:
            await context.abort(grpc.StatusCode.UNKNOWN, "failed to dial device plugin: it told no options in time")
        replaced = self._manager.attach(request.resource_name, endpoint)
        self._tasks.create_task(self._follow(endpoint), name=f"plugin {request.resource_name}")
        if isinstance(replaced, PluginEndpoint):
            await replaced.close()
        return dp.Empty()

    async def _follow(self, endpoint: PluginEndpoint) -> None:
        resource = endpoint.resource

        def listed(devices: Any) -> None:
            if self._manager.serves(resource, endpoint):
                self._manager.set_devices(resource, devices)
                self._changed()

        try:
            why = await endpoint.watch(listed)
        finally:
            await endpoint.close()
        if not self._manager.serves(resource, endpoint):
            return
        log.info("the plugin of %s is gone: %s", resource, why)
        self._manager.detach(resource)
        self._changed()
        await asyncio.sleep(self._grace)
        if self._manager.serves(resource, endpoint):
            self._manager.drop(resource)
            self._changed()
