"""HAMi gives way to us in a cluster at work and takes over again, by the very commands of the page."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hami_testkit.cluster.faults import Fault
from hami_testkit.cluster.plugins.nvidia import MEMORY
from hami_testkit.cluster.status import ApiError

from tests.chart.running import NAMES, Ports
from tests.e2e.hami import ALLOCATED, HANDSHAKE, REGISTER, Json, Use, Uses, decode_pod
from tests.e2e.pages import Command, commands
from tests.e2e.site import ROOT, Site, a_site, values_here
from tests.e2e.story import Story, a_pod, notes, served

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
PAGE = "how-to/upgrade-from-hami.md"
HAMI = ROOT / "tests" / "chart" / "hami-2.10"
NODES = ("gpu-a", "gpu-b")
PLAIN = "plain"
"""A node without cards and without a kubelet."""
OURS = "app.kubernetes.io/instance=hami"
"""What our chart labels its objects with, and the one that stands for HAMi's does not."""
KINDS = ("deploy", "sts", "svc", "cm", "secret", "validatingadmissionpolicy", "networkpolicy", "pdb", "clusterrole")


class Page:
    """The page, whose commands are typed one after the other."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rest: Iterator[Command] = iter(commands(PAGE))

    async def follow(self, *texts: str) -> None:
        """Type the next commands, which have these texts in them."""
        for text in texts:
            command = next(self._rest)
            assert text in command.text, command
            await self._site.type(command.text.replace("REVISION", "1"))

    def is_done(self) -> bool:
        return next(self._rest, None) is None


def hamis_values(ports: Ports) -> Json:
    """Return what a user of HAMi has set: images of HAMi's, and where the API server finds the webhook."""
    values = values_here(ports)
    values["scheduler"]["extender"] = {"image": {"repository": "projecthami/hami"}}
    return {**values, "global": {"imageTag": "v2.10.0"}}


async def leave_it_at_work(story: Story) -> None:
    """Two pods run, one is bound and its kubelet has not heard of it, one has all but its Binding, and one waits.

    On a node without cards a pod failed while its plugin died; it holds the node for five minutes.
    """
    hami = story.hami
    await hami.ask()
    await story.create(
        a_pod("train", (1, 20_000)),
        a_pod("serve", (1, 8000), (0, 0), (2, 9000), init=(1, 12_000)),
        a_pod("late", (2, 30_000)),
        a_pod("half", (1, 5000)),
        a_pod("waits", (1, 7000)),
    )
    for name in ("train", "serve"):
        await hami.schedule(name, node="gpu-a")
        await story.wait_served(name)
    story.site.ways["gpu-b"].faults.set(Fault(kind="hold", resource="pods"))
    await hami.schedule("late", node="gpu-b")
    await hami.begin("half", node="gpu-a")
    await hami.lock("over", node=PLAIN)
    await story.fail("over", node=PLAIN)


async def give_way(site: Site, page: Page) -> None:
    """Follow the page to the upgrade; take out of the values what it says, and what is refused otherwise."""
    await page.follow("get values", "get cm", "config check")
    code, said = await site.try_to("helm upgrade hami deploy/chart/hami -n kube-system -f values.yaml")
    assert code, said
    assert "projecthami/hami" in said
    file = site.place / "values.yaml"
    values = yaml.safe_load(file.read_text())
    del values["global"], values["scheduler"]["extender"]
    file.write_text(yaml.safe_dump(values))
    await page.follow("helm upgrade")


async def see_it_taken_over(story: Story, page: Page) -> None:
    """Everything that HAMi left finds its end, and new pods come by our way."""
    story.site.ways["gpu-b"].faults.set(Fault(kind="release", resource="pods"))
    await page.follow("rollout status")
    await story.create(a_pod("too-much", (2, MEMORY), node="gpu-a"))
    await story.wait_served("late", "half", "waits")
    await story.until(lambda: _is_ours(story))
    await story.create(a_pod("fresh", (1, 6000)))
    await story.wait_served("fresh")
    await story.wait("too-much", lambda pod: "CardInsufficientMemory" in str(pod["status"].get("conditions")))
    await story.site.until_well(next(c.text for c in commands("how-to/install.md") if "hamictl doctor" in c.text))


