"""The steps of a recorded schedule case, each compared as ``vectors/README.md`` says."""

from collections.abc import Awaitable, Callable
from typing import Any

from tests.compat import rules
from tests.compat.over_http import Json, Player

ENDED_WELL = {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}


async def play(player: Player, case: Json) -> None:
    """Play a case from its beginning; an answer that differs fails with the step's number."""
    await player.begin(case)
    pods: dict[str, Json] = {}
    for number, step in enumerate(case["steps"]):
        kind = next(k for k in STEPS if k in step)
        try:
            await STEPS[kind](player, pods, step)
        except AssertionError as e:
            raise AssertionError(f"step {number} ({kind} {_name(step[kind])}): {e}") from e


def _name(value: Any) -> str:
    return value if isinstance(value, str) else value.get("metadata", {}).get("name", "")


async def _delete(player: Player, pods: dict[str, Json], step: Json) -> None:
    await player.delete(pods.pop(step["delete"])["metadata"])


async def _finish(player: Player, pods: dict[str, Json], step: Json) -> None:
    await player.set_status(pods[step["finish"]]["metadata"], {"phase": step.get("phase", "Succeeded")})


async def _init_done(player: Player, pods: dict[str, Json], step: Json) -> None:
    pod = pods[step["init_done"]]
    inits = [c for c in pod["spec"]["initContainers"] if c.get("restartPolicy") != "Always"]
    statuses = [{"name": c["name"], **ENDED_WELL} for c in inits]
    await player.set_status(pod["metadata"], {"phase": "Running", "initContainerStatuses": statuses})


async def _confirm(player: Player, pods: dict[str, Json], step: Json) -> None:
    await player.confirm(pods[step["confirm"]])


async def _quota(player: Player, _pods: dict[str, Json], step: Json) -> None:
    await player.set_quota(step["quota"])
    await player.wait_seen()


async def _admit(player: Player, _pods: dict[str, Json], step: Json) -> None:
    compare_admission(step["expect"], await player.admit(step["admit"]))


async def _simulate(player: Player, _pods: dict[str, Json], step: Json) -> None:
    answer = await player.filter(step["simulate"], nodes=step["with"])
    expect = step["expect"]
    items = (answer["Nodes"] or {}).get("items") or []
    assert (expect.get("nodes") or []) == [item["metadata"]["name"] for item in items]
    if expect.get("failed_nodes") is not None:
        assert expect["failed_nodes"] == (answer["FailedNodes"] or {})


async def _pod(player: Player, pods: dict[str, Json], step: Json) -> None:
    stored = await player.create(step["pod"])
    offered, expect = step["nodes"], step["expect"]
    answer = await player.filter(stored, names=offered)
    _compare_filter(expect, answer, offered)
    if step["then"] == "left":
        await player.delete(stored["metadata"])
        return
    pods[stored["metadata"]["name"]] = stored
    node = answer["NodeNames"][0]
    error = await player.bind(stored, node)
    await _compare_bind(player, expect, stored, node, error)
    if step["then"] in {"bound", "deleted"} and not error:
        await player.confirm(stored)
    if step["then"] == "deleted":
        await player.delete(pods.pop(stored["metadata"]["name"])["metadata"])
    await player.wait_seen()


STEPS: dict[str, Callable[[Player, dict[str, Json], Json], Awaitable[None]]] = {
    "delete": _delete,
    "finish": _finish,
    "init_done": _init_done,
    "confirm": _confirm,
    "quota": _quota,
    "admit": _admit,
    "simulate": _simulate,
    "pod": _pod,
}


def _compare_filter(expect: Json, answer: Json, offered: list[str]) -> None:
    if expect.get("error"):
        assert answer["Error"].startswith(expect["error"]), answer
        return
    assert answer["Error"] == "", answer
    if expect.get("passthrough"):
        assert offered == answer["NodeNames"]
        return
    chosen = (answer["NodeNames"] or [None])[0]
    assert expect.get("node") == chosen, answer
    if expect.get("failed_nodes") is not None:
        assert expect["failed_nodes"] == (answer["FailedNodes"] or {})


async def _compare_bind(player: Player, expect: Json, pod: Json, node: str, error: str) -> None:
    recorded = expect.get("bind") or {}
    if recorded.get("error"):
        assert error.startswith(recorded["error"]), error
        return
    assert error == ""
    meta = (await player.pod(pod["metadata"]))["metadata"]
    wanted, got = rules.comparable_annotations(expect.get("annotations", {}), meta.get("annotations") or {})
    assert wanted == got
    locks = {key: _timeless(value) for key, value in (await player.locks(node)).items()}
    assert recorded.get("locks", {}) == locks


def _timeless(lock: str) -> str:
    return ",".join(["<time>", *lock.split(",")[1:]])


def compare_admission(expect: Json, answer: Json) -> None:
    """Compare a webhook's answer with the recorded one."""
    assert expect["allowed"] == answer["allowed"], answer
    if expect["allowed"]:
        wanted = rules.comparable_changes(expect.get("pod_changes", {}))
        assert wanted == rules.comparable_changes(answer["pod_changes"])
        return
    assert expect["code"] == answer["code"]
    assert answer["message"].startswith(expect["message"]), answer
