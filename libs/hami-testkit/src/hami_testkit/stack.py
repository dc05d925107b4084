"""Every part of the system as processes on this machine, wired as a chart would wire them.

One rule: services are started by the console commands and the environment that users have; nothing reaches into them.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from hami_model import config, vendors
from msgspec import Struct, structs

from hami_testkit.processes import BIN, Processes, Running, Spec, free_port, processes

READY_DEADLINE = 45.0
"""Seconds for one process to get ready on a busy two-core machine."""

NATS_CONFIG = """\
listen: "127.0.0.1:{port}"
max_payload: 8388608
jetstream {{ store_dir: "{folder}/jetstream" }}
"""


class Agent(Struct, frozen=True, kw_only=True):
    """A node-agent to run: its node and the YAML of its simulated cards."""

    node: str
    cards: Path


class Plan(Struct, frozen=True, kw_only=True):
    """What to run. ``environment`` goes to all four services."""

    folder: Path
    nodes: Path | None = None
    agents: Sequence[Agent] = ()
    environment: Mapping[str, str] = {}
    schedules: bool = True
    """Whether the stand-in runs a scheduler, kubelets and the webhook call-out, or is an API server alone."""
    traces: bool = False
    kubeconfig: Path | None = None
    """A real cluster to stand on instead of the stand-in."""


class Addresses(Struct, frozen=True, kw_only=True):
    """Where everything listens."""

    nats: str
    api: str
    webhook: str
    extender: str
    allocator: str
    traces: str
    kubeconfig: Path


class Stack:
    """The running system."""

    def __init__(self, plan: Plan, started: Processes, addresses: Addresses) -> None:
        self.plan = plan
        self.at = addresses
        self.started = started

    def environment(self) -> dict[str, str]:
        """Return what ``hamictl`` and other programs need to talk to this system."""
        found = {"HAMI_NATS_URL": self.at.nats, "KUBECONFIG": str(self.at.kubeconfig)}
        return found | ({"HAMI_TRACES_URL": self.at.traces} if self.at.traces else {})

    def process(self, name: str) -> Running:
        """Return a running process by its name, such as ``allocator`` or ``agent-gpu-a``."""
        return next(p for p in self.started.running if p.spec.name == name)

    async def start_allocator(self) -> Running:
        """Start an allocator, again after the first has gone, and wait until it leads and answers."""
        running = await self.started.start(_allocator(self.plan, self.at))
        await running.wait_ready(READY_DEADLINE)
        return running

    async def restart_services(self, environment: Mapping[str, str]) -> None:
        """Stop webhook, extender and allocator, and start them with other settings at the same addresses."""
        self.plan = structs.replace(self.plan, environment=environment)
        specs = _services(self.plan, self.at)
        for spec in specs:
            await self.started.stop(spec.name)
        for running in [await self.started.start(spec) for spec in specs]:
            await running.wait_ready(READY_DEADLINE)


@asynccontextmanager
async def stack(plan: Plan) -> AsyncIterator[Stack]:
    """Run the system for the length of a block; return when every part is ready."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    async with processes(plan.folder) as started:
        yield await start(plan, started)


async def start(plan: Plan, started: Processes) -> Stack:
    """Start every part and wait until it is ready; whoever holds ``started`` stops them."""
    at = _addresses(plan)
    running = Stack(plan, started, at)
    ground = [await started.start(spec) for spec in _ground(plan, at)]
    # webhook and extender need the bus alone, and wait for it by themselves; the others read the kubeconfig
    first = [await started.start(spec) for spec in (_webhook(plan, at), _extender(plan, at))]
    await _wait_ready(ground)
    agents = [_agent(plan, at, agent) for agent in plan.agents]
    await _wait_ready([*first, *[await started.start(spec) for spec in (_allocator(plan, at), *agents)]])
    return running


async def _wait_ready(waiting: Sequence[Running]) -> None:
    for process in waiting:
        await process.wait_ready(READY_DEADLINE)


def _addresses(plan: Plan) -> Addresses:
    http = "http://127.0.0.1:{}"
    return Addresses(
        nats=f"nats://127.0.0.1:{free_port()}",
        api=http.format(free_port()),
        webhook=http.format(free_port()),
        extender=http.format(free_port()),
        allocator=http.format(free_port()),
        traces=http.format(free_port()) if plan.traces else "",
        kubeconfig=plan.kubeconfig or plan.folder / "kubeconfig",
    )