async def _is_ours(story: Story) -> bool:
    """Say whether every node's cards are those that our agent tells of, as the allocator sees it."""
    told = json.loads(await story.site.type("hamictl nodes -o json"))
    return {"agent"} == {node["source"] for node in told if node["node"] != PLAIN}


async def booked(site: Site) -> Uses:
    """Return what our allocator has booked of each card."""
    told = json.loads(await site.type("hamictl nodes -o json"))
    cards = [card for node in told for card in node["devices"]]
    return {c["device"]["id"]: Use(c["used_slots"], c["used_memory"], c["used_cores"]) for c in cards}


async def held(site: Site, name: str) -> dict[str, list[int]]:
    """Return how much memory of each of its cards every container of a pod has, in our allocator's books."""
    pods = [booking["allocation"] for booking in json.loads(await site.type("hamictl pods -o json"))]
    (pod,) = [pod for pod in pods if pod["pod"]["name"] == name]
    return {c["name"]: [grant["memory"] for grant in c["grants"]] for c in pod["containers"] if c["grants"]}


async def given(story: Story, name: str) -> tuple[list[str], list[str]]:
    """Return the cards and limits of a pod's one container: what its annotation says, and what its plugin gave."""
    shares = decode_pod(notes(await story.get(name))[ALLOCATED])[0]
    env = story.gifts(name)["a"]
    limits = [env[f"CUDA_DEVICE_MEMORY_LIMIT_{at}"] for at in range(len(shares))]
    said = [f"{share.uuid} {share.memory}m" for share in shares]
    cards = env["NVIDIA_VISIBLE_DEVICES"].split(",")
    return said, [f"{uuid} {limit}" for uuid, limit in zip(cards, limits, strict=True)]


async def _is_placed(story: Story, name: str) -> bool:
    """Let HAMi place a pod, again and again: the API server forgets our policy a moment after it is gone."""
    try:
        await story.hami.schedule(name, node="gpu-a")
    except ApiError as refused:
        if "only the allocator decides" not in refused.message:
            raise
        return False
    return True


async def test_hami_gives_way_and_comes_back(with_helm: Path) -> None:
    """No pod that runs is touched, each is given what stands in its annotation, and no lock is left, there and back."""
    async with a_site(with_helm, NODES) as site:
        story, page, ports = Story(site), Page(site), Ports.free(NAMES)
        (site.place / "hamis.yaml").write_text(yaml.safe_dump(hamis_values(ports)))
        await site.type(f"helm install hami {HAMI} -n kube-system -f hamis.yaml")
        await site.type(f"kubectl label node {' '.join(NODES)} gpu=on")
        await site.api.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": PLAIN}})
        async with story.plugins():
            await leave_it_at_work(story)
            running = {name: (await story.get(name), story.gifts(name)) for name in ("train", "serve")}
            cards = await story.hami.cards()
            await give_way(site, page)
        async with site.services(ports, [served(node) for node in NODES]) as here:
            site.remember("HAMI_NATS_URL", here.url("reader"))
            await see_it_taken_over(story, page)
            our_books, our_use = await booked(site), await story.hami.use()
            of_serve = await held(site, "serve")
        our_cards = await story.hami.cards()
        await page.follow("history", "delete service", "rollback", "annotate nodes", "delete lease")
        async with story.plugins():
            await story.create(a_pod("again", (1, 3000)))
            await story.until(lambda: _is_placed(story, "again"))
            await story.wait_served("again")
        gifts = [await given(story, name) for name in ("late", "half", "waits", "fresh", "again")]
        objects = await site.type(f"kubectl get {','.join(KINDS)} -A -o name -l {OURS}")
        node_notes = {key for node in await story.nodes() for key in notes(node)}

        assert running == {name: (await story.get(name), story.gifts(name)) for name in running}
        assert our_books == our_use
        assert {"first": [12_000], "a": [8000], "c": [9000, 9000]} == of_serve
        assert cards == our_cards
        assert [said for said, _ in gifts] == [seen for _, seen in gifts]
        assert {REGISTER, HANDSHAKE} == node_notes
        assert "" == objects
        assert page.is_done()
