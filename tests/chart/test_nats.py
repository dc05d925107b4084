"""The bundled NATS with the chart's configuration: who may do what there, and three servers as one."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
from hami_model.bus import subjects
from hami_testkit.processes import BIN, Spec, free_port, processes
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from tests.chart.rendering import CHART, Rendered, render
from tests.chart.running import Installation, installation

PAGE = (CHART.parents[2] / "docs" / "reference" / "bus.md").read_text()
READY = 30.0
THREE = ("nats.replicas=3,nats.seed=same",)


def rights(found: Rendered) -> dict[str, tuple[list[str], list[str]]]:
    """Return what each user may publish and hear, as the server is told."""
    entry = r"user: (\S+), password: \S+\s+permissions \{\s+publish: (\[.*])\s+subscribe: (\[.*])"
    return {
        user: (json.loads(may), json.loads(hears))
        for user, may, hears in re.findall(entry, found.secret("hami-nats", "nats.conf"))
    }


def test_the_page_says_who_may_do_what() -> None:
    """Whoever runs NATS elsewhere gives the same rights to the same users."""
    rows = dict(re.findall(r"^\| `(\S+)` \| (.*) \|$", PAGE.partition("## Who may do what")[2], re.MULTILINE))
    told = {user: [re.findall(r"`([^`]+)`", cell) for cell in row.split(" | ")] for user, row in rows.items()}
    common = {"_INBOX.>", "$SRV.>"}

    assert told == {
        user: [may, [subject for subject in hears if subject not in common]]
        for user, (may, hears) in rights(render()).items()
    }


def test_nobody_but_the_allocator_speaks_for_it() -> None:
    """Neither a node's allocation nor the leader's word can come from another service."""
    said_by_the_allocator = [subjects.LEADER, subjects.of_any_node("allocation"), subjects.event(">")]
    others = [may for user, (may, _) in rights(render()).items() if user != "allocator"]

    assert [] == [subject for may in others for subject in may if subject in said_by_the_allocator]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Installation]:
    installed = installation(tmp_path)
    async with processes(tmp_path) as started:
        await (await started.start(installed.nats())).wait_ready(READY)
        yield installed


@asynccontextmanager
async def connected(url: str, told: list[str]) -> AsyncIterator[Client]:
    async def hear(error: Exception) -> None:
        told.append(str(error))

    client = await nats.connect(url, error_cb=hear, allow_reconnect=False)
    try:
        yield client
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("webhook", subjects.BIND),
        ("webhook", subjects.FILTER),
        ("extender", subjects.of_node("n1", "allocation")),
        ("node-agent", subjects.BIND),
        ("node-agent", subjects.of_node("n1", "allocation")),
        ("node-agent", subjects.LEADER),
        ("reader", subjects.FILTER),
        ("allocator", subjects.of_node("n1", "confirm")),
        ("reader", "$JS.API.STREAM.DELETE.HAMI_EVENTS"),
    ],
)
async def test_a_service_cannot_do_anothers_work(server: Installation, user: str, subject: str) -> None:
    """Whoever takes over the webhook cannot book devices with its password."""
    told: list[str] = []
    async with connected(server.url(user), told) as client, asyncio.timeout(READY):
        await client.publish(subject, b"{}")
        await client.flush()
        while not told:
            await asyncio.sleep(0.01)

    assert "permissions violation for publish" in told[0].lower()


async def test_a_process_answers_a_roll_call_for_all_that_it_runs(server: Installation) -> None:
    """A leader that answers questions too is two services on one connection, and both must be heard."""
    told: list[str] = []
    async with connected(server.url("allocator"), told) as one, connected(server.url("reader"), told) as asker:
        for name in (b"deciding", b"reading"):

            async def answer(msg: Msg, name: bytes = name) -> None:
                await msg.respond(name)

            await one.subscribe("$SRV.PING", cb=answer)
        await one.flush()
        inbox = await asker.subscribe(found := asker.new_inbox())
        await asker.publish("$SRV.PING", b"", reply=found)
        heard = {(await inbox.next_msg(timeout=READY)).data for _ in range(2)}

    assert ({b"deciding", b"reading"}, []) == (heard, told)


async def test_strangers_are_turned_away(server: Installation) -> None:
    """Without a password, or with another one, there is no connection."""
    for url in (f"nats://127.0.0.1:{server.ports.nats}", f"nats://reader:guess@127.0.0.1:{server.ports.nats}"):
        client = Client()
        try:
            with pytest.raises(NatsError, match=r"(?i)authorization"):
                await client.connect(url, allow_reconnect=False, connect_timeout=5)
        finally:
            await client.close()


async def test_three_servers_are_one(tmp_path: Path) -> None:
    """They find each other, and JetStream has a leader."""
    monitors = [free_port() for _ in range(3)]
    specs = _cluster(render(*THREE).secret("hami-nats", "nats.conf"), tmp_path, monitors)
    async with processes(tmp_path) as started, httpx.AsyncClient(trust_env=False) as http:
        for running in [await started.start(spec) for spec in specs]:
            await running.wait_ready(READY)
        async with asyncio.timeout(READY):
            while not (led := await _meta(http, monitors[0])).get("leader") or led.get("cluster_size") != 3:
                await asyncio.sleep(0.1)

    assert led["leader"] in {"hami-nats-0", "hami-nats-1", "hami-nats-2"}


def _cluster(config: str, folder: Path, monitors: list[int]) -> list[Spec]:
    routes = [free_port() for _ in monitors]
    for number, route in enumerate(routes):
        config = config.replace(f"hami-nats-{number}.hami-nats-headless.kube-system.svc:6222", f"127.0.0.1:{route}")
    specs = []
    for number, (route, monitor) in enumerate(zip(routes, monitors, strict=True)):
        text = config.replace("port: 4222", f'listen: "127.0.0.1:{free_port()}"')
        text = text.replace("http_port: 8222", f'http: "127.0.0.1:{monitor}"')
        text = text.replace("port: 6222", f'listen: "127.0.0.1:{route}"')
        path = folder / f"{number}.conf"
        path.write_text(text.replace("/data/jetstream", str(folder / f"jetstream-{number}")))
        command, env = [str(BIN / "nats-server"), "-c", str(path)], {"POD_NAME": f"hami-nats-{number}"}
        ready = f"http://127.0.0.1:{monitor}/healthz?js-server-only=true"
        specs.append(Spec(name=f"nats-{number}", command=command, env=env, ready_url=ready))
    return specs


async def _meta(http: httpx.AsyncClient, monitor: int) -> dict[str, Any]:
    found: dict[str, Any] = (await http.get(f"http://127.0.0.1:{monitor}/jsz")).json().get("meta_cluster") or {}
    return found


def test_passwords_follow_from_a_seed() -> None:
    """So that what ``helm template`` gives for GitOps is the same each time; without a seed they are drawn."""
    one, same, other = render(*THREE), render("nats.seed=same"), render("nats.seed=other")

    assert one.secret("hami-nats", "allocator") == same.secret("hami-nats", "allocator")
    assert one.secret("hami-nats", "allocator") != other.secret("hami-nats", "allocator")
    assert one.secret("hami-nats", "allocator") != one.secret("hami-nats", "webhook")
    assert render().secret("hami-nats", "allocator") != render("logLevel=debug").secret("hami-nats", "allocator")


async def test_the_server_is_the_one_that_is_tested_here() -> None:
    """The image's tag is the version of the server that all tests run on."""
    command = str(BIN / "nats-server"), "--version"
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    version = said.decode().rpartition("v")[2].strip()

    assert f"nats:{version}-alpine" == render().container("hami-nats", "nats")["image"]


def test_services_take_the_way_to_an_external_nats() -> None:
    """Each with its own credentials, and no other's."""
    found = render(
        "nats.enabled=false,nats.external.url=tls://nats:4222,nats.external.credsSecret=c,nats.external.caSecret=ca"
    )
    env = found.environment("hami-webhook", "webhook")
    volumes = {v["name"]: v for v in next(s for n, s in found.pods() if n == "hami-webhook")["volumes"]}

    assert ("tls://nats:4222", "/etc/nats/creds/webhook.creds", "/etc/nats/ca/ca.crt") == (
        env["HAMI_NATS_URL"],
        env["HAMI_NATS_CREDS"],
        env["HAMI_NATS_CA"],
    )
    assert [{"key": "webhook.creds", "path": "webhook.creds"}] == volumes["nats-creds"]["secret"]["items"]
    assert not found.has("StatefulSet", "hami-nats")
