"""The images of the chart without a container engine: what this checkout installs, with the Python that runs the tests.

One rule: what is in them comes from the lock file and from this machine; nothing is fetched. ``HAMI_TEST_IMAGES`` names
an archive of real ones instead, as ``docker save`` writes it.
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hami_testkit.box import architecture, compiler

ROOT = Path(__file__).parents[2]
HOME, INSIDE = ROOT / ".tools" / "image", "opt/hami"
"""Where what is installed stands here, and in the image."""
LIBRARY = Path("k8s-vgpu/lib/nvidia")
"""Where HAMi's own image keeps HAMi-core."""
LEFT_OUT = {"site-packages", "test", "idlelib", "tkinter", "ensurepip", "lib2to3", "turtledemo"}
TOOLS = ("sh", "cp", "dirname", "realpath")
LINKS = ("/bin", "/lib", "/lib64")
LINKED = re.compile(r"(?:=> )?(/\S+) \(0x")


def pack(archive: Path, names: Sequence[str], binaries: Path) -> Path:
    """Write one image under all these names, unless the user has named an archive; return the archive."""
    if given := os.environ.get("HAMI_TEST_IMAGES"):
        return Path(given)
    _install()
    layer = archive.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        for path in sorted(set(_files())):
            tar.add(path, _inside(path), recursive=False)
        tar.add(binaries / "kube-scheduler", "usr/local/bin/kube-scheduler")
        tar.add(_library(archive.parent), str(LIBRARY / "libvgpu.so"))
        _add(tar, str(LIBRARY / "ld.so.preload"), b"/usr/local/vgpu/libvgpu.so\n")
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    path = f"PATH=/{INSIDE}/bin:/usr/local/bin:/usr/bin:/bin"
    config = json.dumps({
        "architecture": architecture(), "os": "linux",
        "config": {"Env": [path, "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }).encode()  # fmt: skip
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    with tarfile.open(archive, "w") as tar:
        tar.add(layer, "layer.tar")
        _add(tar, name, config)
        _add(tar, "manifest.json", json.dumps([{"Config": name, "RepoTags": names, "Layers": ["layer.tar"]}]).encode())
    layer.unlink()
    return archive


def _library(folder: Path) -> Path:
    """Make a library that limits nothing, in HAMi-core's place."""
    made = folder / "libvgpu.so"
    subprocess.run([compiler(), "-shared", "-x", "c", "/dev/null", "-o", made], check=True)
    return made


def _install() -> None:
    """Install the services as their Dockerfile does, so that they can be moved."""
    uv = ROOT / ".tools" / "bin" / "uv"
    if not HOME.exists():
        subprocess.run([uv, "venv", "--quiet", "--relocatable", "--python", sys.executable, HOME], cwd=ROOT, check=True)
    services = [f"--package=hami-{name}" for name in ("webhook", "extender", "allocator", "node-agent", "testkit")]
    command = [uv, "sync", "--frozen", "--no-dev", "--no-editable", "--quiet", *services]
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(HOME)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def _files() -> Iterator[Path]:
    """Yield what the image holds: the environment, Python, two tools, and every library that any of these loads."""
    trees = [*_below(HOME), *_below(Path(sysconfig.get_path("stdlib")))]
    programs = [HOME / "bin" / "python", *(Path(found) for name in TOOLS if (found := shutil.which(name)))]
    loaded = [*programs, *(path for path in trees if ".so" in path.name and path.is_file())]
    yield from trees
    yield from (Path(link) for link in LINKS if Path(link).is_symlink())
    for path in [*programs, *_libraries(loaded)]:
        yield from _with_links(path)


def _with_links(path: Path) -> Iterator[Path]:
    """Yield a file, and each link on the way to it."""
    while True:
        path = path.parent.resolve() / path.name
        yield path
        if not path.is_symlink():
            return
        path = path.parent / path.readlink()


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT or Path(place).is_relative_to(HOME)]
        yield from (Path(place) / name for name in (*folders, *files))


def _libraries(programs: Iterable[Path]) -> set[Path]:
    """Return what the dynamic linker loads for these."""
    command = ["ldd", *map(str, programs)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {Path(path) for path in LINKED.findall(said)}


def _inside(path: Path) -> str:
    if path.is_relative_to(HOME):
        return f"{INSIDE}/{path.relative_to(HOME)}"
    return str(path).lstrip("/")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    tar.addfile(entry, io.BytesIO(content))
