"""Where the doctor looks: the API server, kube-scheduler's configuration, the webhooks, the Lease, accounts, the bus.

One rule: each look is a function of its own that returns findings; whatever keeps it from looking leaves as an error of
the kit, which the checkup turns into "not checked".
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import httpx
import msgspec
from hami_kit.bus import BusSettings, Serving
from hami_kit.errors import KubeForbidden, KubeNotFound, SettingsError
from hami_kit.kube import Kube
from hami_kit.kube.rights import ACCOUNT, Deed, deeds, may
from hami_kit.kube.server import Server
from hami_kit.setting_values import read_object_name
from hami_model.bus import subjects
from hami_model.bus.messages import Following
from hami_model.inspection import Finding
from hami_model.objects import Meta
from msgspec import Struct, field

from hamictl import session
from hamictl.doctor import rules, scheduler, webhook

LEASE = "hami-allocator"
CONFIG_MAPS = "/api/v1/configmaps"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
NEEDED = (1, 30)
CLOCK_TOLERANCE = 2.0
ROLL_CALL = 2.0
"""Seconds that services on the bus may take to say that they are there; a follower says so each second."""

ON_THE_BUS = ("hami-allocator", "hami-extender", "hami-webhook")


class ConfigMap(Struct, frozen=True):
    """A ConfigMap, as far as it holds text."""

    metadata: Meta = field(default_factory=Meta)
    data: dict[str, str] | None = None


class _Account(Struct, frozen=True, rename="camel"):
    service_account_name: str = "default"


class _Pod(Struct, frozen=True):
    spec: _Account = field(default_factory=_Account)


def server(seen: Server) -> Iterator[Finding]:
    """Judge version and clock."""
    if seen.version.number < NEEDED:
        yield rules.KUBERNETES_OLD.broken(f"the API server is {seen.version.git_version or 'of an unknown version'}")
    if abs(seen.skew) > CLOCK_TOLERANCE:
        way = "ahead of" if seen.skew > 0 else "behind"
        yield rules.CLOCK_OFF.broken(f"the clock of this machine is {abs(seen.skew):.0f} s {way} the API server's")


async def scheduler_config(kube: Kube, file: Path | None, wanted: scheduler.Wanted) -> list[Finding]:
    """Judge kube-scheduler's configuration, from the file or from the ConfigMaps that hold one."""
    if file is not None:
        return list(scheduler.check(str(file), await asyncio.to_thread(_text, file), wanted))
    found = [text async for text in _configurations(kube, wanted.scheduler)]
    if not found:
        why = f"no ConfigMap holds one that names {wanted.scheduler}; name the file with --scheduler-config"
        return [rules.unchecked("kube-scheduler's configuration", why)]
    return [finding for where, text in found for finding in scheduler.check(where, text, wanted)]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is no text"
        raise SettingsError("--scheduler-config", f'"{file}" cannot be read ({why})') from e


async def _configurations(kube: Kube, name: str) -> AsyncIterator[tuple[str, str]]:
    async for page in kube.pages(CONFIG_MAPS, {}):
        for raw in page.items:
            found = msgspec.json.decode(raw, type=ConfigMap)
            for key, text in (found.data or {}).items():
                if scheduler.concerns_us(text, name):
                    yield f"{key} of ConfigMap {found.metadata.namespace}/{found.metadata.name}", text


async def webhooks(kube: Kube, *, now: float) -> list[Finding]:
    """Judge the webhook configurations."""
    listed = await kube.list_raw(WEBHOOKS, {})
    return list(webhook.check([msgspec.json.decode(raw, type=webhook.Configuration) for raw in listed.items], now=now))


