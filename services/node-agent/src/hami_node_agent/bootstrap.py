"""How the agent is wired; read top to bottom, it is its architecture."""

import asyncio
import logging
import random
import uuid
from tempfile import NamedTemporaryFile

from hami_kit import bus as buses
from hami_kit import telemetry as telemetries
from hami_kit import web
from hami_kit.bus import BusSettings
from hami_kit.clock import SystemClock
from hami_kit.errors import KubeError, SettingsError
from hami_kit.kube import Kube
from hami_kit.kube.reflector import ChangeKind, Reflector
from hami_kit.settings import load_device_config
from hami_model import annotations, vendors
from hami_model.catalog import Catalog
from hami_model.config import DeviceConfig, Nvidia
from hami_model.objects import Pod
from starlette.applications import Starlette

from hami_node_agent import metrics
from hami_node_agent.agent import Agent, Places
from hami_node_agent.delivery import CDI, STRATEGIES, Delivery
from hami_node_agent.desk import Resource
from hami_node_agent.inventory import Inventory
from hami_node_agent.library import Library
from hami_node_agent.limits import HamiCore, Limiter, hami_core, make_lock_dir
from hami_node_agent.mig.book import Book, BookFile
from hami_node_agent.mig.cutter import Cutter
from hami_node_agent.node_config import NodeConfig
from hami_node_agent.pods import NodePods
from hami_node_agent.probes import NvmlProbe, Probe, probe_of
from hami_node_agent.probes.nvml.instances import Scalpel
from hami_node_agent.probes.nvml.threads import Worker
from hami_node_agent.settings import Settings

log = logging.getLogger(__name__)

GRACE = 0.5
"""Seconds for which pods that are on their way are still served after the agent has said that it leaves."""

READ_TIMEOUT = 1.0
"""Seconds for the one read of a pod in Allocate: the kubelet stands still meanwhile."""

CUT_DEADLINE = 10.0
"""Seconds for one change of a card's instances: the kubelet may stand still meanwhile."""

NO_CDI = (
    "MIG instances are made on demand, and no CDI specification lists them: "
    "write envvar or volume-mounts into DEVICE_LIST_STRATEGY"
)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve the node's cards until told to stop."""
    telemetry = telemetries.setup("hami-node-agent", settings)
    config = load_device_config(settings.device_config)
    catalog = vendors.build(config, ascend=True, iluvatar=True)
    node_config = NodeConfig(config.nvidia or Nvidia(), node=settings.node_name, path=settings.node_config)
    probe = open_probe(settings, node_config)
    cutter = cutter_of(settings, probe)
    inventory = await look(settings, probe, cutter)
    resources = served(catalog, inventory, limiters(settings, config, node_config, inventory), node_config)
    prepare(settings)
    pods = NodePods(settings.node_name, lambda pod: annotations.read_allocation(catalog, pod))
    async with (
        Kube.connect(settings.kubeconfig or None) as kube,
        buses.connect(
            BusSettings.of(settings), name=f"hami-node-agent {settings.node_name}", telemetry=telemetry
        ) as bus,
    ):
        agent = Agent(
            node=settings.node_name,
            name=f"{settings.node_name}-{uuid.uuid4().hex[:8]}",
            places=places(settings),
            resources=resources,
            inventory=inventory,
            pods=pods,
            bus=bus,
            reader=ApiReader(kube, pods),
            telemetry=telemetry,
            clock=SystemClock(),
            jitter=lambda seconds: seconds * random.uniform(0.8, 1.2),  # noqa: S311  spreads calls, keeps no secret
            compare_every=settings.drift_interval,
            cutter=cutter,
        )
        watch = follow(kube, settings.node_name, agent)
        checks: dict[str, web.Check] = {
            "kubelet": lambda: agent.is_registered,
            "pods": lambda: web.Health(watch.synced, {"resourceVersion": watch.resource_version}),
        }
        metrics.register(telemetry.metrics, agent, clock=SystemClock(), legacy=settings.legacy_metrics)
        app = Starlette(routes=web.health_routes(checks, telemetry.metrics))
        async with web.serve(app, settings.health_listen, variable="HAMI_HEALTH_LISTEN") as address:
            log.info("serving %d cards of %s; health on %s", len(inventory.cards), settings.node_name, address)
            await run(agent, watch, stop)
    await asyncio.to_thread(telemetry.close)


async def run(agent: Agent, watch: Reflector[Pod], stop: asyncio.Event, *, grace: float = GRACE) -> None:
    """Follow the node's pods and, once they were listed, serve; both end when told to stop.

    Whoever is on the way to this node by then is served for ``grace`` seconds more: without a plugin he would fail.
    """
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(stop.wait(), name="stop")
        following = tasks.create_task(watch.run(), name="pods")
        listed = tasks.create_task(watch.wait_synced(), name="first list")
        running = [following, listed]
        await asyncio.wait({stopping, listed}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            running.append(tasks.create_task(agent.run(), name="agent"))
            await stopping
            if await agent.presence.leave():
                await asyncio.sleep(grace)
        for task in running:
            task.cancel()


def follow(kube: Kube, node: str, agent: Agent) -> Reflector[Pod]:
    """Return the watch of the node's own pods."""
    return Reflector(
        kube,
        "/api/v1/pods",
        Pod,
        on_list=lambda pods, _version, unread: agent.pods_listed(pods, {found.uid for found in unread}),
        on_change=lambda kind, pod: agent.pod_changed(pod, is_gone=kind is ChangeKind.DELETED),
        on_malformed=lambda _name, why: log.warning("%s", why),
        query={"fieldSelector": f"spec.nodeName={node}"},
    )


class ApiReader:
    """Reads a pod when the watch is behind."""

    def __init__(self, kube: Kube, pods: NodePods) -> None:
        self._kube = kube
        self._pods = pods

    async def read(self, namespace: str, name: str) -> None:
        """Read the pod once, briefly; a pod that cannot be read changes nothing."""
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                self._pods.read(await self._kube.get_pod(namespace, name))
        except (KubeError, TimeoutError) as e:
            log.warning("pod %s/%s could not be read: %s", namespace, name, e or "no answer in time")


def places(settings: Settings) -> Places:
    """Return where things stand on the node."""
    return Places(kubelet=settings.kubelet_dir, home=settings.hook_path / "vgpu", proc=settings.proc_root)


def prepare(settings: Settings) -> None:
    """Make our own folder, and the one that all containers share; where the node forbids that, its runtime makes it."""
    home = places(settings).table.parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=home):
            pass
    except OSError as e:
        raise SettingsError(
            "HAMI_HOOK_PATH",
            f'"{home}" cannot be written to ({e.strerror}); name the folder in which HAMi keeps vgpu/, and mount it',
        ) from e
    try:
        make_lock_dir(settings.lock_dir)
    except OSError as e:
        log.warning("HAMI_LOCK_DIR: %s cannot be made for every user (%s)", settings.lock_dir, e.strerror)


