"""``hamictl doctor`` at a prompt: a stand-in cluster, a real NATS server, and what it finds there."""

import asyncio
from collections.abc import AsyncIterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from hami_kit.bus import Bus, Serving
from hami_kit.clock import SystemClock, rfc3339
from hami_kit.kube.server import Server, Version
from hami_model.bus import subjects
from hami_model.bus.messages import Drift, Following, NodeUse
from hami_model.objects import PodRef
from hami_testkit.cluster import Standin
from hami_testkit.cluster.faults import Fault
from hami_testkit.cluster.resources import LEASES, NODES, PODS, RESOURCES, WEBHOOKS
from hami_testkit.nats import NatsServer
from hami_testkit.processes import free_port
from hami_testkit.stack import scheduler_config
from hamictl.doctor import places

from .conftest import Allocator, Prompt, Said, a_bundle

CONFIG_MAPS = next(resource for resource in RESOURCES if resource.name == "configmaps")
ACCOUNTS = ["--allocator-as", "system:serviceaccount:hami:allocator", "--agent-as", "system:serviceaccount:hami:agent"]


class Clinic:
    """An installation in which everything is as it should be, until the test changes it."""

    def __init__(self, prompt: Prompt, cluster: Standin) -> None:
        self.prompt = prompt
        self.cluster = cluster

    async def doctor(self, *words: str) -> Said:
        return await self.prompt.hamictl("doctor", "-o", "json", *(words or ACCOUNTS))

    async def rules(self, *words: str) -> list[str]:
        return [finding["rule"] for finding in (await self.doctor(*words)).json]

    async def put(self, resource: Any, name: str, namespace: str = "", **fields: Any) -> None:
        await self.cluster.registry.create(resource, {"metadata": {"name": name}, **fields}, namespace=namespace)

    def change(self, resource: Any, namespace: str, name: str, **fields: Any) -> None:
        self.cluster.registry.patch(resource, (namespace, name), lambda obj: {**obj, **fields}, dry_run=False)


@pytest.fixture(scope="module")
def ca_bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return a_bundle(tmp_path_factory.mktemp("ca"), days=90)


def configuration() -> dict[str, Any]:
    profile = {"schedulerName": "hami-scheduler", "percentageOfNodesToScore": 100}
    return scheduler_config("http://127.0.0.1:8080") | {"profiles": [profile]}


def a_lease(*, ago: float = 0.0, holder: str = "allocator-0-abc") -> dict[str, Any]:
    renewed = rfc3339(SystemClock().now() - ago)
    return {"holderIdentity": holder, "leaseDurationSeconds": 12, "renewTime": renewed}


async def follow(bus: Bus) -> None:
    """Say again and again, as a follower does, that it is there."""
    while True:
        await bus.publish(subjects.FOLLOWER, Following(identity="allocator-1-def"))
        await asyncio.sleep(0.2)


@pytest.fixture
async def clinic(
    prompt: Prompt, bus: Bus, allocator: Allocator, tmp_path: Path, ca_bundle: str
) -> AsyncIterator[Clinic]:
    async with Standin.start() as cluster:
        prompt.export("KUBECONFIG", cluster.kubeconfig(tmp_path / "kubeconfig"))
        clinic = Clinic(prompt, cluster)
        await clinic.put(CONFIG_MAPS, "scheduler", "hami", data={"config.yaml": yaml.safe_dump(configuration())})
        service = {"service": {"namespace": "hami", "name": "webhook"}, "caBundle": ca_bundle}
        hook = {"name": "vgpu.hami.io", "clientConfig": service, "failurePolicy": "Fail", "timeoutSeconds": 5,
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
                "matchConditions": [{"name": "never", "expression": "false"}],
                "admissionReviewVersions": ["v1"], "sideEffects": "None"}  # fmt: skip
        await clinic.put(WEBHOOKS, "hami-webhook", webhooks=[hook])
        await clinic.put(LEASES, "hami-allocator", "kube-system", spec=a_lease())
        for name in places.ON_THE_BUS:
            await bus.serve(name, ())
        following = asyncio.create_task(follow(bus))
        yield clinic
        following.cancel()


async def test_an_installation_that_is_well(clinic: Clinic) -> None:
    """Nothing is found, nothing is left unchecked, and the exit code says so."""
    said = await clinic.prompt.hamictl("doctor", *ACCOUNTS)

    assert (0, "nothing is wrong, and everything was checked\n") == (said.code, said.out)


async def test_what_is_wrong_stands_with_its_way_out(clinic: Clinic) -> None:
    """As lines for people; the exit code is 1."""
    bad = configuration()
    bad["extenders"][0]["ignorable"] = True
    clinic.change(CONFIG_MAPS, "hami", "scheduler", data={"config.yaml": yaml.safe_dump(bad)})
    said = await clinic.prompt.hamictl("doctor", *ACCOUNTS)

    assert 1 == said.code
    assert ["error", "extender-ignorable"] == said.rows[0]
    assert "config.yaml of ConfigMap hami/scheduler has ignorable: true" in said.out
    assert "write `ignorable: false`, or leave it out" in said.out


