"""``make demo CLUSTER=real``: the same fleet of nodes on Kubernetes' own etcd, kube-apiserver and kube-scheduler.

One rule: what nodes and their plugins do is played, the rest is real. Nodes register by what their vendors' plugins
write; the scheduler's and the webhook's configuration are those that users write, and the webhook speaks HTTPS.
"""

import asyncio
import base64
import json
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from msgspec import structs

from hami_testkit.cluster.access import connect
from hami_testkit.cluster.client import ApiClient
from hami_testkit.cluster.kubelets import run_kubelets
from hami_testkit.cluster.proxy import api_proxy
from hami_testkit.parts import Plan, scheduler_config
from hami_testkit.processes import BIN, Spec, free_port
from hami_testkit.real_cluster import control_plane, kube_scheduler
from hami_testkit.stack import READY_DEADLINE, Stack, stack

Json = dict[str, Any]
GUIDE = Path(__file__).resolve().parents[4] / "docs" / "how-to" / "run-the-services.md"
HOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
READ_WITHIN = 30.0
CERTIFICATE = (
    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
    "-subj", "/CN=hami-webhook", "-addext", "subjectAltName=IP:127.0.0.1",
)  # fmt: skip


@asynccontextmanager
async def a_real_fleet(plan: Plan, binaries: Path) -> AsyncIterator[Stack]:
    """Run the plan on the binaries of a folder until the block is left; ``at.api`` needs no credentials."""
    folder = plan.folder
    async with control_plane(binaries, folder) as kubeconfig, connect(kubeconfig) as api:
        nodes = await _create_nodes(api, _items(plan.nodes))
        bare = structs.replace(plan, agents=(), schedules=False, kubeconfig=kubeconfig)
        async with (
            stack(bare) as system,
            api_proxy(kubeconfig) as way,
            run_kubelets(way.url, nodes, folder / "k"),
            kube_scheduler(
                binaries / "kube-scheduler", folder, kubeconfig, scheduler_config(system.at.extender)["extenders"]
            ),
        ):
            for agent in plan.agents:
                await system.add_agent(agent)
            await _configure_webhook(api, *await _start_webhook(system))
            yield Stack(
                structs.replace(plan, kubeconfig=kubeconfig), system.started, structs.replace(system.at, api=way.url)
            )


async def _create_nodes(api: ApiClient, nodes: Sequence[Json]) -> dict[str, dict[str, str]]:
    """Create nodes; return their annotations, by name."""
    for node in nodes:
        await api.create("/api/v1/nodes", node)
    return {node["metadata"]["name"]: node["metadata"].get("annotations", {}) for node in nodes}


def _items(file: Path | None) -> list[Json]:
    return list(yaml.safe_load(file.read_text())["items"]) if file else []


async def _start_webhook(system: Stack) -> tuple[str, bytes]:
    """Run a webhook that speaks HTTPS, as the API server demands; return its URL and whom to believe."""
    folder, url = system.plan.folder, f"https://127.0.0.1:{free_port()}"
    cert, key = folder / "webhook.crt", folder / "webhook.key"
    command = [*CERTIFICATE, "-keyout", str(key), "-out", str(cert)]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    env = {
        "HAMI_LISTEN": url.removeprefix("https://"), "HAMI_TLS_CERT": str(cert), "HAMI_TLS_KEY": str(key),
        "HAMI_NATS_URL": system.at.nats, **system.plan.environment,
    }  # fmt: skip
    spec = Spec(name="webhook-https", command=[str(BIN / "hami-webhook")], env=env, ready_url=f"{url}/readyz")
    await (await system.started.start(spec)).wait_ready(READY_DEADLINE)
    return f"{url}/webhook", await asyncio.to_thread(cert.read_bytes)


async def _configure_webhook(api: ApiClient, url: str, authority: bytes) -> None:
    """Create the guide's configuration, with our URL in place of its service."""
    text = GUIDE.read_text().partition("## The webhook")[2].partition("```yaml\n")[2].partition("```")[0]
    configuration = yaml.safe_load(text)
    (webhook,) = configuration["webhooks"]
    webhook["clientConfig"] = {"url": url, "caBundle": base64.b64encode(authority).decode()}
    await api.create(HOOKS, configuration)
    # the API server reads such configurations a moment after they are stored
    asking = {"name": "main", "image": "app", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    probe = {"metadata": {"name": "probe"}, "spec": {"containers": [asking]}}
    async with asyncio.timeout(READ_WITHIN):
        while not await _is_reviewed(api, probe):
            await asyncio.sleep(0.1)


async def _is_reviewed(api: ApiClient, pod: Json) -> bool:
    made = await api.create("/api/v1/namespaces/default/pods", pod, query={"dryRun": "All"})
    return json.dumps(made).count("hami-scheduler") > 0
