"""kube-scheduler's side of ``/filter``: one connection that is kept, one call after another.

One rule: what is timed is the whole call, its own writing and reading included; the bodies are made beforehand.
"""

import http.client
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import msgspec
from msgspec import Struct

PODS = 200
"""So many pods take turns: one asked about again gives back what it had reserved, so the fleet stays half full."""

_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_ASKED = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "1000", "nvidia.com/gpucores": "1"}
_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


class Call(Struct, frozen=True):
    """One call: how long it took, and which node it named."""

    seconds: float
    node: str


def pod(index: int) -> dict[str, Any]:
    """Return a pending pod with all that the API server adds to one."""
    name = f"train-{index}"
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "train", "uid": "1b7f0a0e", "controller": True}
    return {
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": f"7d9b1f52-6c0e-4c1b-9d0a-{index:012d}",
            "resourceVersion": "123456",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "train", "batch.kubernetes.io/job-name": "train", "controller-uid": "1b7f0a0e"},
            "annotations": {"hami.io/allocator-term": "allocator-0"},
            "ownerReferences": [owner],
        },
        "spec": {
            "volumes": [{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
            "containers": [
                {
                    "name": "main",
                    "image": "registry.example.com/team-a/train:1",
                    "command": ["python", "-m", "train"],
                    "env": [{"name": "EPOCHS", "value": "10"}],
                    "resources": {"limits": _ASKED, "requests": _ASKED},
                    "volumeMounts": [{"name": "token", "readOnly": True, "mountPath": _MOUNT}],
                    "terminationMessagePath": "/dev/termination-log",
                    "imagePullPolicy": "IfNotPresent",
                }
            ],
            "restartPolicy": "Never",
            "serviceAccountName": "default",
            "schedulerName": "hami-scheduler",
            "tolerations": [{"key": k, "operator": "Exists", "effect": "NoExecute"} for k in _TAINTS],
        },
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    }


def bodies(names: Sequence[str]) -> list[bytes]:
    """Return the bodies of one round of calls."""
    raw = msgspec.Raw(msgspec.json.encode(names))
    return [msgspec.json.encode({"Pod": pod(i), "Nodes": None, "NodeNames": raw}) for i in range(PODS)]


class Caller:
    """One kept connection to the extender."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def call(self, body: bytes) -> Call:
        """Make one call; fail loudly where it names no node."""
        started = time.perf_counter()
        self._connection.request("POST", "/filter", body, {"content-type": "application/json"})
        text = self._connection.getresponse().read()
        seconds = time.perf_counter() - started
        answer = msgspec.json.decode(text)
        assert answer["NodeNames"], text[:500]
        return Call(seconds, answer["NodeNames"][0])


def one_by_one(url: str, offered: Sequence[bytes], *, seconds: float, most: int) -> list[Call]:
    """Call for so long, or so often, one call after another, as kube-scheduler does."""
    caller, until = Caller(url), time.perf_counter() + seconds
    calls: list[Call] = []
    try:
        for at in count():
            if at >= most or time.perf_counter() > until:
                return calls
            calls.append(caller.call(offered[at % len(offered)]))
    finally:
        caller.close()
    return calls


def side_by_side(url: str, offered: Sequence[bytes], *, callers: int, seconds: float) -> float:
    """Return how many calls a second are answered when several callers call at the same time."""
    shares = [offered[at::callers] for at in range(callers)]
    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        done = list(pool.map(lambda share: len(one_by_one(url, share, seconds=seconds, most=10**9)), shares))
    return sum(done) / (time.perf_counter() - started)
