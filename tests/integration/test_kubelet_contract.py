"""What we rely on from a kubelet and its device-plugin API, one measured behaviour per test."""

import json
from collections.abc import Awaitable, Callable, Iterable

import grpc
import pytest
from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as dp
from hami_kit.kubelet.deviceplugin_v1beta1_pb2_grpc import RegistrationStub
from hami_testkit.cluster.kubelet import Options
from hami_testkit.cluster.plugins.plugin import PluginRefusedError

from tests.integration.one_node import (
    GPU,
    Gate,
    OneNode,
    ScriptedPlugin,
    a_container,
    a_gpu_pod,
    a_pod,
    one_node,
    until,
)  # fmt: skip

IDS = ("card-0", "card-1", "card-2", "card-3")


def refusing(text: str, code: grpc.StatusCode = grpc.StatusCode.INTERNAL) -> Callable[[object], Awaitable[None]]:
    """Return an answer that is an error."""

    async def refuse(_: object) -> None:
        raise PluginRefusedError(text, code)

    return refuse


# Registration


async def test_the_kubelet_calls_back_while_the_plugin_registers(node: OneNode) -> None:
    """A plugin that does not serve yet cannot register."""
    async with grpc.aio.insecure_channel(f"unix://{node.kubelet.plugins / 'kubelet.sock'}") as channel:
        request = dp.RegisterRequest(version="v1beta1", endpoint="absent.sock", resource_name=GPU)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await RegistrationStub(channel).Register(request)

    assert "failed to dial device plugin" in str(refused.value.details())


@pytest.mark.parametrize(
    ("version", "resource", "text"),
    [("v1alpha1", GPU, "is not supported by kubelet"), ("v1beta1", "gpu", "is invalid")],
)
async def test_a_strange_registration_is_refused(node: OneNode, version: str, resource: str, text: str) -> None:
    """Only v1beta1, and only names with a domain."""
    async with grpc.aio.insecure_channel(f"unix://{node.kubelet.plugins / 'kubelet.sock'}") as channel:
        request = dp.RegisterRequest(version=version, endpoint="x.sock", resource_name=resource)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await RegistrationStub(channel).Register(request)

    assert text in str(refused.value.details())


async def test_capacity_and_allocatable_follow_the_plugins_list(node: OneNode) -> None:
    """An unhealthy ID lowers allocatable alone, a shorter list both; pods that run stay."""
    async with node.plugin(ScriptedPlugin(IDS), offers=4) as plugin:
        await node.apply(a_gpu_pod("p"))
        await node.wait_phase("p", "Running")
        plugin.device_plugin.mark(healthy=False, ids=["card-0"])
        await node.wait_offer(GPU, 3, capacity=4)
        plugin.device_plugin.offer(IDS[:2])
        await node.wait_offer(GPU, 2, capacity=2)

        assert (await node.status("p"))["phase"] == "Running"


async def test_a_dead_plugin_leaves_capacity_and_nothing_allocatable() -> None:
    """Its pods fail until it is back; capacity goes after the grace time."""
    async with one_node(Options(plugin_grace=0.3)) as node:
        async with node.plugin(ScriptedPlugin(IDS), offers=4):
            pass
        await node.wait_offer(GPU, 0, capacity=4)
        await node.apply(a_gpu_pod("p"))
        failed = await node.wait_phase("p", "Failed")
        await node.wait_offer(GPU, 0, capacity=0)

        assert "no healthy devices present; cannot allocate unhealthy devices" in failed["message"]
        async with node.plugin(ScriptedPlugin(IDS), offers=4):
            await node.apply(a_gpu_pod("q"))
            await node.wait_phase("q", "Running")


# Allocate


async def test_one_container_at_a_time_in_order_with_one_request_each(node: OneNode) -> None:
    """GetPreferredAllocation, then Allocate, for init containers and then containers; the answer's IDs are the next."""
    async with node.plugin(ScriptedPlugin(IDS, prefers=True), offers=4) as plugin:
        pod = a_pod("p", a_container("a", limits={GPU: 1}), a_container("b", limits={GPU: 2}))
        await node.apply(pod)
        await node.wait_phase("p", "Running")

        assert ["GetPreferredAllocation", "Allocate"] * 2 == plugin.names
        assert [1, 2] == plugin.sizes
        assert [("card-0",), ("card-1", "card-2")] == plugin.allocated


async def test_nobody_is_asked_for_a_preference_without_the_option(node: OneNode) -> None:
    """The option that GetDevicePluginOptions tells counts."""
    async with node.plugin(ScriptedPlugin(IDS), offers=4) as plugin:
        await node.apply(a_gpu_pod("p"))
        await node.wait_phase("p", "Running")

        assert ["Allocate"] == plugin.names


