"""Only proof frees the devices of a Binding whose answer was lost."""

import pytest
from hami_model.allocation import Allocation, State
from hami_model.binding import StillUnknown, settle
from hami_model.life import Bound, Entry, Released
from hami_model.objects import Meta, Pod, PodRef, PodSpec


def a_binding_under_way() -> Entry:
    allocation = Allocation(pod=PodRef("team-a", "train", "uid-1"), node="node-1", containers=())
    return Entry(allocation=allocation, pod=a_pod(), state=State.BINDING, since=0.0, charges={})


def a_pod(*, uid: str = "uid-1", node: str | None = None, deleted: bool = False) -> Pod:
    return Pod(
        metadata=Meta(
            name="train", namespace="team-a", uid=uid, deletion_timestamp="2026-01-01T00:00:00Z" if deleted else None
        ),
        spec=PodSpec(node_name=node),
    )


@pytest.mark.parametrize(
    ("fresh", "has_patched"),
    [
        pytest.param(None, False, id="404"),
        pytest.param(a_pod(uid="uid-2"), False, id="namesake"),
        pytest.param(a_pod(uid="uid-2", node="node-1"), False, id="namesake-bound-here"),
        pytest.param(a_pod(deleted=True), False, id="being-deleted"),
        pytest.param(a_pod(node="node-2"), False, id="bound-elsewhere"),
        pytest.param(a_pod(), True, id="moved-by-our-patch"),
    ],
)
def test_each_proof_frees_the_devices(fresh: Pod | None, has_patched: bool) -> None:
    """After any of these the Binding can no longer land."""
    assert isinstance(settle(a_binding_under_way(), fresh, has_patched=has_patched), Released)


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("has_patched", [False, True])
def test_a_pod_bound_here_was_bound_by_us(deleted: bool, has_patched: bool) -> None:
    """Our node under our uid: the Binding landed, even if the pod is being deleted since."""
    assert Bound(uid="uid-1", at=7.0) == settle(
        a_binding_under_way(), a_pod(node="node-1", deleted=deleted), has_patched=has_patched, at=7.0
    )


def test_an_unbound_pod_proves_nothing() -> None:
    """The Binding may still be on its way."""
    assert StillUnknown("uid-1") == settle(a_binding_under_way(), a_pod())
