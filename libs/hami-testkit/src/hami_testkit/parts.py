"""Which processes make up the system, with the commands and the environment that users have.

One rule: what is started is decided here alone, from a plan and from where everything listens; nothing here starts it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hami_model import config, vendors
from msgspec import Struct

from hami_testkit.processes import BIN, Spec, free_port

NATS_CONFIG = """\
listen: "127.0.0.1:{port}"
max_payload: 8388608
jetstream {{ store_dir: "{folder}/jetstream" }}
"""


class Agent(Struct, frozen=True, kw_only=True):
    """A node-agent to run: its node, and the YAML of its simulated cards or what its environment says instead."""

    node: str
    cards: Path = Path("/no/cards")
    environment: Mapping[str, str] = {}


class Plan(Struct, frozen=True, kw_only=True):
    """What to run. ``environment`` goes to all four services."""

    folder: Path
    nodes: Path | None = None
    agents: Sequence[Agent] = ()
    allocators: int = 1
    """How many allocators run: one leads, the others follow. They are named allocator, allocator-2, …"""
    environment: Mapping[str, str] = {}
    schedules: bool = True
    """Whether the stand-in runs a scheduler, kubelets and the webhook call-out, or is an API server alone."""
    durable: bool = False
    """Whether a stand-in that is killed and started again knows what it knew, as etcd would."""
    traces: bool = False
    kubeconfig: Path | None = None
    """A real cluster to stand on instead of the stand-in."""
    kubeconfigs: Mapping[str, Path] = {}
    """Another way to the API server for allocators, by name."""


class Addresses(Struct, frozen=True, kw_only=True):
    """Where everything listens."""

    nats: str
    api: str
    webhook: str
    extender: str
    allocators: Mapping[str, str]
    """Name -> URL."""
    traces: str
    kubeconfig: Path

    def environment(self) -> dict[str, str]:
        """Return what ``hamictl`` and other programs need to talk to this system."""
        found = {"HAMI_NATS_URL": self.nats, "KUBECONFIG": str(self.kubeconfig)}
        return found | ({"HAMI_TRACES_URL": self.traces} if self.traces else {})

    @property
    def allocator(self) -> str:
        """Return where the first allocator listens."""
        return self.allocators["allocator"]

    @classmethod
    def of(cls, plan: Plan) -> "Addresses":
        """Choose free ports."""
        return cls(
            nats=f"nats://127.0.0.1:{free_port()}",
            api=_free_url(),
            webhook=_free_url(),
            extender=_free_url(),
            allocators={f"allocator-{i}" if i > 1 else "allocator": _free_url() for i in range(1, plan.allocators + 1)},
            traces=_free_url() if plan.traces else "",
            kubeconfig=plan.kubeconfig or plan.folder / "kubeconfig",
        )


def ground(plan: Plan, at: Addresses) -> list[Spec]:
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
    if plan.durable:
        command += ["--journal", str(plan.folder / "standin.journal")]
    if plan.schedules:
        file = plan.folder / "scheduler.yaml"
        file.write_text(yaml.safe_dump(scheduler_config(at.extender)))
        command += ["--scheduler-config", str(file), "--webhook", f"{at.webhook}/webhook"]
        command += ["--kubelets", "--kubelet-root", str(plan.folder / "k")]
    return Spec(name="standin", command=command, ready_url=f"{at.api}/readyz", ground=True)


def scheduler_config(extender: str) -> dict[str, Any]:
    """Return kube-scheduler's configuration: our extender is asked about every resource of every vendor."""
    catalog = vendors.build(config.DEFAULTS, ascend=True, iluvatar=True)
    names = sorted(catalog.resource_names)
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
                "managedResources": [{"name": name, "ignoredByScheduler": True} for name in names],
            }
        ],
    }


def webhook(plan: Plan, at: Addresses) -> Spec:
    """Return the webhook."""
    env = {**_common(plan, at), "HAMI_LISTEN": _listen(at.webhook)}
    return Spec(name="webhook", command=[str(BIN / "hami-webhook")], env=env, ready_url=f"{at.webhook}/readyz")


def extender(plan: Plan, at: Addresses) -> Spec:
    """Return the extender."""
    env = {**_common(plan, at), "HAMI_LISTEN": _listen(at.extender)}
    return Spec(name="extender", command=[str(BIN / "hami-extender")], env=env, ready_url=f"{at.extender}/readyz")


def allocators(plan: Plan, at: Addresses) -> list[Spec]:
    """Return the allocators."""
    return [_allocator(plan, at, name, url) for name, url in at.allocators.items()]


def _allocator(plan: Plan, at: Addresses, name: str, url: str) -> Spec:
    kubeconfig = plan.kubeconfigs.get(name, at.kubeconfig)
    env = {**_common(plan, at), "KUBECONFIG": str(kubeconfig), "HAMI_HEALTH_LISTEN": _listen(url)}
    return Spec(name=name, command=[str(BIN / "hami-allocator")], env=env, ready_url=f"{url}/readyz")


def agent(plan: Plan, at: Addresses, agent: Agent) -> Spec:
    """Return one node-agent."""
    health = _free_url()
    env = {
        **_common(plan, at),
        "KUBECONFIG": str(at.kubeconfig),
        "HAMI_HEALTH_LISTEN": _listen(health),
        "HAMI_NODE_NAME": agent.node,
        "HAMI_KUBELET_DIR": str(plan.folder / "k" / agent.node),
        "HAMI_HOOK_PATH": str(plan.folder / "hook" / agent.node),
        "HAMI_LOCK_DIR": str(plan.folder / "lock" / agent.node),
        "HAMI_PROBES": f"sim:{agent.cards}",
        **agent.environment,
    }
    name = f"agent-{agent.node}"
    return Spec(name=name, command=[str(BIN / "hami-node-agent")], env=env, ready_url=f"{health}/readyz")


def _common(plan: Plan, at: Addresses) -> dict[str, str]:
    traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": at.traces, "OTEL_BSP_SCHEDULE_DELAY": "200"} if at.traces else {}
    return {"HAMI_NATS_URL": at.nats, **traces, **plan.environment}


def _free_url() -> str:
    return f"http://127.0.0.1:{free_port()}"


def _listen(url: str) -> str:
    return url.partition("://")[2]


def _port(url: str) -> str:
    return url.rpartition(":")[2]
