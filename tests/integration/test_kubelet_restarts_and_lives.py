"""Restarts of the kubelet and the lives of pods, one measured behaviour per test."""

import json
from pathlib import Path

import pytest
from hami_testkit.cluster.faults import Fault
from hami_testkit.cluster.kubelet import Kubelet

from tests.integration.one_node import (
    GPU,
    QUICK,
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


# Restarts of the kubelet


async def test_a_restart_wipes_the_sockets_and_asks_nobody_for_running_pods(node: OneNode) -> None:
    """Plugins register anew; within half a second nothing is noticed, and pods bound meanwhile start."""
    async with node.plugin(ScriptedPlugin(IDS), offers=4) as plugin:
        await node.apply(a_gpu_pod("p"))
        await node.wait_phase("p", "Running")
        (node.kubelet.plugins / "left-over.sock").touch()
        await node.kubelet.stop()
        await node.apply(a_gpu_pod("q"))
        await node.kubelet.restart()
        wiped = not (node.kubelet.plugins / "left-over.sock").exists()
        await node.wait_phase("q", "Running")

        assert wiped
        assert 2 == len(plugin.allocated) == len(set(plugin.allocated))
        assert ("4", "4") == await node.counts()


async def test_pods_bound_during_a_restart_fail_if_the_plugin_is_slow(node: OneNode) -> None:
    """Until it has registered again, nothing is allocatable."""
    async with node.plugin(ScriptedPlugin(IDS), offers=4):
        pass
    await node.kubelet.stop()
    await node.apply(a_gpu_pod("p"))
    await node.kubelet.restart()
    status = await node.wait_phase("p", "Failed")

    assert "no healthy devices present" in status["message"]
    assert "0" == (await node.counts())[1]


async def test_the_checkpoint_remembers_who_has_what(node: OneNode) -> None:
    """It is written after each Allocate, init containers among them, by NUMA node (-1: none)."""
    async with node.plugin(ScriptedPlugin(IDS), offers=4) as plugin:
        init = [a_container("setup", limits={GPU: 1})]
        [pod] = await node.apply(a_pod("p", a_container(limits={GPU: 1}), init=init))
        await node.wait_phase("p", "Running")
        [ids, _] = plugin.allocated
        data = json.loads((node.kubelet.plugins / "kubelet_internal_checkpoint").read_text())["Data"]
        entries = [
            (e["PodUID"], e["ContainerName"], e["ResourceName"], e["DeviceIDs"]) for e in data["PodDeviceEntries"]
        ]

    uid = pod["metadata"]["uid"]
    assert [(uid, name, GPU, {"-1": list(ids)}) for name in ("setup", "main")] == entries


async def test_after_a_lost_checkpoint_every_id_is_offered_again(node: OneNode) -> None:
    """One that a running pod holds can go to a new pod; only the plugin's own table prevents it."""
    async with node.plugin(ScriptedPlugin(IDS[:1]), offers=1) as plugin:
        await node.apply(a_gpu_pod("p"))
        await node.wait_phase("p", "Running")
        await node.kubelet.restart(lose_checkpoint=True)
        await node.apply(a_gpu_pod("q"))
        await node.wait_phase("q", "Running")

        assert [("card-0",), ("card-0",)] == plugin.allocated
        async with node.pod_resources() as view:
            assert {"p": {"main": []}, "q": {"main": ["card-0"]}} == await view.listed()


async def test_a_container_that_restarts_after_a_lost_checkpoint_asks_beside_the_main_loop(node: OneNode) -> None:
    """Its calls come from the pod's worker, while another pod is in admission."""
    async with node.plugin(ScriptedPlugin(IDS, prefers=True), offers=4) as plugin:
        await node.apply(a_gpu_pod("p"))
        await node.wait_phase("p", "Running")
        await node.kubelet.restart(lose_checkpoint=True)
        await node.wait_offer(GPU, 4)
        gate = Gate(plugin)
        await node.apply(a_gpu_pod("q"))
        await gate.entered.wait()
        node.kubelet.crash("default", "p", "main")
        await until(lambda: len(plugin.allocated) == 3)
        gate.opened.set()
        await node.wait_phase("q", "Running")


# The length of a pod's life


@pytest.mark.parametrize(
    ("command", "restart", "phase"),
    [
        (["true"], "Never", "Succeeded"),
        (["sh", "-c", "exit 3"], "Never", "Failed"),
        (["/bin/sleep", "0.1"], "OnFailure", "Succeeded"),
    ],
)
async def test_a_short_pod_ends_by_its_command(node: OneNode, command: list[str], restart: str, phase: str) -> None:
    """As its restartPolicy lets it."""
    await node.apply(a_pod("p", a_container(command=command), restart=restart))

    await node.wait_phase("p", phase)


async def test_a_pod_runs_for_the_seconds_that_it_says(node: OneNode) -> None:
    """The annotation ends it for good, whatever its restartPolicy, sidecars and all."""
    wanted = {"standin.hami.io/run-seconds": "0.1", "standin.hami.io/exit-code": "7"}
    sidecar = a_container("side", restartPolicy="Always")
    await node.apply(a_pod("p", a_container(), annotations=wanted, init=[sidecar]))
    status = await node.wait_phase("p", "Failed")

    assert 7 == status["containerStatuses"][0]["state"]["terminated"]["exitCode"]
    assert "terminated" in status["initContainerStatuses"][0]["state"]


async def test_init_containers_end_well_before_the_containers_start(node: OneNode) -> None:
    """Meanwhile the pod is Pending and has a start time, which a pod in admission has not."""
    init = [a_container("setup"), a_container("side", restartPolicy="Always")]
    await node.apply(a_pod("p", a_container(), init=init, annotations={"standin.hami.io/init-seconds": "0.3"}))

    async def initialising() -> bool:
        return "startTime" in await node.status("p")

    await until(initialising)
    early = await node.status("p")
    late = await node.wait_phase("p", "Running")

    assert "Pending" == early["phase"]
    assert "running" in early["initContainerStatuses"][0]["state"]
    assert 0 == late["initContainerStatuses"][0]["state"]["terminated"]["exitCode"]
    assert [True, True] == [late["initContainerStatuses"][1]["started"], late["containerStatuses"][0]["started"]]


async def test_a_deleted_pod_holds_its_ids_until_its_containers_have_stopped(node: OneNode) -> None:
    """Then the object goes."""
    async with node.plugin(ScriptedPlugin(IDS[:1]), offers=1), node.pod_resources() as view:
        [pod] = await node.apply(a_gpu_pod("p", annotations={"standin.hami.io/stop-seconds": "0.4"}))
        folder = node.kubelet.root / "pods" / pod["metadata"]["uid"]
        await node.wait_phase("p", "Running")
        await node.delete("p")
        shown = (await view.listed(), folder.exists())
        await node.wait_gone("p")

        assert ({"p": {"main": ["card-0"]}}, True) == shown
        assert not folder.exists()


async def test_force_deletion_frees_ids_while_the_container_runs_on(node: OneNode) -> None:
    """A new pod has the same ID beside it; only the pod's folder still tells."""
    async with node.plugin(ScriptedPlugin(IDS[:1]), offers=1) as plugin:
        [pod] = await node.apply(a_gpu_pod("p", annotations={"standin.hami.io/stop-seconds": "0.5"}))
        uid = pod["metadata"]["uid"]
        await node.wait_phase("p", "Running")
        await node.delete("p", grace=0)
        await node.apply(a_gpu_pod("q"))
        await node.wait_phase("q", "Running")

        assert node.kubelet.has_containers(uid)
        assert (node.kubelet.root / "pods" / uid).exists()
        assert [("card-0",), ("card-0",)] == plugin.allocated
        await until(lambda: not node.kubelet.has_containers(uid))


async def test_a_pod_deleted_before_its_admission_still_gets_its_allocate(node: OneNode) -> None:
    """It queued behind a slow one; the main loop takes what comes in order."""
    async with node.plugin(ScriptedPlugin(IDS), offers=4) as plugin:
        gate = Gate(plugin)
        await node.apply(a_gpu_pod("slow"), a_gpu_pod("p"))
        await gate.entered.wait()
        await node.delete("p", grace=0)
        await node.wait_gone("p")
        gate.opened.set()
        await until(lambda: len(plugin.allocated) == 2)


# Housekeeping


async def test_a_clean_stop_leaves_no_sockets() -> None:
    """Neither the kubelet's nor the plugin's."""
    async with one_node() as node:
        async with node.plugin(ScriptedPlugin(IDS), offers=4):
            pass
        await node.kubelet.stop()
        left = [file.name for file in node.kubelet.root.rglob("*.sock")]

    assert [] == left


async def test_a_root_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    """A socket's path has 107 bytes at most."""
    async with one_node() as node:
        long = Kubelet(node.api, "n2", tmp_path / ("x" * 100), options=QUICK)
        with pytest.raises(ExceptionGroup) as refused:
            async with long.running():
                pass

    assert "choose a shorter root" in str(refused.value.exceptions[0])


async def test_statuses_survive_an_api_server_that_is_away_for_a_while(node: OneNode) -> None:
    """The kubelet goes on, and writes when it can."""
    async with node.plugin(ScriptedPlugin(IDS), offers=4) as plugin:
        node.cluster.faults.set(Fault(kind="refuse", verb="patch", resource="pods/status", times=2))
        await node.apply(a_gpu_pod("p"))
        await node.wait_phase("p", "Running")

        assert 1 == len(plugin.allocated)