def _ground(plan: Plan, at: Addresses) -> list[Spec]:
    """Return what everything else stands on: NATS, the cluster, the trace sink."""
    file = plan.folder / "nats.conf"
    file.write_text(NATS_CONFIG.format(port=_port(at.nats), folder=plan.folder))
    specs = [Spec(name="nats", command=[str(BIN / "nats-server"), "-c", str(file)], ground=True)]
    if plan.traces:
        command = [str(BIN / "python"), "-m", "hami_testkit.tracesink", "--listen", _listen(at.traces)]
        specs.append(Spec(name="traces", command=command, ready_url=f"{at.traces}/api/traces", ground=True))
    if plan.kubeconfig is None:
        specs.append(_standin(plan, at))
    return specs


def _standin(plan: Plan, at: Addresses) -> Spec:
    command = [str(BIN / "hami-standin"), "--listen", _listen(at.api), "--kubeconfig-out", str(at.kubeconfig)]
    if plan.nodes is not None:
        command += ["--nodes", str(plan.nodes)]
    if plan.schedules:
        file = plan.folder / "scheduler.yaml"
        file.write_text(yaml.safe_dump(scheduler_config(at.extender)))
        command += ["--scheduler-config", str(file), "--webhook", f"{at.webhook}/webhook"]
        command += ["--kubelets", "--kubelet-root", str(plan.folder / "k")]
    return Spec(name="standin", command=command, ready_url=f"{at.api}/readyz", ground=True)


def scheduler_config(extender: str) -> dict[str, Any]:
    """Return kube-scheduler's configuration: our extender is asked about every resource of every vendor."""
    catalog = vendors.build(config.DEFAULTS, ascend=True, iluvatar=True)
    names = {n for v in catalog.vendors for n in structs.astuple(v.resources) if isinstance(n, str) and n}
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "profiles": [{"schedulerName": "hami-scheduler"}],
        "extenders": [
            {
                "urlPrefix": extender,
                "filterVerb": "filter",
                "bindVerb": "bind",
                "weight": 1,
                "httpTimeout": "30s",
                "nodeCacheCapable": True,
                "managedResources": [{"name": name, "ignoredByScheduler": True} for name in sorted(names)],
            }
        ],
    }


def _services(plan: Plan, at: Addresses) -> list[Spec]:
    return [_allocator(plan, at), _webhook(plan, at), _extender(plan, at)]


def _webhook(plan: Plan, at: Addresses) -> Spec:
    env = {**_common(plan, at), "HAMI_LISTEN": _listen(at.webhook)}
    return Spec(name="webhook", command=[str(BIN / "hami-webhook")], env=env, ready_url=f"{at.webhook}/readyz")


def _extender(plan: Plan, at: Addresses) -> Spec:
    env = {**_common(plan, at), "HAMI_LISTEN": _listen(at.extender)}
    return Spec(name="extender", command=[str(BIN / "hami-extender")], env=env, ready_url=f"{at.extender}/readyz")


def _allocator(plan: Plan, at: Addresses) -> Spec:
    env = {**_common(plan, at), "KUBECONFIG": str(at.kubeconfig), "HAMI_HEALTH_LISTEN": _listen(at.allocator)}
    return Spec(name="allocator", command=[str(BIN / "hami-allocator")], env=env, ready_url=f"{at.allocator}/readyz")


def _agent(plan: Plan, at: Addresses, agent: Agent) -> Spec:
    health = f"http://127.0.0.1:{free_port()}"
    env = {
        **_common(plan, at),
        "KUBECONFIG": str(at.kubeconfig),
        "HAMI_HEALTH_LISTEN": _listen(health),
        "HAMI_NODE_NAME": agent.node,
        "HAMI_KUBELET_DIR": str(plan.folder / "k" / agent.node),
        "HAMI_HOOK_PATH": str(plan.folder / "hook" / agent.node),
        "HAMI_LOCK_DIR": str(plan.folder / "lock" / agent.node),
        "HAMI_PROBES": f"sim:{agent.cards}",
    }
    name = f"agent-{agent.node}"
    return Spec(name=name, command=[str(BIN / "hami-node-agent")], env=env, ready_url=f"{health}/readyz")


def _common(plan: Plan, at: Addresses) -> dict[str, str]:
    traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": at.traces, "OTEL_BSP_SCHEDULE_DELAY": "200"} if at.traces else {}
    return {"HAMI_NATS_URL": at.nats, **traces, **plan.environment}


def _listen(url: str) -> str:
    return url.partition("://")[2]


def _port(url: str) -> str:
    return url.rpartition(":")[2]
