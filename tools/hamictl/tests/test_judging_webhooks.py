"""The doctor reads the webhook's configuration: who is stopped while it is away, and until when it is trusted."""

import base64
import time
from pathlib import Path
from typing import Any

import pytest
from hami_model.objects import Meta
from hamictl.doctor.webhook import Client, Configuration, Service, Webhook, check

from .conftest import a_bundle

DAY = 24 * 3600
SERVICE = Service("kube-system", "hami-webhook")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """Make a CA that is valid for 100 days; return it as caBundle, and the present."""
    return a_bundle(tmp_path_factory.mktemp("ca"), days=100), time.time()


def found(now: float, **fields: Any) -> list[str]:
    ordinary: dict[str, Any] = {"name": "vgpu.hami.io", "timeout_seconds": 5, "match_conditions": [{"name": "x"}]}
    webhook = Webhook(**(ordinary | fields))
    return [finding.rule for finding in check([Configuration(Meta(name="w"), [webhook])], now=now)]


def test_the_webhook_of_the_documentation(authority: tuple[str, float]) -> None:
    """It fails closed, for device pods alone, and is trusted for months."""
    bundle, now = authority

    assert [] == found(now, client_config=Client(service=SERVICE, ca_bundle=bundle))


def test_a_certificate_that_ends(authority: tuple[str, float]) -> None:
    """A warning for thirty days, then an error."""
    bundle, now = authority
    trust = Client(service=SERVICE, ca_bundle=bundle)

    assert ["webhook-expires"] == found(now + 71 * DAY, client_config=trust)
    assert ["webhook-trust"] == found(now + 101 * DAY, client_config=trust)


def test_a_certificate_of_no_authority(tmp_path: Path) -> None:
    """Until when it is valid cannot be told: it is said, not taken for fine."""
    bundle = a_bundle(tmp_path, days=1, authority=False)

    assert ["not-checked"] == found(0, client_config=Client(service=SERVICE, ca_bundle=bundle))


@pytest.mark.parametrize(
    "bundle", ["", "%%%", base64.b64encode(b"rubbish").decode(), base64.b64encode(b"\xff").decode()]
)
def test_a_service_that_is_not_trusted(bundle: str) -> None:
    """The API server could not call it."""
    assert ["webhook-trust"] == found(0, client_config=Client(service=SERVICE, ca_bundle=bundle))


def test_an_address_may_be_trusted_by_the_system() -> None:
    """A caBundle is needed for a service alone."""
    assert [] == found(0, client_config=Client(url="https://hami.example/webhook"))


@pytest.mark.parametrize(("fields", "rule"), [
    ({"failure_policy": "Ignore"}, "webhook-ignores"),
    ({"failure_policy": "Ignore", "match_conditions": None}, "webhook-ignores"),
    ({"match_conditions": None}, "webhook-stops-all"),
    ({"timeout_seconds": 1}, "webhook-hurries"),
])  # fmt: skip
def test_what_happens_while_the_webhook_is_away(fields: dict[str, Any], rule: str) -> None:
    """To device pods, or to all."""
    assert [rule] == found(0, client_config=Client(url="https://hami.example/webhook"), **fields)


def test_a_second_webhook_for_pods_without_devices() -> None:
    """Beside one that fails closed it may ignore failures; without conditions of its own it would be for all pods."""
    conditions = [{"name": "x"}]
    closed = Webhook(name="vgpu.hami.io", client_config=Client(url="https://w"), match_conditions=conditions)

    def judged(**fields: Any) -> list[str]:
        second = Webhook(name="hide-cards.hami.io", client_config=Client(url="https://w"), **fields)
        return [finding.rule for finding in check([Configuration(Meta(name="w"), [closed, second])], now=0)]

    assert [] == judged(failure_policy="Ignore", match_conditions=conditions)
    assert ["webhook-ignores"] == judged(failure_policy="Ignore", match_conditions=None)


def test_no_webhook_of_ours() -> None:
    """Others' webhooks do not count."""
    other = Configuration(Meta(name="istio"), [Webhook(name="sidecar.istio.io")])

    assert ["webhook-missing"] == [finding.rule for finding in check([other], now=0)]
