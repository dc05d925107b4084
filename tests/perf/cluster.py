"""A big cluster's API server as a program: nodes with cards, bound pods that hold devices, and as many that hold none.

One rule: its objects are as large as a real API server's (managed fields, conditions, volumes, tolerations), since
reading them is what a start costs. They are put into the store directly: over HTTP it would take minutes.
"""

import argparse
import asyncio
import gc
import signal
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from hami_testkit.cluster.resources import NODES, PODS, RESOURCES
from hami_testkit.cluster.simulated import Standin
from hami_testkit.cluster.store import Store

from tests.perf import caller, fleets

Json = dict[str, Any]

HOLDERS = 4
"""Pods with devices on each node: a quarter of its cards each, so that half of its memory is booked on average."""
OTHERS = 4
"""Pods without devices on each node: agents, exporters, web servers."""

_BORN = "2026-01-01T00:00:00Z"


def main() -> None:
    """Serve the cluster until a signal ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--kubeconfig-out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--nodes", type=int, required=True)
    asyncio.run(_serve(parser.parse_args()))


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    gc.disable()  # what is served here stays: no collection may come between
    async with Standin.start(listen=options.listen) as cluster:
        fill(cluster.registry.store, options.nodes)
        cluster.kubeconfig(options.kubeconfig_out)
        await stop.wait()


def fill(store: Store, nodes: int) -> None:
    """Put nodes and pods in place as they stand after weeks; nobody watches yet."""
    for index in range(nodes):
        store.put(NODES, node(index))
    for pod in pods(nodes):
        store.put(PODS, pod)
    for resource in RESOURCES:  # their history is over, as after weeks
        store.of(resource).compact(store.revision)


def node(index: int) -> Json:
    """Return a node with its cards, and what a kubelet and its controllers write."""
    made = fleets.node(index)
    meta = made["metadata"]
    meta |= {"uid": _uid("node", index), "creationTimestamp": _BORN, "managedFields": list(_fields("kubelet", 40))}
    meta["labels"] = {f"example.com/label-{at}": "some-value" for at in range(20)} | {
        "kubernetes.io/hostname": meta["name"]
    }
    conditions = ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")
    made["status"] |= {
        "conditions": [
            {
                "type": kind,
                "status": "True" if kind == "Ready" else "False",
                "reason": f"KubeletHas{kind}",
                "message": "kubelet is posting ready status",
                "lastHeartbeatTime": _BORN,
                "lastTransitionTime": _BORN,
            }
            for kind in conditions
        ],
        "images": [
            {
                "names": [f"registry.example.com/team/image-{at}@sha256:{at:064x}", f"registry.example.com/i-{at}:1"],
                "sizeBytes": 1_000_000 + at,
            }
            for at in range(30)
        ],
        "nodeInfo": dict.fromkeys(("machineID", "systemUUID", "bootID", "kernelVersion", "osImage"), "some-value"),
    }
    return made


def pods(nodes: int) -> Iterator[Json]:
    """Yield all pods: of each node those with devices, then those without."""
    for index in range(nodes):
        for at in range(HOLDERS):
            yield holder(index, at)
        for at in range(OTHERS):
            yield other(index, at)


def holder(index: int, at: int) -> Json:
    """Return a running pod that holds a share of a quarter of its node's cards."""
    percent = 40 + (index + at * 7) % 21
    held = fleets.held(index, range(at * 2, at * 2 + 2), percent)
    made = caller.pod(index * HOLDERS + at)
    made["metadata"] |= {
        "name": f"holder-{index}-{at}",
        "namespace": fleets.NAMESPACE,
        "uid": _uid("holder", index * HOLDERS + at),
        "annotations": held.annotations,
        "labels": {**made["metadata"]["labels"], "hami.io/vgpu-node": fleets.name_of(index)},
    }
    made["spec"]["containers"][0]["resources"] = {"limits": held.asked, "requests": held.asked}
    return _running(made, index)


def other(index: int, at: int) -> Json:
    """Return a running pod that asks for no device."""
    made = caller.pod(index * OTHERS + at)
    amounts = {"cpu": "250m", "memory": "512Mi"}
    made["metadata"] |= {
        "name": f"web-{index}-{at}",
        "namespace": "shop",
        "uid": _uid("other", index * OTHERS + at),
        "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
    }
    made["spec"]["containers"][0]["resources"] = {"limits": amounts, "requests": amounts}
    return _running(made, index)


def _running(made: Json, index: int) -> Json:
    """Add what the API server, the scheduler and the kubelet write of a pod that runs."""
    made["metadata"]["managedFields"] = [*_fields("kube-controller-manager", 25), *_fields("kubelet", 15)]
    made["spec"] |= {
        "nodeName": fleets.name_of(index),
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "priority": 0,
        "enableServiceLinks": True,
    }
    conditions = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    made["status"] = {
        "phase": "Running",
        "conditions": [
            {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": _BORN} for kind in conditions
        ],
        "hostIP": "10.0.0.1",
        "podIP": "10.1.0.1",
        "podIPs": [{"ip": "10.1.0.1"}],
        "startTime": _BORN,
        "containerStatuses": [
            {
                "name": "main",
                "state": {"running": {"startedAt": _BORN}},
                "lastState": {},
                "ready": True,
                "restartCount": 0,
                "started": True,
                "image": "registry.example.com/team-a/train:1",
                "imageID": f"registry.example.com/team-a/train@sha256:{index:064x}",
                "containerID": f"containerd://{index:064x}",
            }
        ],
        "qosClass": "Burstable",
    }
    return made


@cache
def _fields(manager: str, count: int) -> list[Json]:
    """Return what an API server keeps of who wrote which field: often the larger half of an object."""
    fields: Json = {f"f:field-number-{at}": {".": {}, "f:inner": {}} for at in range(count)}
    entry = {"manager": manager, "operation": "Update", "apiVersion": "v1", "time": _BORN, "fieldsType": "FieldsV1"}
    return [{**entry, "fieldsV1": {"f:metadata": fields}}]


def _uid(kind: str, number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{kind}-{number}"))


if __name__ == "__main__":
    main()
