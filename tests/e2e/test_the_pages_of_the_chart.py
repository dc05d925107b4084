"""The pages on installing, monitoring and uninstalling are followed word for word: nothing is left behind in the end.

One rule: every command that stands there is typed, in its order, or stands below with the reason why it is not. Those
of the page on upgrading from HAMi are typed where that story is told.
"""

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import yaml
from hami_testkit.check import assert_nothing_wrong

from tests.chart.running import NAMES, Ports
from tests.e2e.pages import Command, commands
from tests.e2e.site import Site, a_site, values_here
from tests.e2e.story import Story, a_pod, served

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
NODE = "gpu-a"
PLACES = {"NODE": NODE, "REGISTRY": "registry.example"}
DEADLINE = 60.0
NOT_TYPED = {
    "kubectl -n kube-system port-forward": "the kubelet here streams nothing; NATS runs beside it, where that leads",
    "make images": "it needs a Docker engine, which machines that run tests may lack",
    "for s in webhook": "there is no registry to push to",
}
WORKLOADS = {
    "daemonset.apps/hami-device-plugin", "deployment.apps/hami-allocator", "deployment.apps/hami-scheduler",
    "deployment.apps/hami-webhook", "statefulset.apps/hami-nats",
}  # fmt: skip
AS_CERT_MANAGER_LEAVES_IT = "kubectl -n kube-system create secret generic hami-webhook-tls"
PASSING = "events"
"""A kind of which everybody makes some, and which go by themselves."""


class Reader:
    """Somebody who reads the pages, and types what stands there."""

    def __init__(self, site: Site, ports: Ports) -> None:
        self.left_out: set[str] = set()
        self._site = site
        self._ports = ports

    async def follow(self, page: str) -> AsyncIterator[tuple[Command, str]]:
        """Type the page's commands one after the other; yield each, with what it printed."""
        for command in commands(f"how-to/{page}.md"):
            if reason := next((start for start in NOT_TYPED if command.text.startswith(start)), ""):
                self.left_out.add(reason)
            else:
                yield command, await self._type(command)

    async def _type(self, command: Command) -> str:
        text = command.text
        for theirs, ours in {**PLACES, ":4222": f":{self._ports.nats}"}.items():
            text = text.replace(theirs, ours)
        match shlex.split(text.partition("$")[0])[:2]:
            case ["helm", "install"]:
                return await self._site.type(f"{text} -f here.yaml")
            case ["export", given]:
                name = given.partition("=")[0]
                self._site.remember(name, (await self._site.type(f"{text}; printenv {name}")).strip())
                return ""
            case ["hamictl", "doctor"]:
                return await self._site.until_well(text)
            case _:
                return await self._site.type(text)


async def everything(site: Site) -> set[str]:
    """Return what is in the cluster: every object's kind, namespace and name, with labels and annotations of nodes."""
    kinds = (await site.type("kubectl api-resources --verbs=list -o name")).split()
    listed = ",".join(kind for kind in kinds if not kind.startswith(PASSING))
    line = '{range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}{"\\n"}{end}'
    found = set((await site.type(f"kubectl get {listed} -A -o jsonpath='{line}'")).split())
    nodes = json.loads(await site.type("kubectl get nodes -o json"))["items"]
    marks = ({**n["metadata"].get("labels", {}), **n["metadata"].get("annotations", {})} for n in nodes)
    return found | {f"{key}={value}" for mark in marks for key, value in mark.items()}


@pytest.fixture
async def site(with_helm: Path) -> AsyncIterator[Site]:
    """A cluster that knows nothing of us, and its one node with cards."""
    async with a_site(with_helm, [NODE]) as site:
        yield site


async def test_the_pages_are_followed_from_install_to_uninstall(site: Site) -> None:
    """Pods get their cards by what the pages say and keep them throughout, and the cluster ends as it began."""
    story, ports = Story(site), Ports.free(NAMES)
    reader = Reader(site, ports)
    values = {**values_here(ports), "nats": {"persistence": {"enabled": True}}}
    (site.place / "here.yaml").write_text(yaml.safe_dump(values))
    before = await everything(site)

    async with AsyncExitStack() as stack:
        async for command, said in reader.follow("install"):
            if command.text.startswith("helm install"):
                await stack.enter_async_context(site.services(ports, [served(NODE)]))
                await story.create(a_pod("p", (1, 3000)))
            if command.text.startswith("kubectl -n kube-system get all"):
                assert WORKLOADS <= set(said.split())
        await story.wait_served("p")
        pod, gifts = await story.get("p"), story.gifts("p")

        async for command, said in reader.follow("monitor"):
            assert "this cluster knows no ServiceMonitor: none was made" in said, command
        boards = await site.type("kubectl -n kube-system get configmap -l grafana_dashboard=1 -o name")
        await story.create(a_pod("q", (1, 4000)))
        await story.wait_served("q")
        await assert_nothing_wrong(site.kubeconfig)

        async for command, _ in reader.follow("uninstall"):
            if command.text.startswith("helm uninstall"):
                await stack.aclose()
                await site.type(AS_CERT_MANAGER_LEAVES_IT)

    assert (pod, gifts) == (await story.get("p"), story.gifts("p"))
    assert 2 == len(boards.split())
    assert set(NOT_TYPED) == reader.left_out
    await site.type("kubectl delete pod p q")
    await until_alike(before, site)


async def until_alike(before: set[str], site: Site) -> None:
    """Wait until the cluster is as it was: controllers and kubelets clear up after what was deleted."""
    differs = {"?"}
    try:
        async with asyncio.timeout(DEADLINE):
            while differs := before ^ await everything(site):
                pass
    except TimeoutError as e:
        raise AssertionError(f"left behind, or lost: {sorted(differs)}") from e