@pytest.mark.parametrize("preferred", [[], ["card-9"], ["card-3"], ["card-3", "card-2", "card-1"]])
async def test_an_inexact_preference_is_only_a_hint(node: OneNode, preferred: list[str]) -> None:
    """With too few, unknown or too many IDs the kubelet still takes exactly as many as asked for, of its own choice."""

    async def prefer(_: object) -> Iterable[str]:
        return preferred

    plugin = ScriptedPlugin(IDS, prefers=True)
    plugin.on_prefer = prefer
    async with node.plugin(plugin, offers=4):
        await node.apply(a_gpu_pod("p", 2))
        await node.wait_phase("p", "Running")

        assert 2 == len(plugin.allocated[0])
        assert set(IDS) >= set(plugin.allocated[0])


async def test_an_init_containers_ids_are_reused_without_asking(node: OneNode) -> None:
    """The next container that they cover gets them, in an Allocate of its own; a sidecar keeps its own."""
    init = [a_container("setup", limits={GPU: 1}), a_container("side", limits={GPU: 1}, restartPolicy="Always")]
    async with node.plugin(ScriptedPlugin(IDS, prefers=True), offers=4) as plugin:
        await node.apply(a_pod("p", a_container("a", limits={GPU: 1}), init=init))
        await node.wait_phase("p", "Running")

        assert ["GetPreferredAllocation", "Allocate", "Allocate", "GetPreferredAllocation", "Allocate"] == plugin.names
        assert [("card-0",), ("card-0",), ("card-1",)] == plugin.allocated


async def test_ids_that_cover_a_part_must_be_included(node: OneNode) -> None:
    """A container that wants more than its init container had is asked for, with the old ID in must_include."""
    async with node.plugin(ScriptedPlugin(IDS, prefers=True), offers=4) as plugin:
        await node.apply(a_pod("p", a_container("a", limits={GPU: 2}), init=[a_container("setup", limits={GPU: 1})]))
        await node.wait_phase("p", "Running")

        assert ("GetPreferredAllocation", ("card-0",)) == plugin.calls[2]
        assert ("card-0", "card-1") == plugin.allocated[1]


async def test_a_resource_that_nobody_serves_means_nothing(node: OneNode) -> None:
    """HAMi's memory and cores are such: the pod starts, and no plugin is asked for them."""
    async with node.plugin(ScriptedPlugin(IDS), offers=4) as plugin:
        await node.apply(a_pod("p", a_container(limits={"example.com/mem": 3000, GPU: 1})))
        await node.wait_phase("p", "Running")

        assert ["Allocate"] == plugin.names


async def test_a_hanging_allocate_holds_up_every_pod_of_the_node(node: OneNode) -> None:
    """It has no deadline and runs in the main loop: even a pod without devices waits."""
    async with node.plugin(ScriptedPlugin(IDS), offers=4) as plugin:
        gate = Gate(plugin)
        await node.apply(a_gpu_pod("p"), a_pod("plain", a_container()))
        await gate.entered.wait()
        meanwhile = [await node.status("plain") for _ in range(50)]
        gate.opened.set()
        await node.wait_phase("plain", "Running")

        assert {"Pending"} == {status["phase"] for status in meanwhile}
        assert not [status for status in meanwhile if "startTime" in status]


# Failing


async def test_a_refused_allocate_is_terminal_with_the_plugins_words(node: OneNode) -> None:
    """Whatever the restartPolicy, the pod fails and is not tried again."""
    plugin = ScriptedPlugin(IDS)
    plugin.on_allocate = refusing("no pod of mine")
    async with node.plugin(plugin, offers=4):
        await node.apply(a_gpu_pod("p", restart="Always"))
        status = await node.wait_phase("p", "Failed")

    assert "UnexpectedAdmissionError" == status["reason"]
    expected = "Allocate failed due to rpc error: code = Internal desc = no pod of mine, which is unexpected"
    assert f"Pod was rejected: {expected}" == status["message"]
    assert ["Allocate"] == plugin.names


async def test_a_refused_preference_is_terminal_too(node: OneNode) -> None:
    """The kubelet says which call it was."""
    plugin = ScriptedPlugin(IDS, prefers=True)
    plugin.on_prefer = refusing("whose is it?", grpc.StatusCode.FAILED_PRECONDITION)  # type: ignore[assignment]
    async with node.plugin(plugin, offers=4):
        await node.apply(a_gpu_pod("p"))
        status = await node.wait_phase("p", "Failed")

    why = "device plugin GetPreferredAllocation rpc failed with err"
    assert f"{why}: rpc error: code = FailedPrecondition desc = whose is it?" in status["message"]
    assert ["GetPreferredAllocation"] == plugin.names


