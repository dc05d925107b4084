"""The commands and their flags, as they stand on the command line."""

import asyncio
import re
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from cyclopts import App, Parameter
from hami_kit import traces
from hami_kit.bus import BusSettings
from hami_kit.setting_values import Timeout, read_value
from hami_kit.settings import load_device_config
from hami_kit.telemetry import parent_of_pod
from hami_model.bus.events import CloudEvent
from hami_model.capabilities import capabilities
from hami_model.vendors import build

from hamictl import device_config as device_configs
from hamictl import session, views
from hamictl.errors import FAILED, INTERRUPTED, MISUSED, Problem

T = TypeVar("T")

NATS_URL = BusSettings().url

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
"""What Kubernetes calls pods and namespaces."""

CODES = (
    f"Exit codes: 0 answered, {FAILED} no answer or no such pod, {MISUSED} a flag or variable that cannot be used, "
    f"{INTERRUPTED} interrupted. Of doctor and config check: 0 nothing found, {FAILED} something found, "
    f"{MISUSED} could not run."
)

app = App(
    name="hamictl",
    help="Nodes, pods, reasons, events and traces of HAMi on NATS.",
    help_epilogue=CODES,
)


Output = Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """Options of every command that asks the system."""

    output: Output = "table"
    "A table for people, or JSON for programs."
    nats_url: Annotated[str, Parameter(env_var="HAMI_NATS_URL")] = NATS_URL
    "NATS servers, comma-separated."
    nats_creds: Annotated[str, Parameter(env_var="HAMI_NATS_CREDS")] = ""
    "File with the NATS credentials."
    nats_ca: Annotated[str, Parameter(env_var="HAMI_NATS_CA")] = ""
    "CA that signed the NATS server's certificate."
    traces_url: Annotated[str, Parameter(env_var="HAMI_TRACES_URL")] = ""
    "Jaeger, or what answers as it does; for trace."
    kubeconfig: Annotated[str, Parameter(env_var="KUBECONFIG")] = ""
    "As kubectl reads it, in-cluster otherwise; for trace and doctor."

    @property
    def where(self) -> BusSettings:
        """Return where the bus is; an empty variable counts as absent, as it does for our services."""
        creds, ca = (Path(file) if file else None for file in (self.nats_creds, self.nats_ca))
        return BusSettings(url=self.nats_url or NATS_URL, creds=creds, ca=ca)


DEFAULTS = Common()
DeviceConfigOption = Annotated[Path | None, Parameter(env_var="HAMI_DEVICE_CONFIG")]
Namespace = Annotated[str, Parameter(name=["--namespace", "-n"])]


