"""Plant known bugs and demand that the tests see them.

Each ``*.patch`` beside this file is one bug: a header line ``# test:`` that names the test which must turn red, a line
``# bug:`` that says what is wrong in words, then a unified diff. The checkout itself is never touched: every bug is
planted in a copy of its own. Usage: ``python -m tests.planted.run [NAME ...]``.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COPIED = ("deploy", "docs", "libs", "services", "tests", "pyproject.toml")
SECONDS = 180
SEEDS = 1000
"""Runs of the simulation within which a bug must show."""
TESTS_FAILED = 1
"""Pytest's exit code when tests ran and some failed; anything higher means that they did not run."""


@dataclass(frozen=True)
class Plant:
    """One bug to plant."""

    path: Path
    test: str
    bug: str

    @classmethod
    def read(cls, path: Path) -> "Plant":
        """Read the header of a patch."""
        header = dict(
            line.removeprefix("# ").split(": ", 1) for line in path.read_text().splitlines() if line.startswith("# ")
        )
        return cls(path, header["test"], header["bug"])


@dataclass(frozen=True)
class Outcome:
    """What became of a planted bug; it is well only when the test turned red."""

    word: str
    seconds: float
    is_well: bool
    details: str = ""


def main(names: Sequence[str]) -> int:
    """Plant every bug, or the named ones; return 0 when all were seen."""
    plants = [Plant.read(path) for path in sorted(HERE.glob("*.patch")) if not names or path.stem in names]
    if not plants:
        print(f"no such planted bug: {' '.join(names)}; there are {', '.join(p.stem for p in HERE.glob('*.patch'))}")
        return 1
    healthy = run_tests_unchanged(sorted({plant.test for plant in plants}))
    print(f"without any bug: {healthy.word} in {healthy.seconds:.0f} s")
    if not healthy.is_well:
        print(healthy.details)
        return 1
    width = max(len(plant.path.stem) for plant in plants)
    failures = [plant for plant, outcome in outcomes(plants, width) if not outcome.is_well]
    print(f"{len(plants) - len(failures)} of {len(plants)} planted bugs were seen")
    return 1 if failures else 0


def outcomes(plants: Sequence[Plant], width: int) -> Iterator[tuple[Plant, Outcome]]:
    """Plant one bug after the other and print a line for each."""
    for plant in plants:
        outcome = try_out(plant)
        mark = "ok " if outcome.is_well else "BAD"
        print(
            f"{mark} {plant.path.stem:<{width}}  {outcome.word:<14} {outcome.seconds:3.0f} s  {plant.bug}", flush=True
        )
        if not outcome.is_well:
            print(outcome.details)
        yield plant, outcome


def try_out(plant: Plant) -> Outcome:
    """Plant one bug in a copy and run the test that must see it."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = copied_into(Path(folder))
        applied = subprocess.run(
            ["git", "apply", str(plant.path)], cwd=copy, env=os.environ | {"GIT_CEILING_DIRECTORIES": folder},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if applied.returncode:
            return Outcome("does not apply", 0, is_well=False, details=applied.stderr)
        code, seconds, output = run_tests(copy, [plant.test])
    if code == TESTS_FAILED:
        return Outcome("red", seconds, is_well=True)
    word = {0: "STAYED GREEN", None: "TOO SLOW"}.get(code, "DID NOT RUN")
    return Outcome(word, seconds, is_well=False, details=output)


def run_tests_unchanged(tests: Sequence[str]) -> Outcome:
    """Run the tests on an unchanged copy: red must mean the bug."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        code, seconds, output = run_tests(copied_into(Path(folder)), tests, limit=SECONDS * 3)
    return Outcome("green" if code == 0 else "RED", seconds, is_well=code == 0, details=output)


def copied_into(folder: Path) -> Path:
    """Copy what the tests need."""
    ignore = shutil.ignore_patterns("__pycache__", ".*")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            shutil.copy(source, folder / name)
    return folder


def run_tests(copy: Path, tests: Sequence[str], *, limit: int = SECONDS) -> tuple[int | None, float, str]:
    """Run tests of a copy against the libraries of that copy; the same examples every time. No code = out of time."""
    sources = [str(copy), *(str(path) for path in sorted([*copy.glob("libs/*/src"), *copy.glob("services/*/src")]))]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sources),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SIMULATION_SEEDS": str(SEEDS),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "--tb=line",
        "--hypothesis-seed=1",
        "-p",
        "tests.planted.profile",
    ]
    began = time.monotonic()
    try:
        done = subprocess.run(
            [*command, *tests], cwd=copy, env=environment, timeout=limit, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        return None, time.monotonic() - began, f"still running after {limit} s: {' '.join(command)}"
    return done.returncode, time.monotonic() - began, done.stdout[-3000:] + done.stderr[-1000:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
