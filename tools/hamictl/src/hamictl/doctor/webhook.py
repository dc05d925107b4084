"""Reading MutatingWebhookConfigurations as the API server would, as far as they decide about device pods.

One rule: a webhook is ours when it, or the object it stands in, is named so; what others' webhooks do is theirs.
"""

import base64
import binascii
import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from hami_model.inspection import Finding
from hami_model.objects import Meta
from msgspec import Struct, field

from hamictl.doctor import rules

SOON = 30 * 24 * 3600.0
LEAST_SECONDS = 2


class Service(Struct, frozen=True):
    """Where the API server finds the webhook in the cluster."""

    namespace: str = ""
    name: str = ""


class Client(Struct, frozen=True, rename="camel"):
    """How the API server calls the webhook."""

    service: Service | None = None
    url: str = ""
    ca_bundle: str = ""


class Webhook(Struct, frozen=True, kw_only=True, rename="camel"):
    """One entry of ``webhooks``."""

    name: str = ""
    client_config: Client = field(default_factory=Client)
    failure_policy: str = "Fail"
    timeout_seconds: int = 10
    match_conditions: list[dict[str, str]] | None = None


class Configuration(Struct, frozen=True):
    """A MutatingWebhookConfiguration."""

    metadata: Meta = field(default_factory=Meta)
    webhooks: list[Webhook] | None = None


def check(configurations: Sequence[Configuration], *, now: float) -> Iterator[Finding]:
    """Yield what is wrong with our webhooks among all; ``now`` in unix seconds."""
    ours = [(c.metadata.name, w) for c in configurations for w in c.webhooks or () if _is_ours(c.metadata.name, w)]
    if not ours:
        yield rules.WEBHOOK_MISSING.broken(
            f"none of {len(configurations)} MutatingWebhookConfigurations, nor any webhook in them, is named after hami"
        )
    closed = {name for name, webhook in ours if webhook.failure_policy == "Fail"}
    for name, webhook in ours:
        where = f"webhook {webhook.name} of {name}"
        # beside one that fails closed, another of the same configuration may be for pods without devices
        if webhook.failure_policy == "Ignore" and not (name in closed and webhook.match_conditions):
            yield rules.WEBHOOK_IGNORES.broken(f"{where} has failurePolicy: Ignore")
        yield from _check_one(where, webhook, now)


def _is_ours(configuration: str, webhook: Webhook) -> bool:
    return "hami" in configuration or "hami" in webhook.name


def _check_one(where: str, webhook: Webhook, now: float) -> Iterator[Finding]:
    if webhook.failure_policy == "Fail" and not webhook.match_conditions:
        yield rules.WEBHOOK_STOPS_ALL.broken(f"{where} has failurePolicy: Fail and no matchConditions")
    if webhook.timeout_seconds < LEAST_SECONDS:
        yield rules.WEBHOOK_HURRIES.broken(f"{where} has timeoutSeconds: {webhook.timeout_seconds}")
    client = webhook.client_config
    if client.ca_bundle:
        yield from _check_trust(where, client.ca_bundle, now)
    elif client.service is not None:
        yield rules.WEBHOOK_TRUST.broken(f"{where} calls a service and has no caBundle")


def _check_trust(where: str, bundle: str, now: float) -> Iterator[Finding]:
    try:
        ends = _ends(base64.b64decode(bundle, validate=True).decode())
    except (binascii.Error, ValueError, ssl.SSLError) as e:
        yield rules.WEBHOOK_TRUST.broken(f"the caBundle of {where} cannot be read: {e}")
        return
    if not ends:
        yield rules.unchecked(f"until when the caBundle of {where} is valid", "it holds no certificate of an authority")
    for subject, end in ends:
        until = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%d")
        if end <= now:
            yield rules.WEBHOOK_TRUST.broken(f"certificate {subject} in the caBundle of {where} expired on {until}")
        elif end - now < SOON:
            yield rules.WEBHOOK_EXPIRES.broken(f"certificate {subject} in the caBundle of {where} expires on {until}")


def _ends(pem: str) -> list[tuple[str, float]]:
    """Return each authority's name with the end of its certificate, in unix seconds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem)
    return [(_common_name(found), ssl.cert_time_to_seconds(found["notAfter"])) for found in context.get_ca_certs()]  # type: ignore[arg-type]


def _common_name(certificate: object) -> str:
    subject = certificate["subject"] if isinstance(certificate, dict) else ()
    names = [value for part in subject for key, value in part if key == "commonName"]
    return names[0] if names else "without a name"
