"""Nodes that are lost: kube-controller-manager takes their pods, and their cards are free when nobody can hold them.

One rule: a card is booked as long as its pod exists, however dead its node is; what is gone holds nothing.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hami_testkit.check import assert_nothing_wrong

from tests.e2e.installed import Installed, Json, a_pod

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(420)]
WHOLE = 40_000
SOON = [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]
"""A pod has five minutes else, until it is taken from a node that says nothing."""


@asynccontextmanager
async def switched_off(installed: Installed, node: str) -> AsyncIterator[None]:
    """Let a machine lose its power for the length of a block."""
    machine = installed.machines[node]
    await machine.switch_off()
    try:
        yield
    finally:
        await machine.switch_on()


async def is_unreachable(installed: Installed, node: str) -> bool:
    taints = (await installed.api.get(f"/api/v1/nodes/{node}"))["spec"].get("taints") or []
    return any(taint["key"] == "node.kubernetes.io/unreachable" for taint in taints)


def is_taken(pods: list[Json]) -> bool:
    """Say whether the controller has deleted the pod, which its kubelet has still to confirm."""
    return bool(pods) and all(pod["metadata"].get("deletionTimestamp") for pod in pods)


async def comes_back(installed: Installed, node: str) -> None:
    """Lose power, lose the pod, and come back: it is booked as long as it may run there, then its cards are free."""
    async with installed.namespace("comes-back") as there:
        await there.create("pods", a_pod("first", cards=2, memory=WHOLE, node=node, tolerations=SOON))
        await there.wait_running("first")
        await there.create("pods", a_pod("next", cards=2, memory=WHOLE, node=node))
        await there.wait_event("FilteringFailed")
        async with switched_off(installed, node):
            await there.wait_pods(lambda pods: is_taken([pod for pod in pods if pod["spec"].get("nodeName")]))
            unreachable, booked = await is_unreachable(installed, node), await installed.booked(node)
        await there.wait_running("next")

    await installed.wait_booked(node, 0)
    assert (True, 2 * WHOLE) == (unreachable, booked)


async def never_comes_back(installed: Installed, node: str) -> None:
    """Lose power, and be deleted by the administrator; the node that is made anew under the same name is empty."""
    async with installed.namespace("never-comes-back") as there:
        await there.create("pods", a_pod("lost", memory=WHOLE, node=node))
        await there.wait_running("lost")
        async with switched_off(installed, node):
            await installed.api.delete(f"/api/v1/nodes/{node}")
            await there.wait_pods(lambda pods: not pods)
            await installed.wait_booked(node, None)
            left = await installed.hamictl("pods", "-n", there.name)
        await installed.wait_booked(node, 0)
        await there.create("pods", a_pod("again", cards=2, memory=WHOLE, node=node))
        await there.wait_running("again")

    assert [] == left


async def test_one_lost_node_comes_back_and_another_never_does(installed: Installed) -> None:
    """Told side by side, since the controller leaves pods of a deleted node alone for a minute."""
    async with asyncio.TaskGroup() as stories:
        stories.create_task(comes_back(installed, "gpu-b"))
        stories.create_task(never_comes_back(installed, "gpu-c"))
    await assert_nothing_wrong(installed.cluster.kubeconfig)
