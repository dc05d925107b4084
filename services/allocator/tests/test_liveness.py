"""Who is still there."""

from hami_allocator.liveness import Hearing, Heartbeats, is_plugin_there, shake
from hami_model.config import DEFAULTS
from hami_model.objects import Meta, Node, NodeStatus
from hami_model.vendors import build

CATALOG = build(DEFAULTS, ascend=True, iluvatar=True)
NVIDIA = CATALOG.by_word("NVIDIA")
MLU = CATALOG.by_word("MLU")


def a_node(handshake: str | None = None, **counts: str) -> Node:
    annotations = {} if handshake is None else {"hami.io/node-handshake": handshake}
    allocatable: dict[str, str | int | float] = {
        {"gpu": "nvidia.com/gpu", "mlu": "cambricon.com/vmlu", "vcore": "cambricon.com/mlu.smlu.vcore"}[k]: v
        for k, v in counts.items()
    }
    return Node(metadata=Meta(name="node-1", annotations=annotations), status=NodeStatus(allocatable=allocatable))


def test_an_agent_is_gone_after_thirty_seconds_of_silence() -> None:
    """Its devices then take no new pods."""
    hearing = Hearing(0.0)
    heartbeats = Heartbeats(hearing)
    heartbeats.heard("node-1")
    hearing.tick(30.0, connected=True)
    alive = heartbeats.is_alive("node-1")
    hearing.tick(30.5, connected=True)

    assert alive
    assert not heartbeats.is_alive("node-1")


def test_silence_does_not_count_while_we_cannot_hear() -> None:
    """Cut off from the bus, every agent is silent; that says nothing of them."""
    hearing = Hearing(0.0)
    heartbeats = Heartbeats(hearing)
    heartbeats.heard("node-1")
    hearing.tick(10.0, connected=False)
    hearing.tick(500.0, connected=False)
    hearing.tick(501.0, connected=True)
    hearing.tick(521.0, connected=True)

    assert heartbeats.is_alive("node-1")
    assert not heartbeats.is_alive("node-2")


def test_a_plugin_that_the_kubelet_counts_devices_of_is_there() -> None:
    """Most plugins write their handshake once and never again."""
    node = a_node("Reported_2026.01.01 00:00:00", gpu="10")

    assert is_plugin_there(NVIDIA, node, shake(NVIDIA, node, None, 0.0), 1000.0)


def test_a_plugin_without_devices_is_gone_when_its_handshake_stood_still_for_a_minute() -> None:
    """A change of the handshake starts the minute anew."""
    silent, moved = a_node("Reported_1", gpu="0"), a_node("Reported_2")
    seen = shake(NVIDIA, silent, None, 0.0)

    assert is_plugin_there(NVIDIA, silent, shake(NVIDIA, silent, seen, 59.0), 59.0)
    assert not is_plugin_there(NVIDIA, silent, shake(NVIDIA, silent, seen, 60.0), 60.0)
    assert is_plugin_there(NVIDIA, moved, shake(NVIDIA, moved, seen, 60.0), 119.0)


def test_a_plugin_without_handshake_is_gone_with_its_devices() -> None:
    """Cambricon's plugin writes none; the kubelet's count is all there is."""
    there, gone = a_node(mlu="4"), a_node(mlu="0")

    assert is_plugin_there(MLU, there, shake(MLU, there, None, 0.0), 0.0)
    assert not is_plugin_there(MLU, gone, shake(MLU, gone, None, 0.0), 0.0)


def test_a_plugin_that_registers_cores_and_never_the_count_is_there() -> None:
    """Cambricon's own plugin does so."""
    node = a_node(vcore="200")

    assert is_plugin_there(MLU, node, shake(MLU, node, None, 0.0), 0.0)
