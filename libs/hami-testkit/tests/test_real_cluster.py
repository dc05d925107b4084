"""A real control plane for the tests of the highest tier, started from binaries."""

import asyncio
import os
from pathlib import Path

import pytest
from hami_testkit.cluster.access import connect
from hami_testkit.processes import ProcessFailedError
from hami_testkit.real_cluster import control_plane, kube_scheduler

BINARIES = os.environ.get("HAMI_TEST_KUBE_BIN")


async def test_a_folder_without_the_binaries_is_refused(tmp_path: Path) -> None:
    """The refusal names the folder, what it lacks, and where to read on."""
    with pytest.raises(ProcessFailedError, match=r"holds no etcd; CONTRIBUTING\.md says how to build it"):
        async with control_plane(tmp_path, tmp_path):
            pass


@pytest.mark.e2e
@pytest.mark.timeout(300)
@pytest.mark.skipif(BINARIES is None, reason="HAMI_TEST_KUBE_BIN names no folder of Kubernetes' binaries")
async def test_a_real_scheduler_binds_a_pod_on_a_real_api_server(tmp_path: Path) -> None:
    """Everything is up inside the block: a node and a pod made there find each other."""
    pod = {"schedulerName": "hami-scheduler", "containers": [{"name": "main", "image": "busybox"}]}
    pods = "/api/v1/namespaces/default/pods"
    binaries = Path(str(BINARIES))

    async with (
        control_plane(binaries, tmp_path) as kubeconfig,
        kube_scheduler(binaries / "kube-scheduler", tmp_path, kubeconfig),
        connect(kubeconfig) as api,
        asyncio.timeout(60),
    ):
        await api.create("/api/v1/nodes", {"metadata": {"name": "n1"}, "status": {"capacity": {"pods": "10"}}})
        await api.create(pods, {"metadata": {"name": "p0"}, "spec": pod})
        node = await anext(node async for e in api.watch(pods) if (node := e["object"]["spec"].get("nodeName")))

    assert "n1" == node