async def test_a_file_instead_of_the_config_map(clinic: Clinic, tmp_path: Path) -> None:
    """For a kube-scheduler that reads it from a disk; without either it is not checked."""
    clinic.cluster.registry.delete(CONFIG_MAPS, ("hami", "scheduler"), {})
    file = tmp_path / "scheduler.yaml"
    file.write_text(yaml.safe_dump(configuration() | {"extenders": []}))

    assert ["not-checked"] == await clinic.rules()
    assert ["extender-missing"] == await clinic.rules("--scheduler-config", str(file), *ACCOUNTS)


async def test_vendors_that_take_no_part(clinic: Clinic) -> None:
    """kube-scheduler need not send the pods of a vendor that is switched off."""
    without = configuration()
    without["extenders"][0]["managedResources"] = [
        each for each in without["extenders"][0]["managedResources"] if not each["name"].startswith("iluvatar.ai/")
    ]
    clinic.change(CONFIG_MAPS, "hami", "scheduler", data={"config.yaml": yaml.safe_dump(without)})

    assert ["extender-resources"] == await clinic.rules()
    clinic.prompt.export("HAMI_ENABLE_ILUVATAR", "false")
    assert [] == await clinic.rules()


async def test_a_card_given_twice(clinic: Clinic) -> None:
    """The checker of the fault tests runs here too."""
    register = '[{"id":"GPU-0","count":10,"devmem":8000,"devcore":100,"health":true}]'
    amounts = {"nvidia.com/gpu": "10"}
    await clinic.cluster.registry.create(NODES, {
        "metadata": {"name": "n1", "annotations": {"hami.io/node-nvidia-register": register}},
        "status": {"allocatable": amounts, "capacity": amounts}})  # fmt: skip
    for name in ("a", "b"):
        said = {"hami.io/vgpu-node": "n1", "hami.io/vgpu-devices-allocated": "GPU-0,NVIDIA,5000,0:;"}
        container = {"name": "main", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
        spec = {"nodeName": "n1", "schedulerName": "hami-scheduler", "containers": [container]}
        meta = {"name": name, "annotations": said}
        await clinic.cluster.registry.create(PODS, {"metadata": meta, "spec": spec}, namespace="default")
    said_of = (await clinic.doctor()).json

    assert [("over-memory", "GPU-0", 8000, 10000)] == [(f["rule"], f["card"], f["had"], f["used"]) for f in said_of]


@pytest.mark.parametrize(("holder", "ago", "rule"), [
    ("", 0.0, ["no-leader"]), ("allocator-0-abc", 60.0, ["no-leader"]), ("allocator-0-abc", -60.0, ["clock-off"]),
])  # fmt: skip
async def test_nobody_leads_or_the_leaders_clock_is_off(
    clinic: Clinic, holder: str, ago: float, rule: list[str]
) -> None:
    """The Lease tells, by the API server's clock."""
    clinic.change(LEASES, "kube-system", "hami-allocator", spec=a_lease(holder=holder, ago=ago))

    assert rule == await clinic.rules()


async def test_rights_that_are_missing(clinic: Clinic) -> None:
    """Of the services one sentence each; of hamictl itself, what could not be looked at."""
    account = "system:serviceaccount:hami:allocator"
    clinic.cluster.reviews.forbidden = {(account, "create", "pods/binding"), (account, "update", "leases")}
    found = (await clinic.doctor()).json

    assert [
        f"{account} may not create pods/binding, which the allocator has to",
        f"{account} may not update leases.coordination.k8s.io in kube-system, which the allocator has to",
    ] == [finding["says"] for finding in found]
    clinic.cluster.reviews.forbidden = {("", "list", "configmaps")}
    assert ["not-checked"] == await clinic.rules()


async def test_the_account_of_the_pod_that_leads(clinic: Clinic) -> None:
    """Found by the Lease; where it cannot be found, the rights are not checked."""
    spec = {"serviceAccountName": "leader", "containers": [{"name": "main"}]}
    await clinic.put(PODS, "allocator-0", "kube-system", spec=spec)
    account = "system:serviceaccount:kube-system:leader"
    clinic.cluster.reviews.forbidden = {(account, "patch", "nodes")}

    assert ["right-missing"] == await clinic.rules(*ACCOUNTS[2:])
    clinic.cluster.registry.delete(PODS, ("kube-system", "allocator-0"), {"gracePeriodSeconds": 0})
    assert ["not-checked"] == await clinic.rules(*ACCOUNTS[2:])


async def test_what_may_not_be_read_is_not_fine(clinic: Clinic) -> None:
    """One look that is refused leaves the others alone."""
    clinic.cluster.faults.set(Fault(kind="refuse", verb="list", resource="mutatingwebhookconfigurations", code=403))
    found = (await clinic.doctor()).json

    assert ["not checked"] == [finding["severity"] for finding in found]
    assert found[0]["says"].startswith("the webhook's configuration: ")


async def test_nats_is_away(clinic: Clinic) -> None:
    """The rest is still checked."""
    clinic.prompt.hurry()
    clinic.prompt.export("HAMI_NATS_URL", f"nats://127.0.0.1:{free_port()}")

    assert ["not-checked", "not-checked"] == await clinic.rules()


async def test_a_service_that_is_not_ready(clinic: Clinic, nats: NatsServer) -> None:
    """Asked where one says; a page that is there is fine."""
    there, nowhere = f"http://127.0.0.1:{nats.monitor_port}/healthz", f"http://127.0.0.1:{free_port()}/readyz"

    assert ["not-ready"] == await clinic.rules("--readyz", there, "--readyz", nowhere, *ACCOUNTS)


async def test_no_api_server(prompt: Prompt, tmp_path: Path) -> None:
    """Nothing was checked at all: exit code 2."""
    async with Standin.start() as cluster:
        prompt.export("KUBECONFIG", cluster.kubeconfig(tmp_path / "kubeconfig"))
    said = await prompt.hamictl("doctor")

    assert 2 == said.code
    assert said.sentence.startswith("nothing could be checked: the API server at")


async def test_a_file_that_cannot_be_read(clinic: Clinic, tmp_path: Path) -> None:
    """The flag is wrong, not the cluster."""
    said = await clinic.doctor("--scheduler-config", str(tmp_path / "missing"))

    assert (2, True) == (said.code, said.sentence.startswith("--scheduler-config: "))


def a_service(name: str, *, version: str = metadata.version("hamictl"), id: str = "1") -> Serving:  # noqa: A002
    return Serving(name=name, id=id, version=version)


@pytest.mark.parametrize(("change", "rule"), [
    ({"without": "hami-webhook"}, "service-missing"),
    ({"without": "hami-allocator"}, "service-missing"),
    ({"followers": 0}, "no-follower"),
    ({"version": "0.0.9"}, "versions-differ"),
])  # fmt: skip
def test_who_is_not_on_the_bus(change: dict[str, Any], rule: str) -> None:
    """A service that is away, a leader without a follower, an upgrade that is not finished."""
    others = [a_service(name) for name in places.ON_THE_BUS if name != change.get("without")]
    older = [a_service("hami-node-agent", version=change["version"])] if "version" in change else []

    found = places.serving([*others, *older], followers=change.get("followers", 1))
    assert [rule] == [finding.rule for finding in found]


@pytest.mark.parametrize(("version", "skew", "rules"), [
    (Version("1", "34+", "v1.34.2"), 0, []),
    (Version("1", "29", "v1.29.9"), 0, ["kubernetes-old"]),
    (Version(), 0, ["kubernetes-old"]),
    (Version("1", "30", "v1.30.0"), 90, ["clock-off"]),
    (Version("1", "30", "v1.30.0"), -90, ["clock-off"]),
])  # fmt: skip
def test_version_and_clock(version: Version, skew: float, rules: list[str]) -> None:
    """Of the API server, and of the machine that asks."""
    server = Server(version=version, time=1000, asked=1000 + skew, answered=1000 + skew)

    assert rules == [finding.rule for finding in places.server(server)]


async def test_it_judges_by_the_settings_of_the_services(clinic: Clinic) -> None:
    """Written as they read them; a longer bind needs a longer httpTimeout, and what is no duration is said."""
    clinic.prompt.export("HAMI_BIND_TIMEOUT", "1m")
    assert ["extender-timeout"] == await clinic.rules()
    clinic.prompt.export("HAMI_BIND_TIMEOUT", "soon")
    said = await clinic.doctor()

    assert (2, True) == (said.code, said.sentence.startswith('HAMI_BIND_TIMEOUT: "soon"'))


async def test_what_node_agents_see_and_should_not(clinic: Clinic, allocator: Allocator) -> None:
    """As the allocator heard it."""
    drift = Drift(kind="wrong-card", says="process 7 …", device="GPU-b", pod=PodRef("team-a", "train", "uid"))
    allocator.pages = [[NodeUse(node="gpu-a", drift=[drift])]]
    (found,) = (await clinic.doctor()).json

    assert ("drift", "warning", "node gpu-a: wrong-card: process 7 …") == (
        found["rule"],
        found["severity"],
        found["says"],
    )
    assert ("gpu-a", "GPU-b", "team-a/train") == (found["node"], found["card"], found["pod"])