async def test_an_empty_answer_fails_the_pod_and_leaks_its_ids(node: OneNode) -> None:
    """The IDs stay in use until a pod with devices has ended: then they are counted anew."""
    plugin = ScriptedPlugin(IDS[:2])
    async with node.plugin(plugin, offers=2):
        await node.apply(a_gpu_pod("p"))
        await node.wait_phase("p", "Running")
        plugin.on_allocate = _empty
        await node.apply(a_gpu_pod("q"))
        await node.wait_phase("q", "Failed")
        plugin.on_allocate = plugin.answer
        await node.apply(a_gpu_pod("r"))
        leaked = await node.wait_phase("r", "Failed")
        await node.delete("p")
        await node.wait_gone("p")
        await node.apply(a_gpu_pod("s"))
        await node.wait_phase("s", "Running")

    assert f"requested number of devices unavailable for {GPU}. Requested: 1, Available: 0" in leaked["message"]


async def _empty(_: list[str]) -> None:
    """Answer without a response."""


async def test_too_few_devices_fail_the_pod(node: OneNode) -> None:
    """The kubelet does not wait for devices either."""
    async with node.plugin(ScriptedPlugin(IDS), offers=4):
        await node.apply(a_gpu_pod("p", 5))
        status = await node.wait_phase("p", "Failed")

    assert f"requested number of devices unavailable for {GPU}. Requested: 5, Available: 4" in status["message"]


# What a container gets


async def test_a_container_gets_what_the_plugin_answered(node: OneNode) -> None:
    """Environment, mounts, device nodes, annotations; of the environment the pod's own words win."""
    response = dp.ContainerAllocateResponse(
        envs={"LIMIT": "3000m", "MINE": "plugin"}, annotations={"note": "1"},
        mounts=[dp.Mount(container_path="/in", host_path="/out", read_only=True)],
        devices=[dp.DeviceSpec(container_path="/dev/a", host_path="/dev/b", permissions="rw")],
        cdi_devices=[dp.CDIDevice(name="x/y=z")],
    )  # fmt: skip

    async def answer(_: list[str]) -> dp.ContainerAllocateResponse:
        return response

    plugin = ScriptedPlugin(IDS)
    plugin.on_allocate = answer
    async with node.plugin(plugin, offers=4):
        own = [{"name": "MINE", "value": "pod"}]
        [pod] = await node.apply(a_pod("p", a_container(limits={GPU: 1}, env=own)))
        await node.wait_phase("p", "Running")
        given = node.kubelet.given("default", "p", "main")
        file = node.kubelet.root / "containers" / f"{pod['metadata']['uid']}_main.json"
        written = json.loads(file.read_text())

    assert given is not None
    assert {"LIMIT": "3000m", "MINE": "pod"} == node.env("p") == written["env"]
    assert [{"container": "/in", "host": "/out", "read_only": True}] == written["mounts"]
    assert [{"container": "/dev/a", "host": "/dev/b", "permissions": "rw"}] == written["devices"]
    assert ({"note": "1"}, ("x/y=z",)) == (given.annotations, given.cdi_devices)
    assert {GPU: list(plugin.allocated[0])} == written["ids"]


async def test_prestart_comes_before_each_start_and_only_delays_it(node: OneNode) -> None:
    """An error is not terminal: the container waits in CreateContainerConfigError and is tried again."""
    plugin = ScriptedPlugin(IDS, prepares=True)
    plugin.on_prepare = refusing("not yet")
    async with node.plugin(plugin, offers=4):
        await node.apply(a_gpu_pod("p"))

        async def waits() -> bool:
            statuses = (await node.status("p")).get("containerStatuses") or [{}]
            waiting = statuses[0].get("state", {}).get("waiting") or {}
            return waiting.get("reason") == "CreateContainerConfigError" and "not yet" in waiting["message"]

        await until(waits)
        await node.apply(a_pod("plain", a_container()))
        await node.wait_phase("plain", "Running")
        plugin.on_prepare = plugin.nothing
        await node.wait_phase("p", "Running")

    assert ("PreStartContainer", plugin.allocated[0]) == plugin.calls[1]


async def test_a_container_that_starts_again_is_not_allocated_again(node: OneNode) -> None:
    """It has the answer from before; only PreStartContainer is called once more."""
    async with node.plugin(ScriptedPlugin(IDS, prepares=True), offers=4) as plugin:
        await node.apply(a_gpu_pod("p"))
        await node.wait_phase("p", "Running")
        node.kubelet.crash("default", "p", "main")

        async def restarted() -> bool:
            told = (await node.status("p"))["containerStatuses"][0]
            return bool(told["restartCount"] == 1 and told["started"])

        await until(restarted)
        told = (await node.status("p"))["containerStatuses"][0]

    assert 137 == told["lastState"]["terminated"]["exitCode"]
    assert ["Allocate", "PreStartContainer", "PreStartContainer"] == plugin.names
