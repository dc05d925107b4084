"""What a container is given with its cards: the cards themselves and their limits, vendor by vendor.

One rule: names, values and order are the contract with HAMi-core (``libvgpu.so`` and its monitor), not ours to choose.
"""

import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hami_model.allocation import Grant
from hami_model.objects import Container, EnvVar
from msgspec import Struct, structs

from hami_node_agent.delivery import CardNumbers, Delivery, delivered, delivered_instances
from hami_node_agent.edits import Edits, Mount
from hami_node_agent.library import newest
from hami_node_agent.mig.book import Piece

TRUE_WORDS = frozenset({"1", "t", "T", "true", "True", "TRUE"})
LOCK_DIR = "/tmp/vgpulock"  # noqa: S108  HAMi compat: the path libvgpu.so opens
CONTAINER_MODE = 0o777
"""HAMi compat: tenants of any user id write their region file here."""


class Receiver(Struct, frozen=True, kw_only=True):
    """The container that gets the cards. ``spec`` is None where we know the pod only from its pushed allocation."""

    uid: str
    name: str
    spec: Container | None = None
    instances: tuple[Piece, ...] = ()
    """The MIG instances made for it; then it gets these, and no limits beside those that the hardware sets."""


Limiter = Callable[[Receiver, Sequence[Grant]], Edits]
"""Prepares the host for one container and says what to put into it."""


class HamiCore(Struct, frozen=True, kw_only=True):
    """What the device config says to HAMi-core, and where it lives on the host."""

    hook_path: Path
    lock_dir: Path = Path(LOCK_DIR)
    memory_scaling: float = 1.0
    log_level: str = ""
    core_limit_off: bool = False
    delivery: Delivery = Delivery()
    numbers: Mapping[str, CardNumbers] = {}
    """By uuid."""

    @property
    def home(self) -> Path:
        """Return the folder of the library, on the host and in the container."""
        return self.hook_path / "vgpu"


def hami_core(settings_now: Callable[[], HamiCore]) -> Limiter:
    """Return the limiter of NVIDIA cards, shared by HAMi-core or cut with MIG; the settings are asked each time."""

    def give(receiver: Receiver, grants: Sequence[Grant]) -> Edits:
        settings = settings_now()
        if receiver.instances:
            return delivered_instances(receiver.instances, settings.delivery, settings.numbers)
        folder = fresh_folder(settings.home, receiver)
        cards = delivered((grant.uuid for grant in grants), settings.delivery, settings.numbers)
        return structs.replace(
            cards,
            env={**cards.env, **environment(settings, grants)},
            mounts=(*cards.mounts, *mounts(settings, receiver, folder)),
        )

    return give


def environment(settings: HamiCore, grants: Sequence[Grant]) -> dict[str, str]:
    """Return the variables that tell HAMi-core the limits, in the order in which the cards were taken."""
    env = {
        **{f"CUDA_DEVICE_MEMORY_LIMIT_{i}": f"{grant.memory}m" for i, grant in enumerate(grants)},
        "CUDA_DEVICE_SM_LIMIT": str(grants[0].cores),  # HAMi compat: one number, the first card's
        "CUDA_DEVICE_MEMORY_SHARED_CACHE": f"{settings.home}/{uuid.uuid4()}.cache",
    }
    if settings.memory_scaling > 1:
        env["CUDA_OVERSUBSCRIBE"] = "true"
    if settings.log_level:
        env["LIBCUDA_LOG_LEVEL"] = settings.log_level
    if settings.core_limit_off:
        env["GPU_CORE_UTILIZATION_POLICY"] = "disable"
    return env


def mounts(settings: HamiCore, receiver: Receiver, folder: Path) -> tuple[Mount, ...]:
    """Return the mounts that put HAMi-core into the container, in HAMi's order."""
    home = settings.home
    found = [
        Mount(f"{home}/libvgpu.so", str(newest(home)), read_only=True),
        Mount(str(home), str(folder)),
        Mount(LOCK_DIR, str(settings.lock_dir)),
    ]
    if not _control_is_disabled(receiver.spec):
        found.append(Mount("/etc/ld.so.preload", f"{home}/ld.so.preload", read_only=True))
    if (home / "license").exists():
        found.append(Mount("/tmp/license", f"{home}/license", read_only=True))  # noqa: S108
        found.append(Mount("/usr/bin/vgpuvalidator", f"{home}/vgpuvalidator", read_only=True))
    return tuple(found)


def folder_of(home: Path, receiver: Receiver) -> Path:
    """Return the host folder of one container's region file."""
    return home / "containers" / f"{receiver.uid}_{receiver.name}"


def fresh_folder(home: Path, receiver: Receiver) -> Path:
    """Make the container's folder anew, empty and writable for every user."""
    folder = folder_of(home, receiver)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(CONTAINER_MODE)
    return folder


def make_lock_dir(folder: Path) -> None:
    """Make the folder that all containers of the node share, writable for every user."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(CONTAINER_MODE)


def _control_is_disabled(container: Container | None) -> bool:
    literals: list[EnvVar] = (container.env if container else None) or []
    return any(env.name == "CUDA_DISABLE_CONTROL" and env.value in TRUE_WORDS for env in literals)
