"""``hamictl explain POD``: where a pod is and why, or why no node takes it."""

import pytest
from hami_model.allocation import Allocation, ContainerGrants, Grant, Role, State
from hami_model.bus.messages import CardVerdict, Explanation, NodeVerdict
from hami_model.objects import PodRef

from .conftest import Allocator, Prompt


def waiting(namespace: str = "default") -> Explanation:
    short = CardVerdict(device="GPU-0", reason="CardInsufficientMemory", wanted="9000 MiB", had="8000 MiB")
    return Explanation(
        pod=PodRef(namespace=namespace, name="p", uid="u"),
        nodes=[
            NodeVerdict(
                node="gpu-a",
                fits=False,
                text="1/2 CardInsufficientMemory",
                cards=[short, CardVerdict(device="GPU-1")],
            ),
            NodeVerdict(node="mlu-a", fits=False, text="NodeInsufficientDevice"),
        ],
        summary="0 of 2 nodes take the pod",
    )  # fmt: skip


def holding() -> Explanation:
    grant = Grant(uuid="GPU-0", vendor="NVIDIA", memory=3000, cores=30)
    container = ContainerGrants(name="main", role=Role.APP, grants=(grant,))
    pod = PodRef(namespace="default", name="p", uid="u")
    allocation = Allocation(pod=pod, node="gpu-a", containers=(container,))
    return Explanation(pod=pod, state=State.ACTIVE, allocation=allocation, summary="ACTIVE on node gpu-a")


async def test_a_pod_that_waits_is_judged_card_by_card(prompt: Prompt, allocator: Allocator) -> None:
    """The word, what was wanted, what the card had; and the nodes that have no such cards."""
    allocator.explanations["default/p"] = waiting()

    said = await prompt.hamictl("explain", "p")

    assert 0 == said.code
    assert ["default/p  no allocation", "0 of 2 nodes take the pod"] == said.out.splitlines()[:2]
    assert [
        ["gpu-a", "1/2", "CardInsufficientMemory", "GPU-0", "CardInsufficientMemory", "9000", "MiB", "8000", "MiB"],
        ["GPU-1", "fits"],
        ["mlu-a", "NodeInsufficientDevice"],
    ] == said.rows[3:]


async def test_a_pod_that_runs_shows_what_it_holds(prompt: Prompt, allocator: Allocator) -> None:
    """State, node, and each container's slice."""
    allocator.explanations["default/p"] = holding()

    said = await prompt.hamictl("explain", "p")

    assert "default/p  ACTIVE\nACTIVE on node gpu-a\n  main: 3000 MiB, 30 % of GPU-0 on gpu-a\n" == said.out


async def test_programs_get_the_explanation_itself(prompt: Prompt, allocator: Allocator) -> None:
    """With each verdict's words apart."""
    allocator.explanations["default/p"] = waiting()

    why = (await prompt.hamictl("explain", "p", "-o", "json")).json

    assert (None, "0 of 2 nodes take the pod") == (why["state"], why["summary"])
    assert ["gpu-a", "mlu-a"] == [verdict["node"] for verdict in why["nodes"]]
    assert {"device": "GPU-0", "reason": "CardInsufficientMemory", "wanted": "9000 MiB", "had": "8000 MiB"} == why[
        "nodes"
    ][0]["cards"][0]


@pytest.mark.parametrize(
    "words", [["team-a/p"], ["p", "-n", "team-a"], ["p", "--namespace=team-a"], ["team-a/p", "-n", "team-a"]],
    ids=" ".join,
)  # fmt: skip
async def test_a_pod_of_another_namespace(prompt: Prompt, allocator: Allocator, words: list[str]) -> None:
    """Written before the name, or beside it; a namesake in the default namespace is another pod."""
    allocator.explanations = {"default/p": holding(), "team-a/p": waiting("team-a")}

    assert (await prompt.hamictl("explain", *words)).out.startswith("team-a/p  no allocation")


async def test_a_pod_that_is_not_known(prompt: Prompt, allocator: Allocator) -> None:
    """The allocator's sentence, and exit code 1."""
    said = await prompt.hamictl("explain", "p")

    assert (1, "pod default/p is not known") == (said.code, said.sentence)


@pytest.mark.parametrize("name", ["", "/p", "team-a/", "a/b/c", "P", "../p", "p?x"])
@pytest.mark.parametrize("command", ["explain", "trace"])
async def test_what_names_no_pod(prompt: Prompt, command: str, name: str) -> None:
    """Said before anybody is asked."""
    prompt.export("HAMI_TRACES_URL", "http://127.0.0.1:1")
    said = await prompt.hamictl(command, name)

    assert 2 == said.code
    assert f'"{name}"' in said.sentence
    assert "write NAME, or NAMESPACE/NAME" in said.sentence


async def test_two_namespaces_for_one_pod(prompt: Prompt) -> None:
    """Neither is taken by guess."""
    said = await prompt.hamictl("explain", "team-a/p", "-n", "team-b")

    assert (2, 'team-a/p names namespace "team-a" and -n names "team-b": name one') == (said.code, said.sentence)
