"""``hami-standin``: the stand-in cluster as a program.

One rule: it prints its URL once everything asked for is up, and stops cleanly on SIGTERM or SIGINT. What it is told is
read before anything starts, and what cannot be meant is refused in one sentence.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NoReturn

import yaml
from hami_kit.setting_values import read_address

from hami_testkit.cluster.extender import Extender, from_scheduler_config, hami_extender
from hami_testkit.cluster.simulated import Standin
from hami_testkit.cluster.status import ApiError, Json


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program until a signal ends it."""
    options = _options(argv)
    try:
        asyncio.run(_run(options))
    except (OSError, ValueError, ApiError) as error:
        sys.exit(f"hami-standin cannot start: {_sentence(error)}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong, in one sentence, without the whole usage before it."""
        self.exit(2, f"{self.prog}: {message}\n")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="hami-standin", description="A Kubernetes API server small enough to read.")
    add = parser.add_argument
    add("--listen", type=_read(_address), default="127.0.0.1:0", metavar="HOST:PORT",
        help="where the API server listens; port 0: a free one")  # fmt: skip
    add("--kubeconfig-out", type=Path, metavar="FILE", help="write a kubeconfig that leads here")
    add("--journal", type=Path, metavar="FILE",
        help="write down all that changes, and begin with what stands there: a crash loses nothing")  # fmt: skip
    add("--nodes", type=_read(_nodes), default=[], action="extend", metavar="FILE",
        help="Node objects to start with: YAML documents, or a List; may be given several times")  # fmt: skip
    add("--scheduler", action="store_true", help="run hami-scheduler and default-scheduler")
    add("--extender", type=_read(_extender), metavar="URL", help="the extender of hami-scheduler; implies --scheduler")
    add("--scheduler-config", type=_read(_configured_extender), dest="extender", metavar="FILE",
        help="take the extender from a KubeSchedulerConfiguration; implies --scheduler")  # fmt: skip
    add("--kubelets", action="store_true", help="run a kubelet for each node of --nodes")
    add("--kubelet-root", type=Path, metavar="DIR", help="where their folders stand, DIR/<node>")
    add("--webhook", type=_read(_url), metavar="URL", help="show every new pod to this mutating webhook")
    options = parser.parse_args(argv)
    if options.kubelets and not options.nodes:
        print("no kubelet runs: name their nodes with --nodes", file=sys.stderr)
    return options


async def _run(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(
            Standin.start(nodes=options.nodes, listen=options.listen, journal=options.journal)
        )
        if options.webhook:
            await cluster.add_webhook(options.webhook)
        if options.scheduler or options.extender:
            await stack.enter_async_context(cluster.scheduling(options.extender))
        if options.kubelets:
            # short on purpose: the kubelet's sockets stand below it, and a socket's path ends at 108 bytes
            root = options.kubelet_root or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kl-")))
            await stack.enter_async_context(cluster.kubelets_running(root))
        if options.kubeconfig_out:
            cluster.kubeconfig(options.kubeconfig_out)
        print(cluster.url, flush=True)
        await stop.wait()


def _read(reader: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a reader whose complaints argparse shows beside the name of the option."""

    def read(text: str) -> Any:
        try:
            return reader(text)
        except (OSError, ValueError) as error:
            raise argparse.ArgumentTypeError(_sentence(error)) from error

    return read


def _address(text: str) -> str:
    try:
        return str(read_address(text))
    except ValueError as error:
        raise ValueError(f"{text!r} {error}") from error


def _url(text: str) -> str:
    scheme, colon, rest = text.partition("://")
    if scheme not in ("http", "https") or not colon or not rest:
        raise ValueError(f"{text!r} is no URL; write it as http://127.0.0.1:8080/path")
    return text


def _extender(text: str) -> Extender:
    return hami_extender(_url(text))


def _configured_extender(text: str) -> Extender:
    try:
        found = from_scheduler_config(Path(text))[1]
    except (yaml.YAMLError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"{text} is no KubeSchedulerConfiguration") from error
    if found is None:
        raise ValueError(f"{text} names no extender")
    return found


def _nodes(text: str) -> list[Json]:
    nodes: list[Any] = []
    try:
        for document in yaml.safe_load_all(Path(text).read_text()):
            is_list = isinstance(document, dict) and str(document.get("kind", "")).endswith("List")
            nodes += (document.get("items") or []) if is_list else [document] if document else []
    except yaml.YAMLError as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        where = f" (line {mark.line + 1})" if mark else ""
        raise ValueError(f"{text} is no YAML{where}") from error
    for node in nodes:
        kind = node.get("kind", "Node") if isinstance(node, dict) else type(node).__name__
        if kind != "Node":
            raise ValueError(f"{text} holds a {kind}; write only Node objects there")
    return nodes


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
