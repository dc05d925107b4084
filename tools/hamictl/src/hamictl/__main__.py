"""``hamictl``: what the system knows, for people and (``-o json``) for programs.

One rule: it only reads. An error is one sentence on stderr and an exit code.
"""

import asyncio
import os
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from cyclopts import App, Parameter
from hami_kit import traces
from hami_kit.errors import BoundaryError
from hami_kit.telemetry import parent_of_pod
from hami_model.bus import subjects
from hami_model.bus.events import CloudEvent
from rich.console import Console

from hamictl import session, views
from hamictl.errors import Problem
from hamictl.session import Where

app = App(name="hamictl", help="Nodes, pods, reasons, events and traces of HAMi on NATS.")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """Options of every command."""

    output: Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])] = "table"
    "A table for people, or JSON for programs."
    nats_url: Annotated[str, Parameter(env_var="HAMI_NATS_URL")] = "nats://127.0.0.1:4222"
    "NATS servers, comma-separated."
    nats_creds: Annotated[Path | None, Parameter(env_var="HAMI_NATS_CREDS")] = None
    "File with the NATS credentials."
    nats_ca: Annotated[Path | None, Parameter(env_var="HAMI_NATS_CA")] = None
    "CA that signed the NATS server's certificate."
    traces_url: Annotated[str, Parameter(env_var="HAMI_TRACES_URL")] = ""
    "Jaeger, or what answers as it does."
    kubeconfig: Annotated[str, Parameter(env_var="KUBECONFIG")] = ""
    "As kubectl reads it; in-cluster otherwise."

    @property
    def where(self) -> Where:
        """Return the addresses."""
        return Where(
            nats_url=self.nats_url,
            nats_creds=self.nats_creds,
            nats_ca=self.nats_ca,
            traces_url=self.traces_url,
            kubeconfig=self.kubeconfig,
        )


DEFAULTS = Common()
Namespace = Annotated[str, Parameter(name=["--namespace", "-n"])]
_CONSOLE = Console(width=None if sys.stdout.isatty() else 200)


def _print_json(value: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


@app.command
def nodes(*, common: Common = DEFAULTS) -> None:
    """Show every card of every node, and what is booked on it."""
    known = _run(session.snapshot(common.where))
    if common.output == "json":
        _print_json(known.nodes)
    else:
        views.nodes(_CONSOLE, known.nodes)


@app.command
def pods(*, namespace: Namespace = "", common: Common = DEFAULTS) -> None:
    """Show who holds which slice of which card; all namespaces unless one is named."""
    known = _run(session.snapshot(common.where))
    bookings = [b for b in known.bookings if namespace in ("", b.allocation.pod.namespace)]
    if common.output == "json":
        _print_json(bookings)
    else:
        views.pods(_CONSOLE, bookings)


@app.command
def explain(pod: str, /, *, namespace: Namespace = "default", common: Common = DEFAULTS) -> None:
    """Say why a pod is where it is, or why no node takes it, card by card.

    Parameters
    ----------
    pod
        The pod's name, or namespace/name.
    """
    why = _run(session.explain(common.where, *_split(pod, namespace)))
    if common.output == "json":
        _print_json(why)
    else:
        views.explanation(_CONSOLE, why)


@app.command
def events(*, follow: Annotated[bool, Parameter(name=["--follow", "-f"])] = False, common: Common = DEFAULTS) -> None:
    """Show what happened lately; with -f go on as it happens.

    Parameters
    ----------
    follow
        Go on until interrupted.
    """
    _run(_events(common, follow=follow))


async def _events(common: Common, *, follow: bool) -> None:
    async def show(_subject: str, told: CloudEvent) -> None:
        if common.output == "json":
            sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        else:
            views.event(_CONSOLE, told)
        sys.stdout.flush()

    async with session.bus(common.where) as bus:
        if follow:
            await bus.subscribe(subjects.ALL_EVENTS, CloudEvent, show)
            await asyncio.Event().wait()
        for told in await bus.recent_events(limit=100):
            await show("", told)


@app.command
def trace(pod: str, /, *, namespace: Namespace = "default", common: Common = DEFAULTS) -> None:
    """Show a pod's way from admission to its devices as one tree, with times.

    Parameters
    ----------
    pod
        The pod's name, or namespace/name.
    """
    roots = _run(_trace(common.where, *_split(pod, namespace)))
    if common.output == "json":
        _print_json(roots)
    else:
        views.trace(_CONSOLE, roots)


async def _trace(where: Where, namespace: str, name: str) -> list[traces.Branch]:
    if not where.traces_url:
        raise Problem("HAMI_TRACES_URL is not set: say where traces are read, such as http://jaeger:16686", code=2)
    parent = parent_of_pod(await session.pod(where, namespace, name)) or ""
    try:
        return traces.tree(await traces.fetch(where.traces_url, parent.split("-")[1]))
    except BoundaryError as e:
        raise Problem(str(e)) from e


def _split(pod: str, namespace: str) -> tuple[str, str]:
    before, slash, after = pod.partition("/")
    return (before, after) if slash else (namespace, pod)


T = TypeVar("T")


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def main() -> None:
    """Run one command."""
    try:
        app()
    except Problem as e:
        sys.stderr.write(f"hamictl: {e}\n")
        sys.exit(e.code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.close(sys.stdout.fileno())


if __name__ == "__main__":
    main()
