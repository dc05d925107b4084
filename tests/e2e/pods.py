"""Pods as users write them, whose containers tell what they were given.

One rule: every container asks for an amount of memory of its own, so that what one of them tells can be no other's.
"""

from collections.abc import Sequence
from typing import Any

from hami_model.units import rounded_up
from hami_testkit.box import IMAGE
from hami_testkit.real_node import Told

from tests.e2e.ground import Json

ALLOCATED = "hami.io/vgpu-devices-allocated"
FOREVER = -1.0


def a_container(name: str = "main", *, cards: int = 1, memory: int = 1000, seconds: float = FOREVER) -> Json:
    """Return a container that tells what it was given, and stays for so long; without cards it asks for none."""
    limits = {"nvidia.com/gpu": str(cards), "nvidia.com/gpumem": str(memory)} if cards else {}
    uid = {"fieldRef": {"fieldPath": "metadata.uid"}}
    return {
        "name": name, "image": IMAGE, "imagePullPolicy": "Never", "args": ["tell", str(seconds)],
        "env": [{"name": "CONTAINER", "value": name}, {"name": "POD_UID", "valueFrom": uid}],
        "resources": {"limits": limits}, "volumeMounts": [{"name": "out", "mountPath": "/out"}],
    }  # fmt: skip


def a_pod(name: str, *containers: Json, out: object, init: Sequence[Json] = (), **spec: Any) -> Json:
    """Return a pod for our scheduler; ``out`` is the folder of the node that its containers write to."""
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "schedulerName": "hami-scheduler", "hostNetwork": True, "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1, "containers": list(containers), "initContainers": list(init),
            "volumes": [{"name": "out", "hostPath": {"path": str(out)}}], **spec,
        },
    }  # fmt: skip


def booked(pod: Json) -> dict[str, list[tuple[str, int]]]:
    """Read which cards the pod's annotation gives to each container, and how many MiB of each.

    ``uuid,word,MiB,percent:`` for each card, ``;`` after each container, init containers first.
    """
    text = (pod["metadata"].get("annotations") or {}).get(ALLOCATED, "")
    groups = [[entry.split(",") for entry in group.split(":") if entry] for group in text.split(";")]
    names = [c["name"] for c in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"])]
    return {
        name: [(uuid, int(memory)) for uuid, _word, memory, _cores in group]
        for name, group in zip(names, groups, strict=False)
        if group
    }


def given(told: Told) -> list[tuple[str, int]]:
    """Read the same from the environment of a container."""
    cards = [card for card in told.env.get("NVIDIA_VISIBLE_DEVICES", "").split(",") if card]
    limits = [told.env.get(f"CUDA_DEVICE_MEMORY_LIMIT_{i}", "0m") for i in range(len(cards))]
    return [(card, int(limit.removesuffix("m"))) for card, limit in zip(cards, limits, strict=True)]


def asked(container: Json) -> tuple[int, int]:
    """Return how many cards a container asks for, and how many MiB of each; the API server writes 1k for 1000."""
    limits = container["resources"].get("limits") or {}
    return rounded_up(limits.get("nvidia.com/gpu", 0)) or 0, rounded_up(limits.get("nvidia.com/gpumem", 0)) or 0
