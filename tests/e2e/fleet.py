"""Every vendor's fleet of the examples on a real control plane: what nodes and plugins do is played, the rest is real.

One rule: nodes register by what their vendors' plugins write, as HAMi's do; the scheduler's and the webhook's
configuration are those that users write.
"""

import asyncio
import base64
import json
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from hami_testkit.cluster.access import connect
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelets import run_kubelets
from hami_testkit.cluster.proxy import api_proxy
from hami_testkit.demo import example_folders, plan
from hami_testkit.processes import BIN, Spec, free_port
from hami_testkit.real_cluster import control_plane, kube_scheduler
from hami_testkit.stack import READY_DEADLINE, Stack, scheduler_config, stack
from msgspec import structs

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "how-to" / "run-the-services.md"
HOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
FOLDERS = example_folders(ROOT / "examples")


class Fleet:
    """The cluster, as a user sees it."""

    def __init__(self, api: ApiClient, system: Stack) -> None:
        self.api = api
        self.system = system


@asynccontextmanager
async def a_fleet(binaries: Path, folders: Sequence[Path] = FOLDERS) -> AsyncIterator[Fleet]:
    """Run the nodes of these examples, and all services, until the block is left."""
    with tempfile.TemporaryDirectory(prefix="e2e-") as name:
        folder = Path(name)
        planned = plan(folder, folders)
        async with control_plane(binaries, folder) as kubeconfig, connect(kubeconfig) as api:
            nodes = await _create_nodes(api, _items(planned.nodes))
            bare = structs.replace(planned, agents=(), traces=False, schedules=False, kubeconfig=kubeconfig)
            async with (
                stack(bare) as system,
                api_proxy(kubeconfig) as way,
                run_kubelets(way.url, nodes, folder / "k"),
                kube_scheduler(
                    binaries / "kube-scheduler", folder, kubeconfig, scheduler_config(system.at.extender)["extenders"]
                ),
            ):
                for agent in planned.agents:
                    await system.add_agent(agent)
                await _configure_webhook(api, *await _start_webhook(system))
                yield Fleet(api, system)


async def _create_nodes(api: ApiClient, nodes: Sequence[Json]) -> dict[str, dict[str, str]]:
    """Create nodes; return their annotations, by name."""
    for node in nodes:
        await api.create("/api/v1/nodes", node)
    return {node["metadata"]["name"]: node["metadata"].get("annotations", {}) for node in nodes}


def _items(file: Path | None) -> list[Json]:
    return list(yaml.safe_load(file.read_text())["items"]) if file else []


async def _start_webhook(system: Stack) -> tuple[str, bytes]:
    """Run a webhook that speaks HTTPS, as the API server demands; return its URL and whom to believe."""
    folder, port = system.plan.folder, free_port()
    cert, key = folder / "webhook.crt", folder / "webhook.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=hami-webhook", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key)]
    await asyncio.to_thread(subprocess.run, [*command, "-out", str(cert)], check=True, capture_output=True)
    env = {
        "HAMI_LISTEN": f"127.0.0.1:{port}", "HAMI_TLS_CERT": str(cert), "HAMI_TLS_KEY": str(key),
        "HAMI_NATS_URL": system.at.nats,
    }  # fmt: skip
    url = f"https://127.0.0.1:{port}"
    spec = Spec(name="webhook-https", command=[str(BIN / "hami-webhook")], env=env, ready_url=f"{url}/readyz")
    await (await system.started.start(spec)).wait_ready(READY_DEADLINE)
    return f"{url}/webhook", cert.read_bytes()


async def _configure_webhook(api: ApiClient, url: str, authority: bytes) -> None:
    """Create the guide's configuration, with our URL in place of its service."""
    text = GUIDE.read_text().partition("## The webhook")[2].partition("```yaml\n")[2].partition("```")[0]
    configuration = yaml.safe_load(text)
    (webhook,) = configuration["webhooks"]
    webhook["clientConfig"] = {"url": url, "caBundle": base64.b64encode(authority).decode()}
    await api.create(HOOKS, configuration)
    # the API server reads such configurations a moment after they are stored
    probe: Json = {"metadata": {"name": "probe"}, "spec": {"containers": [_asking()]}}
    async with asyncio.timeout(30):
        while not await _is_reviewed(api, probe):
            await asyncio.sleep(0.1)


async def _is_reviewed(api: ApiClient, pod: Json) -> bool:
    made = await api.create("/api/v1/namespaces/default/pods", pod, query={"dryRun": "All"})
    return json.dumps(made).count("hami-scheduler") > 0


def _asking() -> Json:
    return {"name": "main", "image": "app", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
