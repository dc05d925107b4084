"""Shared regions as HAMi-core writes them: by a C program with HAMi-core's own structures.

One rule: nothing here knows an offset; ``shared_region.c`` says what it writes.
"""

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from hami_testkit.nvml import NoCompiler

SOURCE = Path(__file__).parent / "shared_region.c"


def write_region(path: Path, *uuids: str, layout: int = 1) -> None:
    """Write the region of a container with two cards and three processes; raise ``NoCompiler``."""
    with tempfile.TemporaryDirectory(prefix="hami-region-") as folder:
        program = Path(folder) / "shared_region"
        program.write_bytes(_compiled())
        program.chmod(0o700)
        subprocess.run([str(program), str(path), str(layout), *uuids], check=True)


@functools.cache
def _compiled() -> bytes:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompiler("no C compiler (cc) is here to make the program with that writes a shared region")
    with tempfile.TemporaryDirectory(prefix="hami-region-") as folder:
        program = Path(folder) / "shared_region"
        subprocess.run([compiler, "-O1", "-o", str(program), str(SOURCE)], check=True)
        return program.read_bytes()
