"""Identity on a real kubelet, which names no pod when it asks: does each container get what its own pod was given?

HAMI_TEST_CROWD says how many pods the crowds have.
"""

import os

import pytest
from hami_testkit.check import assert_nothing_wrong

from tests.e2e.conftest import Report
from tests.e2e.crowd import Crowd
from tests.e2e.ground import NODE, Ground
from tests.e2e.pod_resources import listing_all_the_time
from tests.e2e.pods import a_container, a_pod, booked, given

MANY = int(os.environ.get("HAMI_TEST_CROWD", "120"))
NO_PLUGIN = "no healthy devices present"
"""How a kubelet says that a plugin was away."""
CUT_SHORT = "context canceled"
"""How containerd says that the kubelet died while it had a container started."""
HELD = "is still held by pod"
"""How our agent refuses to give an ID twice."""
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180 + 3 * MANY)]


async def test_every_container_of_a_crowd_sees_its_own_cards(ground: Ground, report: Report) -> None:
    """Short pods, some with two containers or an init container, are admitted while others end or are forced out."""
    account = await Crowd(ground).run(MANY)
    report(account)

    assert [] == account.findings
    assert [] == account.refused + account.broken
    assert account.right > MANY
    await assert_nothing_wrong(ground.system.at.kubeconfig)


async def test_a_kubelet_that_restarts_in_a_crowd_mixes_nothing_up(ground: Ground, report: Report) -> None:
    """It asks nobody for pods that run, forgets whom it was asking for, and wipes every socket."""
    crowd = Crowd(ground, seed=8)

    async def restart() -> None:
        for at in (1, 2, 3):
            await crowd.wait_judged(at * MANY // 8)
            await ground.node.kill_kubelet()
            await ground.node.start_kubelet()

    account = await crowd.run(MANY // 2, restart())
    report(account)

    assert [] == account.findings
    assert account.right > MANY // 4
    assert [] == [refusal for refusal in account.refused if NO_PLUGIN not in refusal]
    assert [] == [container for container in account.broken if CUT_SHORT not in container]
    await assert_nothing_wrong(ground.system.at.kubeconfig)


async def test_a_kubelet_that_lost_its_checkpoint_gives_no_devices_away(ground: Ground, report: Report) -> None:
    """It offers IDs of running pods anew, which it shows without any; the agent's own table knows better."""
    staying = [await ground.create(a_pod(f"stays-{i}", a_container(), out=ground.node.out)) for i in range(20)]
    for pod in staying:
        await ground.wait_running(pod["metadata"]["name"])

    crowd = Crowd(ground, seed=9)
    before = crowd.ids.look(ground.node.alive())
    await ground.lose_checkpoint()
    account = await crowd.run(MANY // 2)
    report(account)

    assert 20 == len(before)
    assert [] == account.findings
    assert [] == account.refused + account.broken
    assert {pod["metadata"]["uid"] for pod in staying} <= ground.node.alive()
    await assert_nothing_wrong(ground.system.at.kubeconfig)


async def test_an_agent_that_dies_in_a_crowd_finds_its_way_back(ground: Ground, report: Report) -> None:
    """Pods that were to be admitted meanwhile are refused by the kubelet; nobody gets another's cards."""
    crowd = Crowd(ground, seed=10)

    async def die() -> None:
        for at in (1, 2, 3):
            await crowd.wait_judged(at * MANY // 8)
            await ground.system.kill(f"agent-{NODE}")
            await ground.system.start(f"agent-{NODE}")

    account = await crowd.run(MANY // 2, die())
    report(account)

    assert [] == account.findings
    assert account.right > MANY // 8
    await assert_nothing_wrong(ground.system.at.kubeconfig)


async def test_a_container_that_restarts_after_the_checkpoint_was_lost_gets_its_own_cards_again(
    ground: Ground,
) -> None:
    """The kubelet then asks as for a new container, beside its main loop; the agent knows whom it served."""
    still, main = a_container("still", cards=2, memory=776), a_container(cards=2, memory=777, seconds=2)
    await ground.create(a_pod("p", still, main, out=ground.node.out, restartPolicy="Always"))
    await ground.wait_running("p")

    await ground.lose_checkpoint()
    before = len(ground.told(await ground.wait_running("p")))
    pod = await ground.wait("p", lambda pod: len(ground.told(pod)) > before)

    assert [booked(pod)["main"]] * len(ground.told(pod)) == [given(told) for told in ground.told(pod)]


async def test_somebody_who_lists_all_the_time_leads_nobody_astray(ground: Ground, report: Report) -> None:
    """A metrics exporter's List makes the kubelet offer IDs that are taken; the agent gives none of them twice."""
    async with listing_all_the_time(ground.node.root) as lists:
        account = await Crowd(ground, seed=11).run(MANY // 2)
    report(f"{account}; meanwhile {lists.answered} times List")

    assert [] == account.findings
    assert lists.answered > MANY
    assert [] == [refusal for refusal in account.refused if HELD not in refusal]
