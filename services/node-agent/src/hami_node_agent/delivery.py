"""How the cards themselves reach a container: by environment, mounts, device nodes or CDI names.

One rule: words, paths and values are those of NVIDIA's device plugin, which HAMi's keeps; limits are not its business.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct, structs

from hami_node_agent.edits import DeviceNode, Edits, Mount
from hami_node_agent.mig.book import Piece

Strategy = Literal["envvar", "volume-mounts", "cdi-annotations", "cdi-cri"]
STRATEGIES: tuple[Strategy, ...] = ("envvar", "volume-mounts", "cdi-annotations", "cdi-cri")
CDI: frozenset[Strategy] = frozenset({"cdi-annotations", "cdi-cri"})

VISIBLE = "NVIDIA_VISIBLE_DEVICES"
BY_MOUNTS = "/var/run/nvidia-container-devices"

SHARED_NODES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
"""Device nodes of the driver that every card needs, as far as they are there."""


class CardNumbers(Struct, frozen=True, kw_only=True):
    """By which numbers the driver and the kernel know a card; ``minor`` None = the driver does not tell."""

    index: int
    minor: int | None = None


class Delivery(Struct, frozen=True, kw_only=True):
    """What an admin has chosen."""

    strategies: tuple[Strategy, ...] = ("envvar",)
    by_index: bool = False
    """Cards are named by the driver's index instead of their uuid."""
    device_nodes: bool = False
    """Device nodes are passed on, for runtimes that bring none."""
    dev_root: Path = Path("/")
    extras: tuple[str, ...] = ()
    """What else the runtime is asked for: GDRCOPY, GDS, MOFED."""
    cdi_kind: str = "nvidia.com/gpu"
    annotation_prefix: str = "cdi.k8s.io/"
    proc: Path = Path("/proc")


def delivered(uuids: Iterable[str], delivery: Delivery, numbers: Mapping[str, CardNumbers]) -> Edits:
    """Return what brings these cards into a container; a card twice is one card."""
    cards = tuple(dict.fromkeys(uuids))
    names = tuple(str(numbers[card].index) if delivery.by_index and card in numbers else card for card in cards)
    cdi = (
        *(f"{delivery.cdi_kind}={name}" for name in names),
        *(f"{delivery.cdi_kind.partition('/')[0]}/{extra.lower()}=all" for extra in delivery.extras),
    )
    is_cdi_only = CDI.issuperset(delivery.strategies)
    return Edits(
        env={} if is_cdi_only else _environment(names, delivery),
        mounts=_mounts(names) if "volume-mounts" in delivery.strategies else (),
        devices=() if is_cdi_only or not delivery.device_nodes else tuple(_nodes(cards, delivery, numbers)),
        annotations={f"{delivery.annotation_prefix}nvidia-device-plugin_{uuid.uuid4()}": ",".join(cdi)}
        if "cdi-annotations" in delivery.strategies
        else {},
        cdi=cdi if "cdi-cri" in delivery.strategies else (),
    )


def delivered_instances(pieces: Sequence[Piece], delivery: Delivery, numbers: Mapping[str, CardNumbers]) -> Edits:
    """Return what brings MIG instances into a container: always by uuid, with the device nodes of their cards."""
    edits = delivered((piece.uuid for piece in pieces), delivery, numbers)
    if not delivery.device_nodes:
        return edits
    cards = tuple(dict.fromkeys(piece.card for piece in pieces))
    return structs.replace(edits, devices=(*_nodes(cards, delivery, numbers), *_caps(pieces, delivery, numbers)))


def _caps(pieces: Sequence[Piece], delivery: Delivery, numbers: Mapping[str, CardNumbers]) -> Iterable[DeviceNode]:
    """Yield the device nodes that open an instance; the driver lists their numbers as ``gpu0/gi3/access 30``."""
    try:
        lines = (delivery.proc / "driver/nvidia-caps/mig-minors").read_text().splitlines()
    except OSError:
        return
    known = dict(line.split(maxsplit=1) for line in lines if " " in line)
    for piece in pieces:
        card = numbers[piece.card].minor if piece.card in numbers else None
        instance = f"gpu{card}/gi{piece.gpu_instance}"
        for access in (f"{instance}/access", f"{instance}/ci{piece.compute_instance}/access"):
            if access in known:
                yield from _node(f"nvidia-caps/nvidia-cap{known[access].strip()}", delivery)


def _environment(names: Sequence[str], delivery: Delivery) -> dict[str, str]:
    visible = BY_MOUNTS if "volume-mounts" in delivery.strategies else ",".join(names)
    return {VISIBLE: visible, **{f"NVIDIA_{extra}": "enabled" for extra in delivery.extras}}


def _mounts(names: Sequence[str]) -> tuple[Mount, ...]:
    return tuple(Mount(f"{BY_MOUNTS}/{name}", "/dev/null") for name in names)


def _nodes(cards: Sequence[str], delivery: Delivery, numbers: Mapping[str, CardNumbers]) -> Iterable[DeviceNode]:
    minors = (numbers[card].minor for card in cards if card in numbers)
    wanted = [*SHARED_NODES, *(f"nvidia{minor}" for minor in minors if minor is not None)]
    for name in wanted:
        yield from _node(name, delivery)


def _node(name: str, delivery: Delivery) -> Iterable[DeviceNode]:
    host = delivery.dev_root / "dev" / name
    if host.exists():
        yield DeviceNode(f"/dev/{name}", str(host))
