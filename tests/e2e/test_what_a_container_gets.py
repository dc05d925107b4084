"""A pod from its manifest to its devices, with every part real but the cards."""

import pytest

from tests.e2e.ground import NODE, Ground
from tests.e2e.pods import a_container, a_pod, booked, given

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


async def test_a_running_container_sees_the_cards_of_its_annotation(ground: Ground) -> None:
    """Two cards with their limits, the library, its preload file, the region's folder and the shared lock."""
    await ground.create(a_pod("p", a_container(cards=2, memory=3000), out=ground.node.out))
    pod = await ground.wait_running("p")

    (told,) = ground.told(pod)
    uid, home = pod["metadata"]["uid"], str(ground.system.plan.folder / "hook" / NODE / "vgpu")

    assert 2 == len(given(told))
    assert booked(pod)["main"] == given(told)
    assert {3000} == {memory for _, memory in given(told)}
    assert told.mounts[home].endswith(f"/vgpu/containers/{uid}_main")
    assert told.mounts[f"{home}/libvgpu.so"].endswith("/vgpu/libvgpu.so")
    assert told.mounts["/etc/ld.so.preload"].endswith("/vgpu/ld.so.preload")
    assert "/tmp/vgpulock" in told.mounts  # noqa: S108  the path that HAMi-core opens
    assert told.env["CUDA_DEVICE_MEMORY_SHARED_CACHE"].startswith(f"{home}/")


async def test_each_container_of_a_pod_sees_its_own_cards(ground: Ground) -> None:
    """An init container, two containers, and one between them that asks for nothing and sees nothing."""
    await ground.create(
        a_pod(
            "p",
            a_container("a", memory=1001),
            a_container("none", cards=0),
            a_container("b", cards=2, memory=1002),
            init=[a_container("first", memory=1003, seconds=0)],
            out=ground.node.out,
        )
    )
    pod = await ground.wait_running("p")

    told = {name: given(ground.told(pod, name)[0]) for name in ("first", "a", "none", "b")}

    assert {**booked(pod), "none": []} == told
    assert {"first": [1003], "a": [1001], "none": [], "b": [1002] * 2} == {
        k: [m for _, m in v] for k, v in told.items()
    }


async def test_a_container_that_restarts_keeps_its_cards(ground: Ground) -> None:
    """The kubelet asks nobody again: what it was answered first is given again."""
    await ground.create(a_pod("p", a_container(seconds=0.2), out=ground.node.out, restartPolicy="Always"))
    pod = await ground.wait(
        "p", lambda pod: any(c["restartCount"] > 1 for c in pod["status"].get("containerStatuses") or [])
    )

    told = ground.told(pod)

    assert len(told) > 1
    assert all(booked(pod)["main"] == given(one) for one in told)
