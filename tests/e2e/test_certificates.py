"""The webhook's certificate is changed for another authority's while a user creates pods.

One rule: the chart's failurePolicy is Fail, so a pod either goes through the webhook or is refused; none slips past it.
"""

import asyncio
import base64
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hami_testkit.cluster.client import JSON_PATCH
from hami_testkit.cluster.status import ApiError

from tests.chart.rendering import NAMESPACE
from tests.e2e.conftest import Report
from tests.e2e.installed import DEADLINE, Installed, Json, Namespace, a_pod

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
PAIR = "hami-webhook-tls"
SECRET_PATH = f"/api/v1/namespaces/{NAMESPACE}/secrets/{PAIR}"
HOOK = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/hami-webhook"
EVERY = 0.1
"""Seconds between two pods."""
SOME = 10
"""Pods in whose time the API server has heard of a change of its configuration for sure."""
DAYS = 2


class User:
    """Creates pods, again and again under the same name until one is taken, as a ReplicaSet does."""

    def __init__(self, there: Namespace) -> None:
        self.there = there
        self.made: list[Json] = []
        self.refusals: list[str] = []
        self.is_done = False

    async def run(self) -> None:
        """Create pods until done."""
        while not self.is_done:
            pod = a_pod(f"p-{len(self.made)}", node="nowhere")  # it is enough that it was admitted
            try:
                self.made.append(await self.there.create("pods", pod))
            except ApiError as refusal:
                self.refusals.append(refusal.message)
            await asyncio.sleep(EVERY)

    async def wait_made(self, more: int) -> None:
        """Wait until so many more pods are there."""
        wanted = len(self.made) + more
        async with asyncio.timeout(DEADLINE):
            while len(self.made) < wanted:
                await asyncio.sleep(EVERY)


@asynccontextmanager
async def creating(there: Namespace) -> AsyncIterator[User]:
    """Let a user create pods for the length of a block."""
    user = User(there)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(user.run())
        try:
            yield user
        finally:
            user.is_done = True


async def a_pair(folder: Path, name: str) -> tuple[str, str]:
    """Make a certificate for the webhook's address, which is its own authority; return it and its key."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    text = f"""req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days {DAYS} -subj /CN={name}
        -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}"""
    await asyncio.to_thread(subprocess.run, ["openssl", *text.split()], check=True, capture_output=True)
    return cert.read_text(), key.read_text()


async def believe(installed: Installed, authority: str) -> None:
    """Let the API server believe this authority alone when it calls the webhook."""
    bundle = base64.b64encode(authority.encode()).decode()
    await change(installed, op="replace", value=bundle)


async def change(installed: Installed, **what: str) -> None:
    patch = [{"path": "/webhooks/0/clientConfig/caBundle", **what}]
    await installed.api.patch(HOOK, patch, content=JSON_PATCH)


async def believes(installed: Installed) -> str:
    """Return whom the API server believes."""
    (webhook,) = (await installed.api.get(HOOK))["webhooks"]
    return base64.b64decode(webhook["clientConfig"]["caBundle"]).decode()


async def show(installed: Installed, certificate: str, key: str) -> None:
    """Put them where the webhook's files are; return when whoever connects is shown it."""
    folder, port = installed.here.folder, installed.here.ports.webhook
    (folder / "tls.crt").write_text(certificate)
    (folder / "tls.key").write_text(key)
    wanted = certificate.strip()
    async with asyncio.timeout(DEADLINE):
        while (await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))).strip() != wanted:
            await asyncio.sleep(0.1)


@asynccontextmanager
async def restoring(installed: Installed) -> AsyncIterator[None]:
    """Bring the certificate of the release back after a block."""
    try:
        yield
    finally:
        # a value that we wrote is ours, and Helm would refuse to write over it
        await change(installed, op="remove")
        found = await installed.cluster.helm("upgrade")
        await show(installed, *(found.secret(PAIR, key) for key in ("tls.crt", "tls.key")))


def names(pods: list[Json]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods}


def slipped_past(pods: list[Json]) -> list[str]:
    return [pod["metadata"]["name"] for pod in pods if pod["spec"].get("schedulerName") != "hami-scheduler"]


async def test_helm_renews_the_certificate_and_no_pod_is_refused(installed: Installed, report: Report) -> None:
    """The API server believes both authorities until the next upgrade, so the Secret may reach the webhook late."""
    helm = installed.cluster.helm
    async with installed.namespace("renewal") as there, restoring(installed):
        async with creating(there) as user:
            await user.wait_made(SOME)
            await installed.api.patch(SECRET_PATH, {"metadata": {"annotations": {"hami.io/ends": None}}})
            renewed = await helm("upgrade")
            await user.wait_made(SOME)
            await show(installed, *(renewed.secret(PAIR, key) for key in ("tls.crt", "tls.key")))
            await user.wait_made(SOME)
            await helm("upgrade")
            await user.wait_made(SOME)
        pods, believed = await there.pods(), await believes(installed)

    report(f"{len(pods)} pods were created, {len(user.refusals)} refused")
    assert [] == user.refusals
    assert names(user.made) == names(pods)
    assert [] == slipped_past(pods)
    assert installed.here.found.secret(PAIR, "ca.crt") != renewed.secret(PAIR, "ca.crt") == believed


async def test_a_pod_is_refused_rather_than_let_past_a_webhook_that_is_not_believed(installed: Installed) -> None:
    """Another authority is believed before the certificate is there, as when a Secret reaches its pod late."""
    after = await a_pair(installed.folder, "late")
    async with installed.namespace("rotation") as there, restoring(installed):
        async with creating(there) as user:
            await believe(installed, after[0])
            async with asyncio.timeout(DEADLINE):
                while not user.refusals:
                    await asyncio.sleep(EVERY)
            await show(installed, *after)
            await user.wait_made(SOME)
        pods = await there.pods()

    assert all('failed calling webhook "vgpu.hami.io"' in text for text in user.refusals)
    assert names(user.made) == names(pods)
    assert [] == slipped_past(pods)