def open_probe(settings: Settings, config: NodeConfig) -> Probe:
    """Return who looks at the cards; a word that nobody knows, or a bad node config, ends the start."""
    try:
        _ = config.rules
    except ValueError as e:
        raise SettingsError("HAMI_NODE_CONFIG", str(e)) from e
    try:
        return probe_of(settings, config, SystemClock())
    except ValueError as e:
        raise SettingsError("HAMI_PROBES", str(e)) from e


def cutter_of(settings: Settings, probe: Probe) -> Cutter | None:
    """Return who makes MIG instances; None for cards that the driver does not know."""
    if not isinstance(probe, NvmlProbe):
        return None
    file = BookFile(places(settings).instances)
    try:
        written = file.read()
    except ValueError as e:
        log.warning("%s", e)
        written = ()
    by_cdi = CDI.intersection(delivery(settings).strategies)
    return Cutter(
        cards=probe,
        knife=Scalpel(),
        book=Book(written, on_change=file.write),
        worker=Worker(CUT_DEADLINE),
        clock=SystemClock(),
        refuses=NO_CDI if by_cdi else "",
    )


async def look(settings: Settings, probe: Probe, cutter: Cutter | None) -> Inventory:
    """Return the node's cards; a probe that cannot see them ends the start with a sentence."""
    try:
        library = Library(settings.hook_path / "vgpu", settings.library_dir)
        # cards that a file describes are limited by nobody, unless somebody says with what
        is_limited = settings.library_dir is not None or not settings.probes.startswith("sim:")
        complaint = library.complaint if is_limited else _nothing
        inventory = Inventory(probe, complaint=complaint, uncut=cutter.complaint if cutter is not None else None)
        await inventory.look()
    except ValueError as e:
        raise SettingsError("HAMI_PROBES", str(e)) from e
    return inventory


def _nothing() -> str:
    return ""


def limiters(
    settings: Settings, config: DeviceConfig, node_config: NodeConfig, inventory: Inventory
) -> dict[str, Limiter]:
    """Return what containers are given, for each vendor that this agent serves."""
    nvidia = config.nvidia
    if nvidia is None:
        return {}

    chosen = delivery(settings)

    def core() -> HamiCore:
        rules = node_config.last
        return HamiCore(
            hook_path=settings.hook_path,
            lock_dir=settings.lock_dir,
            memory_scaling=rules.memory_scaling,
            log_level=rules.log_level,
            core_limit_off=nvidia.disable_core_limit,
            delivery=chosen,
            numbers=inventory.numbers,
        )

    return {"NVIDIA": hami_core(core)}


def delivery(settings: Settings) -> Delivery:
    """Return how cards reach containers; a word that nobody knows ends the start."""
    words = tuple(word.strip() for word in settings.device_list_strategy.split(",") if word.strip())
    wrong = next((word for word in words if word not in STRATEGIES), None)
    if wrong is not None or not words:
        raise SettingsError(
            "DEVICE_LIST_STRATEGY", f'"{wrong or settings.device_list_strategy}" is none; write {", ".join(STRATEGIES)}'
        )
    extras = {"GDRCOPY": settings.gdrcopy, "GDS": settings.gds, "MOFED": settings.mofed}
    return Delivery(
        strategies=tuple(strategy for strategy in STRATEGIES if strategy in words),
        by_index=settings.device_id_strategy == "index",
        device_nodes=settings.pass_device_specs,
        dev_root=settings.dev_root,
        extras=tuple(name for name, is_wanted in extras.items() if is_wanted),
        cdi_kind=settings.cdi_kind,
        annotation_prefix=settings.cdi_annotation_prefix,
    )


def served(
    catalog: Catalog, inventory: Inventory, by_vendor: dict[str, Limiter], node_config: NodeConfig
) -> list[Resource]:
    """Return what each of the node's vendors is served as; a vendor that we cannot serve has a plugin of its own."""
    strangers = sorted(set(inventory.vendors) - by_vendor.keys())
    if strangers:
        raise SettingsError(
            "HAMI_PROBES",
            f"the cards of {', '.join(strangers)} are not this agent's to serve: leave them to their vendor's own "
            f"device plugin, and name only cards of {', '.join(by_vendor) or 'no vendor'}",
        )
    return [
        Resource(
            name=catalog.by_word(word).resources.count,
            vendor=word,
            limiter=by_vendor[word],
            tells_numa=lambda: node_config.last.tells_numa,
        )
        for word in inventory.vendors or sorted(by_vendor)  # a node whose cards are still to come
    ]
