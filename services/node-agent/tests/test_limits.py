"""What a container is given: HAMi-core's environment and mounts, to the letter."""

import stat
from pathlib import Path

import pytest
from hami_model.allocation import Grant
from hami_model.device import Placement
from hami_model.objects import Container, EnvVar, PodRef
from hami_node_agent.edits import Edits, Mount
from hami_node_agent.limits import LOCK_DIR, HamiCore, Receiver, environment, hami_core
from hami_node_agent.mig.book import Piece
from msgspec import structs

TWO_CARDS = (
    Grant(uuid="GPU-a", vendor="NVIDIA", memory=3000, cores=30),
    Grant(uuid="GPU-b", vendor="NVIDIA", memory=5000, cores=50),
)
RECEIVER = Receiver(uid="uid-p", name="main", spec=Container(name="main"))


def test_the_environment_names_every_card_and_its_limit() -> None:
    """Memory per card in the order taken, cores of the first card, the cache inside the mounted folder."""
    env = environment(HamiCore(hook_path=Path("/usr/local"), log_level="1"), TWO_CARDS)
    cache = env.pop("CUDA_DEVICE_MEMORY_SHARED_CACHE")

    assert env == {
        "CUDA_DEVICE_MEMORY_LIMIT_0": "3000m",
        "CUDA_DEVICE_MEMORY_LIMIT_1": "5000m",
        "CUDA_DEVICE_SM_LIMIT": "30",
        "LIBCUDA_LOG_LEVEL": "1",
    }
    assert Path(cache).parent == Path("/usr/local/vgpu")
    assert Path(cache).suffix == ".cache"


def test_switches_of_the_device_config_reach_the_container() -> None:
    """Oversubscription and the core limit are switched by the device config, absent otherwise."""
    env = environment(HamiCore(hook_path=Path("/h"), memory_scaling=1.5, core_limit_off=True), TWO_CARDS)

    assert env["CUDA_OVERSUBSCRIBE"] == "true"
    assert env["GPU_CORE_UTILIZATION_POLICY"] == "disable"
    assert "LIBCUDA_LOG_LEVEL" not in env


def test_the_mounts_stand_in_hamis_order(tmp_path: Path) -> None:
    """Library, the container's own folder, the shared lock folder, the preload file."""
    given = hami_core(lambda: HamiCore(hook_path=tmp_path))(RECEIVER, TWO_CARDS)
    home = tmp_path / "vgpu"

    assert given.mounts == (
        Mount(f"{home}/libvgpu.so", f"{home}/libvgpu.so", read_only=True),
        Mount(str(home), f"{home}/containers/uid-p_main"),
        Mount(LOCK_DIR, LOCK_DIR),
        Mount("/etc/ld.so.preload", f"{home}/ld.so.preload", read_only=True),
    )


def test_the_containers_folder_is_made_anew_for_every_user(tmp_path: Path) -> None:
    """What an earlier life of the container left is gone; any user id may write."""
    left = tmp_path / "vgpu" / "containers" / "uid-p_main" / "old.cache"
    left.parent.mkdir(parents=True)
    left.touch()

    hami_core(lambda: HamiCore(hook_path=tmp_path))(RECEIVER, TWO_CARDS)

    assert list(left.parent.iterdir()) == []
    assert stat.S_IMODE(left.parent.stat().st_mode) == 0o777


def test_instances_come_without_limits(tmp_path: Path) -> None:
    """The hardware sets them: no library, no folder, no variables of HAMi-core."""
    made = Piece(
        pod=PodRef("default", "p", "uid-p"), container="main", place=0, card="GPU-a", profile="1g.5gb",
        placement=Placement(0, 1), uuid="MIG-1",
    )  # fmt: skip
    receiver = structs.replace(RECEIVER, instances=(made, structs.replace(made, place=1, uuid="MIG-2")))

    given = hami_core(lambda: HamiCore(hook_path=tmp_path, memory_scaling=2, log_level="1"))(receiver, TWO_CARDS)

    assert given == Edits(env={"NVIDIA_VISIBLE_DEVICES": "MIG-1,MIG-2"})
    assert not (tmp_path / "vgpu").exists()


@pytest.mark.parametrize(("value", "preloads"), [("true", False), ("1", False), ("false", True), ("yes", True)])
def test_a_container_may_switch_the_control_off(tmp_path: Path, value: str, *, preloads: bool) -> None:
    """HAMi's true words, as a literal value only."""
    spec = Container(name="main", env=[EnvVar(name="CUDA_DISABLE_CONTROL", value=value)])
    given = hami_core(lambda: HamiCore(hook_path=tmp_path))(Receiver(uid="u", name="main", spec=spec), TWO_CARDS)

    assert any(mount.container_path == "/etc/ld.so.preload" for mount in given.mounts) is preloads


def test_a_license_and_a_versioned_library_are_mounted_where_they_are(tmp_path: Path) -> None:
    """Both are put there by whoever installs the library."""
    home = tmp_path / "vgpu"
    home.mkdir()
    (home / "license").touch()
    for version in ("v2.9.0", "v2.10.0", "v2.10.0-rc1"):  # an upgrade leaves the older ones
        (home / f"libvgpu.so.{version}").touch()

    mounts = hami_core(lambda: HamiCore(hook_path=tmp_path))(RECEIVER, TWO_CARDS).mounts

    assert mounts[0].host_path == f"{home}/libvgpu.so.v2.10.0"
    assert mounts[-2:] == (
        Mount("/tmp/license", f"{home}/license", read_only=True),  # noqa: S108  the path HAMi mounts
        Mount("/usr/bin/vgpuvalidator", f"{home}/vgpuvalidator", read_only=True),
    )
