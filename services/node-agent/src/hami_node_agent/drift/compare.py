"""What disagrees: our table, the kubelet's account and the processes on the cards, side by side.

One rule: a pure function of one look. It tells what stands against something that was seen; what nobody could see
stands against nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from hami_model.bus.messages import Drift
from hami_model.objects import PodRef
from hami_model.request import Role
from msgspec import Struct

from hami_node_agent.drift.owners import Owner
from hami_node_agent.kubelet import CheckpointEntry
from hami_node_agent.table import Entry

STRANGER, GHOST, WRONG_CARD, UNSEEN = "stranger", "ghost", "wrong-card", "unseen"
KINDS = (STRANGER, GHOST, WRONG_CARD, UNSEEN)

MIB = 1024 * 1024
SHOWN = 5
"""Processes that a sentence names."""

Key = tuple[str, str, str]
"""Kind, card, and whose it is."""


class Running(Struct, frozen=True, kw_only=True):
    """A process on a card; ``memory`` in bytes; ``owner`` None = it is not to be seen."""

    card: str
    pid: int
    memory: int | None = None
    owner: Owner | None = None


class Finding(Struct, frozen=True, kw_only=True):
    """What is told of it, whose it is, and the processes that show it."""

    drift: Drift
    owner: str
    pids: frozenset[int] = frozenset()

    @property
    def key(self) -> Key:
        """Return what there is only one finding of."""
        return (self.drift.kind, self.drift.device, self.owner)

    def lasts_from(self, earlier: "Finding") -> bool:
        """Say whether this is what was seen earlier, and not another process in its place."""
        return self.key == earlier.key and (not self.pids or bool(self.pids & earlier.pids))


class Views(Struct, frozen=True, kw_only=True):
    """One look at everything."""

    table: tuple[Entry, ...]
    pods: Mapping[str, PodRef]
    """Pods that live here and have not ended, by uid."""
    cards: Mapping[str, frozenset[str]]
    """Cards that each pod was given, by its uid; a pod is left out where it holds devices and nobody knows which."""
    counted: Sequence[CheckpointEntry]
    """What the kubelet has written down."""
    shown: Mapping[str, frozenset[str]]
    """IDs that it shows for the pods it was asked for, by uid."""
    running: Sequence[Running]


def compare(views: Views) -> tuple[Finding, ...]:
    """Return everything that disagrees, each once."""
    return (*_of_processes(views), *_unknown_to_the_kubelet(views), *_unknown_to_us(views))


# Processes


def _of_processes(views: Views) -> Iterator[Finding]:
    holders = {entry.pod.uid for entry in views.table}
    judged = [(kind, one) for one in views.running if (kind := _judge(one, views, holders))]
    judged.sort(key=lambda each: (each[0], each[1].card, _pod(each[1]), each[1].pid))
    for (kind, card, uid), group in groupby(judged, key=lambda each: (each[0], each[1].card, _pod(each[1]))):
        processes = [one for _, one in group]
        ref = views.pods.get(uid) or next((entry.pod for entry in views.table if entry.pod.uid == uid), None)
        says = _sentence(kind, card, processes, pod=str(ref or f"with uid {uid}"), cards=views.cards.get(uid))
        drift = Drift(kind=kind, says=says, device=card, pod=ref if uid else None)
        yield Finding(drift=drift, owner=uid, pids=frozenset(one.pid for one in processes))


def _judge(one: Running, views: Views, holders: set[str]) -> str:
    if one.owner is None:
        return UNSEEN
    if one.owner.pod not in holders:
        return STRANGER
    return "" if one.card in views.cards.get(one.owner.pod, {one.card}) else WRONG_CARD


def _pod(one: Running) -> str:
    return one.owner.pod if one.owner is not None else ""


def _sentence(kind: str, card: str, processes: Sequence[Running], *, pod: str, cards: frozenset[str] | None) -> str:
    who, on = _named(processes), f"on card {card}"
    if kind == UNSEEN:
        return (
            f"{who} {on} cannot be looked up: run the agent with the host's process numbers (hostPID: true), and "
            "name the host's /proc with HAMI_PROC_ROOT where it is elsewhere"
        )
    if kind == WRONG_CARD:
        return f"{who} of pod {pod} {on}, which was not given to it: it has {', '.join(sorted(cards or ()))}"
    if _pod(processes[0]):
        return f"{who} of pod {pod} {on}, and the pod holds no device here: see what shows it the card"
    return f"{who} {on}, of no pod: end it, or leave the card to it (filterdevices in config.json)"


def _named(processes: Sequence[Running]) -> str:
    named = ", ".join(_described(one) for one in processes[:SHOWN])
    more = f" and {len(processes) - SHOWN} more" if len(processes) > SHOWN else ""
    return f"process{'es' if len(processes) > 1 else ''} {named}{more}"


def _described(one: Running) -> str:
    facts = [one.owner.command] if one.owner is not None else []
    facts += [f"{one.memory // MIB} MiB"] if one.memory is not None else []
    return f"{one.pid} ({', '.join(facts)})" if facts else str(one.pid)


# The kubelet


def doubtful(table: Sequence[Entry], counted: Sequence[CheckpointEntry]) -> tuple[Entry, ...]:
    """Return what we hold of which the kubelet has nothing written down.

    Of ordinary init containers it shows nothing beside that, and what they had goes to the pod's next containers.
    """
    ids = {(one.pod_uid, one.container_name, one.resource_name) for one in counted if one.ids}
    return tuple(entry for entry in table if entry.role is not Role.INIT and entry.key not in ids)


def _unknown_to_the_kubelet(views: Views) -> Iterator[Finding]:
    alive = {one.owner.pod for one in views.running if one.owner is not None}
    for entry in doubtful(views.table, views.counted):
        uid = entry.pod.uid
        if uid in views.pods and uid not in alive and not views.shown.get(uid, frozenset()) & set(entry.ids):
            says = (
                f"container {entry.container} of pod {entry.pod} holds {', '.join(entry.ids)} here, and neither the "
                "kubelet nor a process on a card knows of it: delete the pod"
            )
            yield _ghost(says, entry.pod, entry.container, entry.resource, cards=[g.uuid for g in entry.grants])


def _unknown_to_us(views: Views) -> Iterator[Finding]:
    held = {entry.key: frozenset(entry.ids) for entry in views.table}
    for one in views.counted:
        key = (one.pod_uid, one.container_name, one.resource_name)
        strange = sorted(frozenset(one.ids) - held.get(key, frozenset()))
        pod = views.pods.get(one.pod_uid)
        if strange and pod is not None:
            says = (
                f"the kubelet counts {', '.join(strange)} for container {one.container_name} of pod {pod}, and our "
                "table does not: restart the agent, which takes it over, or delete the pod"
            )
            yield _ghost(says, pod, one.container_name, one.resource_name)


def _ghost(says: str, pod: PodRef, container: str, resource: str, *, cards: Sequence[str] = ()) -> Finding:
    drift = Drift(kind=GHOST, says=says, device=cards[0] if cards else "", pod=pod)
    return Finding(drift=drift, owner=f"{pod.uid}/{container}/{resource}")