def _print_json(value: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


@app.command
def nodes(*, common: Common = DEFAULTS) -> None:
    """Show every card of every node, and what is booked on it."""
    known = _run(session.snapshot(common.where))
    if common.output == "json":
        _print_json(known.nodes)
    else:
        views.nodes(known.nodes)


@app.command
def pods(*, namespace: Namespace = "", common: Common = DEFAULTS) -> None:
    """Show who holds which slice of which card; all namespaces unless one is named.

    Parameters
    ----------
    namespace
        Only pods of this namespace.
    """
    known = _run(session.snapshot(common.where))
    bookings = [b for b in known.bookings if namespace in ("", b.allocation.pod.namespace)]
    if common.output == "json":
        _print_json(bookings)
    else:
        views.pods(bookings, namespace)


@app.command
def explain(pod: str, /, *, namespace: Namespace = "", common: Common = DEFAULTS) -> None:
    """Say why a pod is where it is, or why no node takes it, card by card.

    Parameters
    ----------
    pod
        The pod's name, or namespace/name.
    namespace
        The pod's namespace, unless its name says it; otherwise it is "default".
    """
    why = _run(session.explain(common.where, *_split(pod, namespace)))
    if common.output == "json":
        _print_json(why)
    else:
        views.explanation(why)


@app.command
def events(*, follow: Annotated[bool, Parameter(name=["--follow", "-f"])] = False, common: Common = DEFAULTS) -> None:
    """Show what happened lately; with -f go on as it happens.

    Parameters
    ----------
    follow
        Go on until interrupted.
    """

    def show(told: CloudEvent) -> None:
        if common.output == "json":
            sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        else:
            views.event(told)
        sys.stdout.flush()

    _run(session.events(common.where, show, follow=follow))


@app.command
def trace(pod: str, /, *, namespace: Namespace = "", common: Common = DEFAULTS) -> None:
    """Show a pod's way from admission to its devices as one tree, with times.

    Parameters
    ----------
    pod
        The pod's name, or namespace/name.
    namespace
        The pod's namespace, unless its name says it; otherwise it is "default".
    """
    roots = _run(_trace(common, *_split(pod, namespace)))
    if common.output == "json":
        _print_json(roots)
    else:
        views.trace(roots)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Held:
    """What the cluster is held to: the settings of our services, as they read them."""

    scheduler_config: Path | None = None
    "File of kube-scheduler's configuration; otherwise it is looked for in the cluster's ConfigMaps."
    scheduler_name: Annotated[str, Parameter(env_var="HAMI_SCHEDULER_NAME")] = "hami-scheduler"
    "The scheduler of device pods."
    device_config: DeviceConfigOption = None
    "HAMi's device-config.yaml; the chart's defaults otherwise."
    enable_ascend: Annotated[bool, Parameter(env_var="HAMI_ENABLE_ASCEND")] = True
    "Whether Ascend takes part."
    enable_iluvatar: Annotated[bool, Parameter(env_var="HAMI_ENABLE_ILUVATAR")] = True
    "Whether Iluvatar takes part."
    bind_timeout: Annotated[str, Parameter(env_var="HAMI_BIND_TIMEOUT")] = "28s"
    "How long a bind may take."
    lease_namespace: Annotated[str, Parameter(env_var="HAMI_LEASE_NAMESPACE")] = "kube-system"
    "Where the Lease hami-allocator lives."
    allocator_as: str = ""
    "The allocators' account, system:serviceaccount:NAMESPACE:NAME; otherwise that of the pod that leads."
    agent_as: str = ""
    "The node-agents' account."
    readyz: tuple[str, ...] = ()
    "Address of a service's /readyz to ask; may be given several times."


HELD = Held()


@app.command
def doctor(*, held: Held = HELD, common: Common = DEFAULTS) -> int:
    """Check a cluster and the installation in it; exit code 0: nothing found, 1: something, 2: could not run."""
    # imported here: the Kubernetes library costs time that no other command needs to pay
    from hamictl.doctor import checkup  # noqa: PLC0415

    patient = checkup.Patient(
        kubeconfig=common.kubeconfig,
        bus=common.where,
        device_config=held.device_config,
        scheduler=held.scheduler_name,
        scheduler_config=held.scheduler_config,
        ascend=held.enable_ascend,
        iluvatar=held.enable_iluvatar,
        bind_timeout=read_value(Timeout, held.bind_timeout, "HAMI_BIND_TIMEOUT"),
        lease_namespace=held.lease_namespace,
        allocator_as=held.allocator_as,
        agent_as=held.agent_as,
        readyz=held.readyz,
    )
    found = _run(checkup.examine(patient))
    if common.output == "json":
        _print_json(found)
    else:
        views.findings(found)
    return 1 if found else 0


@app.command
def vendors(*, device_config: DeviceConfigOption = None, output: Output = "table") -> None:
    """Show what each vendor can do: resource names, how cards are shared and chosen, locks, whose plugin.

    Parameters
    ----------
    device_config
        HAMi's device-config.yaml; the chart's defaults otherwise.
    output
        A table for people, or JSON for programs.
    """
    catalog = build(load_device_config(device_config), ascend=True, iluvatar=True)
    rows = capabilities(catalog.vendors)
    if output == "json":
        _print_json(rows)
    else:
        views.vendors(rows)


config_app = App(name="config", help="HAMi's device-config.yaml.")
app.command(config_app)


@config_app.command
def check(file: Path, /, *, output: Output = "table") -> int:
    """Say all that is wrong with a device-config.yaml, and which vendors it names; exit code 1: something is wrong.

    Parameters
    ----------
    file
        HAMi's device-config.yaml, as the chart renders it.
    output
        Lines for people, or JSON for programs.
    """
    checked = device_configs.check(file)
    if output == "json":
        _print_json(checked)
    else:
        views.device_config(checked)
    return FAILED if checked.problems else 0


async def _trace(common: Common, namespace: str, name: str) -> list[traces.Branch]:
    traces_url = common.traces_url
    if not traces_url.startswith(("http://", "https://")):
        state = f'HAMI_TRACES_URL: "{traces_url}" is no address' if traces_url else "HAMI_TRACES_URL is not set"
        raise Problem(f"{state}: say where traces are read, such as http://jaeger:16686", code=MISUSED)
    parent = parent_of_pod(await session.pod(common.kubeconfig, namespace, name))
    if parent is None:
        raise Problem(f"pod {namespace}/{name} has no trace: the API server gave it no uid")
    return traces.tree(await traces.fetch(traces_url, parent.split("-")[1]))


def _split(pod: str, namespace: str) -> tuple[str, str]:
    """Return a pod's namespace and name from the two places where they may be written."""
    before, slash, name = pod.rpartition("/")
    said = before if slash else namespace or "default"
    if not (NAME.fullmatch(said) and NAME.fullmatch(name)):
        raise Problem(f'"{pod}" in namespace "{said}" names no pod: write NAME, or NAMESPACE/NAME', code=MISUSED)
    if slash and namespace not in ("", before):
        raise Problem(f'{pod} names namespace "{before}" and -n names "{namespace}": name one', code=MISUSED)
    return said, name


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)
