"""Where a real node can run, and where it says why not."""

import os
import tarfile
from pathlib import Path

import pytest
from hami_testkit.box import IMAGE, pack_image
from hami_testkit.processes import ProcessFailedError
from hami_testkit.real_node import real_node, why_not


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be root, as far as one can tell."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_somebody_who_is_not_root_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubelet mounts and makes control groups."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert "a kubelet needs root, and this is not root" == why_not(tmp_path)


@pytest.mark.usefixtures("root")
async def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the way to get it; whoever starts a node nevertheless is told the same."""
    monkeypatch.setenv("PATH", str(tmp_path))

    assert why_not(tmp_path).startswith("containerd, containerd-shim-runc-v2, runc, ctr, ")
    assert "apt-get install containerd runc" in why_not(tmp_path)
    with pytest.raises(ProcessFailedError, match="no node can run here: containerd, "):
        async with real_node(tmp_path, tmp_path, tmp_path / "kubeconfig"):
            pass


def test_the_image_holds_the_program_and_its_name(tmp_path: Path) -> None:
    """What ctr imports: a list of images, and one layer with one executable file."""
    (tmp_path / "box").write_bytes(b"program")
    pack_image(tmp_path / "box", tmp_path / "box.tar")

    with tarfile.open(tmp_path / "box.tar") as archive:
        names = archive.getnames()
        (tmp_path / "layer.tar").write_bytes(archive.extractfile("layer.tar").read())  # type: ignore[union-attr]
        manifest = archive.extractfile("manifest.json").read().decode()  # type: ignore[union-attr]
    with tarfile.open(tmp_path / "layer.tar") as layer:
        program = layer.getmember("box")

    assert {"layer.tar", "manifest.json"} < set(names)
    assert f'"{IMAGE}"' in manifest
    assert (len(b"program"), 0o755) == (program.size, program.mode)
