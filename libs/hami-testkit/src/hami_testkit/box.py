"""The one program that runs in the containers of a real node, and the image that holds it.

One rule: nothing is fetched; a C compiler makes it, statically linked, so that an image holds nothing else.
"""

import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path

from hami_testkit.nvml import NoCompiler

SOURCE = Path(__file__).parent / "box.c"
IMAGE = "hami.io/box:1"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """Return what images call this machine."""
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def compiler() -> str:
    """Return the C compiler, empty where there is none."""
    return shutil.which("cc") or shutil.which("gcc") or ""


def compile_box(folder: Path) -> Path:
    """Make the program; raise ``NoCompiler`` where that cannot be."""
    program = folder / "box"
    if not compiler():
        raise NoCompiler("no C compiler (cc) is here to make the program with that runs in containers")
    command = [compiler(), "-O1", "-static", "-o", str(program), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise NoCompiler(f"{compiler()} cannot make a static program: {done.stderr.decode(errors='replace')[-300:]}")
    return program


def pack_image(program: Path, archive: Path) -> None:
    """Pack the program as an image, as ``docker save`` would: one layer, its configuration, and their list."""
    layer = _tar({"box": program.read_bytes()})
    config = json.dumps({
        "architecture": architecture(), "os": "linux", "config": {"Entrypoint": ["/box"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }).encode()  # fmt: skip
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]).encode()
    archive.write_bytes(_tar({"layer.tar": layer, name: config, "manifest.json": manifest}))


def _tar(files: dict[str, bytes]) -> bytes:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return into.getvalue()
