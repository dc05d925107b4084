"""What a storm stands on: the stand-in or a real control plane, with the services, two allocators, and bad networks.

One rule: each allocator reaches the API server through a proxy of its own; everybody else goes straight.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import yaml
from hami_testkit.cluster.extender import from_scheduler_config
from hami_testkit.cluster.proxy import ApiProxy, Passage, api_proxy
from hami_testkit.cluster.scheduler import KubeScheduler
from hami_testkit.real_cluster import Restart, kube_scheduler, restartable_control_plane
from hami_testkit.stack import Plan, Stack, scheduler_config, stack
from msgspec import Struct

ALLOCATORS = ("allocator", "allocator-2")


class Ground(Struct, frozen=True, kw_only=True):
    """Everything that runs but the nodes."""

    url: str
    """The API server, without credentials."""
    system: Stack
    proxies: dict[str, ApiProxy]
    passages: dict[str, list[Passage]]
    restart_api: Restart | None
    """Absent where the API server is not ours."""
    restart_scheduler: Restart


@asynccontextmanager
async def a_ground(folder: Path, *, binaries: Path | None, kubeconfig: Path | None) -> AsyncIterator[Ground]:
    """Run it until the block is left."""
    async with AsyncExitStack() as stack_:
        restart: Restart | None = None
        if binaries is not None:
            plane = await stack_.enter_async_context(restartable_control_plane(binaries, folder))
            kubeconfig, restart = plane.kubeconfig, plane.restart_apiserver
        passages: dict[str, list[Passage]] = {name: [] for name in ALLOCATORS}
        proxies = {}
        for name in ALLOCATORS:
            to = kubeconfig or folder / "kubeconfig"
            proxies[name] = await stack_.enter_async_context(api_proxy(to, listen=passages[name].append))
        ways = {name: proxy.kubeconfig(folder / f"{name}.kubeconfig") for name, proxy in proxies.items()}
        plan = Plan(
            folder=folder, allocators=len(ALLOCATORS), schedules=False, durable=True, kubeconfig=kubeconfig,
            kubeconfigs=ways,
        )  # fmt: skip
        system = await stack_.enter_async_context(stack(plan))
        url = system.at.api
        if kubeconfig is not None:
            url = (await stack_.enter_async_context(api_proxy(kubeconfig))).url
        else:
            restart = _restarts(system)
        scheduler = _scheduler(folder, system, url, binaries=binaries, kubeconfig=kubeconfig)
        yield Ground(
            url=url, system=system, proxies=proxies, passages=passages, restart_api=restart,
            restart_scheduler=await stack_.enter_async_context(scheduler),
        )  # fmt: skip


def _restarts(system: Stack) -> Restart:
    async def restart() -> None:
        await system.kill("standin")
        await system.start("standin")

    return restart


@asynccontextmanager
async def _scheduler(
    folder: Path, system: Stack, url: str, *, binaries: Path | None, kubeconfig: Path | None
) -> AsyncIterator[Restart]:
    config = scheduler_config(system.at.extender)
    if binaries is not None and kubeconfig is not None:
        async with kube_scheduler(binaries / "kube-scheduler", folder, kubeconfig, config["extenders"]) as restart:
            yield restart
        return
    file = folder / "storm-scheduler.yaml"
    file.write_text(yaml.safe_dump(config))
    async with _stand_in(url, file) as restart:
        yield restart


@asynccontextmanager
async def _stand_in(url: str, config: Path) -> AsyncIterator[Restart]:
    name, extender = from_scheduler_config(config)
    async with asyncio.TaskGroup() as tasks:
        lives = [tasks.create_task(KubeScheduler(url, extender, scheduler_name=name).run())]

        async def restart() -> None:
            lives[-1].cancel()
            await asyncio.wait({lives[-1]})
            lives.append(tasks.create_task(KubeScheduler(url, extender, scheduler_name=name).run()))

        yield restart
        lives[-1].cancel()