async def lease(kube: Kube, namespace: str, *, now: float) -> tuple[str, list[Finding]]:
    """Judge the Lease; return who holds it, empty for nobody."""
    where = f"Lease {namespace}/{LEASE}"
    try:
        spec = (await kube.get_lease(namespace, LEASE)).spec
    except KubeNotFound:
        return "", [rules.NO_LEADER.broken(f"{where} is not there")]
    if not spec.holder_identity or not spec.renew_time:
        return "", [rules.NO_LEADER.broken(f"{where} is held by nobody")]
    age = now - datetime.fromisoformat(spec.renew_time).timestamp()
    if age > (spec.lease_duration_seconds or 0) + CLOCK_TOLERANCE:
        says = f"{where} of {spec.holder_identity} was renewed {age:.0f} s ago for the last time"
        return "", [rules.NO_LEADER.broken(says)]
    if age < -CLOCK_TOLERANCE:
        says = f"the clock of {spec.holder_identity} is {-age:.0f} s ahead of the API server's"
        return spec.holder_identity, [rules.CLOCK_OFF.broken(says)]
    return spec.holder_identity, []


async def account_of(kube: Kube, namespace: str, holder: str) -> str:
    """Return the account of the pod that leads, by its Lease; empty where it is no pod of that namespace."""
    try:
        pod = read_object_name(holder.rpartition("-")[0])
        raw = await kube.transport.call("GET", f"/api/v1/namespaces/{read_object_name(namespace)}/pods/{pod}")
    except (ValueError, KubeNotFound, KubeForbidden):
        return ""
    return f"{ACCOUNT}{namespace}:{msgspec.json.decode(raw, type=_Pod).spec.service_account_name}"


async def rights(kube: Kube, program: str, account: str, *, lease_namespace: str) -> list[Finding]:
    """Judge the rights of a service's account, one sentence for each that is missing."""
    missing = [d for d in deeds(program, lease_namespace=lease_namespace) if not await may(kube, d, account=account)]
    return [rules.RIGHT_MISSING.broken(f"{account} may not {deed}, which the {program} has to") for deed in missing]


async def own_rights(kube: Kube, *, lease_namespace: str) -> list[Deed]:
    """Return what we may not do ourselves."""
    return [d for d in deeds("hamictl doctor", lease_namespace=lease_namespace) if not await may(kube, d)]


async def on_the_bus(where: BusSettings) -> list[Finding]:
    """Judge who answers on the bus."""
    followers: set[str] = set()

    async def hear(_subject: str, beat: Following) -> None:
        followers.add(beat.identity)

    async with session.bus(where) as opened:
        await opened.subscribe(subjects.FOLLOWER, Following, hear)
        found = await opened.roll_call(seconds=ROLL_CALL)
        return list(serving(found, followers=len(followers)))


def serving(found: Iterable[Serving], *, followers: int) -> Iterator[Finding]:
    """Judge a roll call, and how many followers were heard meanwhile."""
    present = list(found)
    names = [one.name for one in present]
    for name in ON_THE_BUS:
        if name not in names:
            why = " (no allocator leads)" if name == "hami-allocator" else ""
            yield rules.SERVICE_MISSING.broken(f"no {name} answers on the bus{why}")
    if not followers:
        yield rules.NO_FOLLOWER.broken("no allocator says on the bus that it follows")
    ours = version("hamictl")
    others = sorted({f"{one.name} {one.version}" for one in present if one.name.startswith("hami-")})
    if any(one.version != ours for one in present if one.name.startswith("hami-")):
        yield rules.VERSIONS_DIFFER.broken(f"hamictl is {ours}, on the bus are {', '.join(others)}")


async def on_the_cards(where: BusSettings) -> list[Finding]:
    """Tell what node-agents see on their nodes and should not."""
    return [
        rules.DRIFT.broken(
            f"node {use.node}: {drift.kind}: {drift.says}",
            node=use.node,
            card=drift.device,
            pod=str(drift.pod) if drift.pod is not None else "",
        )
        for use in (await session.snapshot(where)).nodes
        for drift in use.drift
    ]


async def ready(url: str) -> list[Finding]:
    """Judge a service's ``/readyz``."""
    try:
        async with httpx.AsyncClient(timeout=session.CONNECTING, trust_env=False) as client:
            answer = await client.get(url)
    except (httpx.HTTPError, httpx.InvalidURL) as e:
        return [rules.NOT_READY.broken(f"{url} does not answer: {e or type(e).__name__}")]
    if answer.is_success:
        return []
    return [rules.NOT_READY.broken(f"{url} answers {answer.status_code}: {' '.join(answer.text.split())[:500]}")]
