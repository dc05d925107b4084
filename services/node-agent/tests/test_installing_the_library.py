"""HAMi-core on the host: installed whole, looked after, and what is said when containers could not be limited."""

import hashlib
from pathlib import Path

import pytest
from hami_model.device import Device
from hami_node_agent.inventory import Inventory
from hami_node_agent.library import Library, newest
from hami_node_agent.probes import SimulatedProbe

# what a loader looks at first: ELF of 64 bits, a shared library, for either machine that these tests run on
ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00"
THIS_MACHINE = Path("/proc/self/exe").read_bytes()[18:20]


def a_library(text: bytes = b"one", *, machine: bytes = THIS_MACHINE) -> bytes:
    return ELF + machine + text


class Host:
    """A host with HAMi's folder, and the folder that HAMi-core comes from."""

    def __init__(self, folder: Path) -> None:
        self.home, self.source = folder / "vgpu", folder / "core"
        self.source.mkdir()
        self.library = Library(self.home, self.source)

    def offer(self, name: str = "libvgpu.so.v2.10.0", content: bytes | None = None) -> Path:
        path = self.source / name
        path.write_bytes(a_library() if content is None else content)
        return path


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_everything_that_is_offered_is_installed_and_loaded_into_containers(host: Host) -> None:
    """Its preload file is not taken: the path in ours is the one that containers have."""
    host.offer()
    host.offer("vgpuvalidator", b"tool")
    host.offer("ld.so.preload", b"/elsewhere/libvgpu.so\n")

    assert host.library.complaint() == ""
    assert sorted(path.name for path in host.home.iterdir()) == ["ld.so.preload", "libvgpu.so.v2.10.0", "vgpuvalidator"]
    assert (host.home / "ld.so.preload").read_text() == f"{host.home}/libvgpu.so\n"
    assert newest(host.home).read_bytes() == a_library()


def test_containers_that_run_keep_the_library_they_have(host: Host) -> None:
    """A new one stands under the name; the old file is untouched for whoever has it open."""
    host.offer()
    host.library.complaint()
    with newest(host.home).open("rb") as running:
        host.offer(content=a_library(b"two"))
        assert host.library.complaint() == ""

        assert (running.read(), newest(host.home).read_bytes()) == (a_library(), a_library(b"two"))


def test_a_library_that_somebody_changed_is_put_back(host: Host) -> None:
    """The next look finds it."""
    host.offer()
    host.library.complaint()
    newest(host.home).write_bytes(b"scribble")

    assert host.library.complaint() == ""
    assert newest(host.home).read_bytes() == a_library()


def test_a_checksum_beside_a_file_is_checked(host: Host) -> None:
    """As sha256sum writes it; the file that is installed stays as it was."""
    path = host.offer()
    said = path.with_name(f"{path.name}.sha256")
    said.write_text(f"{hashlib.sha256(a_library()).hexdigest()}  {path.name}\n")
    good = host.library.complaint()
    path.write_bytes(a_library(b"half"))

    assert good == ""
    assert host.library.complaint() == f"{path} is damaged: its SHA-256 is not the one in {said.name}"
    assert newest(host.home).read_bytes() == a_library()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x7fELF", b"#!/bin/sh", a_library(machine=b"\x00\x00")],
    ids=["empty", "short", "script", "other"],
)
def test_what_no_loader_would_take_is_refused(host: Host, content: bytes) -> None:
    """Containers would start without limits, or not at all."""
    host.offer(content=content)

    assert "is no shared library for" in host.library.complaint()
    assert not newest(host.home).exists()


def test_a_folder_without_the_library_is_said(host: Host) -> None:
    """The wrong folder, or an image that brought nothing."""
    host.offer("README", b"nothing here")

    assert (
        host.library.complaint()
        == f"{host.source} holds no libvgpu.so: give HAMI_LIBRARY_DIR the folder that HAMi-core is in"
    )


def test_without_a_source_what_is_there_is_checked(tmp_path: Path) -> None:
    """Somebody else installs it, as HAMi's own plugin does; nothing is written."""
    library = Library(tmp_path)
    absent = library.complaint()
    (tmp_path / "libvgpu.so").write_bytes(a_library())
    not_loaded = library.complaint()
    (tmp_path / "ld.so.preload").write_text(f"{tmp_path}/libvgpu.so\n")

    assert "is not there: containers would run without limits" in absent
    assert "does not name" in not_loaded
    assert library.complaint() == ""


async def test_cards_take_nobody_until_containers_can_be_limited(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says why, and one that it is over."""
    cards = tmp_path / "cards.yaml"
    cards.write_text("- {id: GPU-a, vendor: NVIDIA, count: 2, devmem: 100, type: A}\n")
    why = ["the library is damaged"]
    inventory = Inventory(SimulatedProbe(cards), complaint=lambda: why[0])
    seen: list[list[Device]] = []
    for says in ("the library is damaged", "the library is damaged", ""):
        why[0] = says
        await inventory.look()
        seen.append([card for card in inventory.cards if card.healthy])

    assert [len(healthy) for healthy in seen] == [0, 0, 1]
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "no card takes a pod: the library is damaged",
        "containers can be limited again",
    ]
