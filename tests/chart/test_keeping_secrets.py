"""What was drawn once is kept: the certificate and the passwords, as an upgrade finds them in the cluster."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from pathlib import Path

import helm_python as helm
import pytest
from hami_testkit.cluster import Standin
from hami_testkit.cluster.resources import RESOURCES

from tests.chart.rendering import NAMESPACE, Json, Rendered, chart, read, render, values_of

SECRETS = next(resource for resource in RESOURCES if resource.name == "secrets")
TLS, NATS = "hami-webhook-tls", "hami-nats"
DAY = 86_400
HOST = "scheduler.admissionWebhook.customURL.enabled=true,scheduler.admissionWebhook.customURL.host="


class Cluster:
    """A cluster in which the chart's Secrets are, as they were rendered once."""

    def __init__(self, standin: Standin, kubeconfig: Path) -> None:
        self._standin = standin
        self._kubeconfig = kubeconfig

    async def hold(self, found: Rendered, *, ends: float | None = None) -> None:
        """Store the Secrets; ``ends``: until when the certificate is valid, in unix seconds."""
        for name in (TLS, NATS):
            secret = _stored(found.one("Secret", name))
            if ends is not None:
                secret["metadata"].setdefault("annotations", {})["hami.io/ends"] = f"{ends:.0f}"
            await self._standin.registry.create(SECRETS, secret, namespace=NAMESPACE)

    async def render(self, *sets: str) -> Rendered:
        """Render as an upgrade does: the engine may look at what is there."""
        return await asyncio.to_thread(self._render, values_of(*sets))

    def _render(self, values: Json) -> Rendered:
        with helm.Config(kubeconfig_path=self._kubeconfig, namespace=NAMESPACE) as config:
            return read(config.render(chart(), values, name="hami", namespace=NAMESPACE, is_upgrade=True))


def _stored(secret: Json) -> Json:
    """Return a Secret as the API server keeps it."""
    texts = {key: base64.b64encode(text.encode()).decode() for key, text in (secret.get("stringData") or {}).items()}
    return {"metadata": secret["metadata"], "data": {**secret.get("data", {}), **texts}}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Standin.start() as standin:
        yield Cluster(standin, standin.kubeconfig(tmp_path / "kubeconfig"))


async def test_an_upgrade_keeps_what_is_there(cluster: Cluster) -> None:
    """Nobody is restarted for a new password, and the API server trusts the webhook throughout."""
    before = render()
    await cluster.hold(before)
    after = await cluster.render("logLevel=debug")

    for name, key in [(TLS, "ca.crt"), (TLS, "tls.crt"), (TLS, "tls.key"), (NATS, "allocator"), (NATS, "route")]:
        assert (key, before.secret(name, key)) == (key, after.secret(name, key))
    bundle = after.one("MutatingWebhookConfiguration", "hami-webhook")["webhooks"][0]["clientConfig"]["caBundle"]
    assert before.secret(TLS, "ca.crt") == base64.b64decode(bundle).decode()


@pytest.mark.parametrize(("days", "is_kept"), [(80, False), (100, True)])
async def test_a_certificate_is_renewed_in_its_last_90_days(cluster: Cluster, days: int, *, is_kept: bool) -> None:
    """By an upgrade; before that ``hamictl doctor`` warns for 30 days."""
    before = render()
    await cluster.hold(before, ends=time.time() + days * DAY)
    after = await cluster.render()

    assert is_kept == (before.secret(TLS, "tls.crt") == after.secret(TLS, "tls.crt"))


async def test_another_host_needs_another_certificate(cluster: Cluster) -> None:
    """The API server would not believe the one that is there."""
    before = render()
    await cluster.hold(before)
    after = await cluster.render(f"{HOST}10.0.0.9")

    assert before.secret(TLS, "tls.crt") != after.secret(TLS, "tls.crt")


async def test_a_seed_wins_over_what_is_there(cluster: Cluster) -> None:
    """Whoever sets it later gets the passwords that follow from it."""
    await cluster.hold(render())
    after = await cluster.render("nats.seed=same")

    assert render("nats.seed=same").secret(NATS, "allocator") == after.secret(NATS, "allocator")
