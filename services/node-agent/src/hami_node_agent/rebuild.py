"""The table at start: what we wrote down, what the kubelet's checkpoint and List say, what annotations explain.

One rule: whatever any of them says was given is held; only the end of the pod frees it. What a new kubelet does not
remember is held too, but may be asked for again.
"""

from collections.abc import Callable, Iterable

from hami_model.allocation import Grant
from hami_model.objects import Pod
from msgspec import structs

from hami_node_agent.identity import PodView, Wanting, view_of
from hami_node_agent.kubelet import CheckpointEntry, ListedPod
from hami_node_agent.table import Entry, Table

GrantsOf = Callable[[Pod, str, str], tuple[Grant, ...]]
"""Pod, container name, resource -> the cards that its allocation gives, empty where nothing says."""


def rebuild(
    table: Table,
    *,
    pods: Iterable[Pod],
    checkpoint: Iterable[CheckpointEntry],
    listed: Iterable[ListedPod],
    grants_of: GrantsOf,
) -> None:
    """Complete the table with what the kubelet gave to pods that live here and that we did not write down."""
    alive = [pod for pod in pods if pod.status.phase not in {"Succeeded", "Failed"}]
    by_uid = {pod.metadata.uid: pod for pod in alive}
    by_name = {(pod.metadata.namespace, pod.metadata.name): pod for pod in alive}
    for remembered in checkpoint:
        pod = by_uid.get(remembered.pod_uid)
        if pod is not None:
            _hold(table, pod, remembered.container_name, remembered.resource_name, remembered.ids, grants_of)
    for sight in listed:
        shown = by_name.get((sight.namespace, sight.name))
        if shown is not None:
            for container, resource, ids in sight.holdings:
                _hold(table, shown, container, resource, ids, grants_of)


def doubt(
    table: Table, *, resource: str, pod: Callable[[str], Pod | None], checkpoint: Iterable[CheckpointEntry]
) -> None:
    """Count as answered only, not as served, what the kubelet does not remember of pods that have not started.

    It died before it had written our answer down, and its successor asks again, in the order of the containers. The IDs
    stay held: a pod may run of whose start we have not heard yet.
    """
    remembered = {(entry.pod_uid, entry.container_name, entry.resource_name) for entry in checkpoint}
    for entry in table.entries:
        if entry.resource == resource and entry.served and entry.key not in remembered:
            seen = pod(entry.pod.uid)
            if seen is None or seen.status.start_time is None:
                table.put(structs.replace(entry, served=False))


def _hold(table: Table, pod: Pod, container: str, resource: str, ids: tuple[str, ...], grants_of: GrantsOf) -> None:
    wanting = _wanting(view_of(pod, resource), container)
    if wanting is None or not ids:
        return
    known = table.find(pod.metadata.uid, container, resource)
    before = known.ids if known is not None else ()
    entry = Entry(
        pod=view_of(pod, resource).pod,
        container=container,
        position=wanting.position,
        role=wanting.role,
        resource=resource,
        ids=tuple(dict.fromkeys((*before, *ids))),
        grants=known.grants if known is not None else grants_of(pod, container, resource),
        served=True,
    )
    if entry != known:
        table.put(entry)


def _wanting(view: PodView, container: str) -> Wanting | None:
    return next((w for w in view.wanting if w.name == container), None)
