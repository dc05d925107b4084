"""``hami-standin``: the stand-in cluster as a program.

One rule: it prints its URL once everything asked for is up, and stops cleanly on SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import yaml
from msgspec import structs

from hami_testkit.cluster.extender import Extender, from_scheduler_config, hami_extender
from hami_testkit.cluster.simulated import Standin


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program until a signal ends it."""
    options = _options(argv)
    try:
        asyncio.run(_run(options))
    except (OSError, ValueError, yaml.YAMLError) as error:
        sys.exit(f"hami-standin cannot start: {error}")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hami-standin", description="A Kubernetes API server small enough to read.")
    add = parser.add_argument
    add("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="where the API server listens; port 0: a free one")
    add("--kubeconfig-out", type=Path, metavar="FILE", help="write a kubeconfig that leads here")
    add("--nodes", type=Path, metavar="FILE", help="Node objects to start with: YAML documents, or a List")
    add("--scheduler", action="store_true", help="run hami-scheduler and default-scheduler")
    add("--extender", metavar="URL", help="the extender of hami-scheduler; implies --scheduler")
    add("--extender-timeout", type=float, default=30, metavar="SECONDS", help="its httpTimeout")
    add("--scheduler-config", type=Path, metavar="FILE", help="take the extender from a KubeSchedulerConfiguration")
    add("--kubelets", action="store_true", help="run a kubelet for each node of --nodes")
    add("--kubelet-root", type=Path, metavar="DIR", help="where their folders stand, DIR/<node>")
    add("--webhook", metavar="URL", help="show every new pod to this mutating webhook")
    add("--webhook-ca", type=Path, metavar="FILE", help="the certificate authority that signed its certificate")
    add("--webhook-policy", choices=("Fail", "Ignore"), default="Fail", help="what its silence means")
    add("--webhook-only-for", default="", metavar="NAMES", help="show it only pods that name one of these resources")
    return parser.parse_args(argv)


async def _run(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    nodes = _nodes(options.nodes) if options.nodes else []
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(Standin.start(nodes=nodes, listen=options.listen))
        if options.webhook:
            ca = options.webhook_ca.read_bytes() if options.webhook_ca else None
            only = [name for name in options.webhook_only_for.split(",") if name]
            await cluster.add_webhook(options.webhook, ca=ca, failure_policy=options.webhook_policy, only_for=only)
        if options.scheduler or options.extender or options.scheduler_config:
            await stack.enter_async_context(cluster.scheduling(_extender(options)))
        if options.kubelets:
            # short on purpose: the kubelet's sockets stand below it, and a socket's path ends at 108 bytes
            root = options.kubelet_root or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kl-")))
            await stack.enter_async_context(cluster.kubelets_running(root))
        if options.kubeconfig_out:
            cluster.kubeconfig(options.kubeconfig_out)
        print(cluster.url, flush=True)
        await stop.wait()


def _extender(options: argparse.Namespace) -> Extender | None:
    if options.scheduler_config:
        found = from_scheduler_config(options.scheduler_config)[1]
        return structs.replace(found, url=options.extender) if found and options.extender else found
    return hami_extender(options.extender, http_timeout=options.extender_timeout) if options.extender else None


def _nodes(path: Path) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = []
    for document in yaml.safe_load_all(path.read_text()):
        if document:
            nodes += document["items"] if str(document.get("kind", "")).endswith("List") else [document]
    strange = [str(node.get("kind")) for node in nodes if node.get("kind", "Node") != "Node"]
    if strange:
        raise ValueError(f"{path} holds a {strange[0]}; write only Node objects there")
    return nodes
