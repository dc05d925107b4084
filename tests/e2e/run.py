"""``make e2e``: Kubernetes' own binaries, the stand-in's contracts held against them, our services on real parts.

One rule: whatever cannot run here is said in the last lines, with its reason; nothing is left out in silence.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hami_testkit.processes import ProcessFailedError
from hami_testkit.real_cluster import control_plane
from hami_testkit.real_node import why_not
from msgspec import Struct

from tests.e2e.binaries.build import NoBinaries, binaries

CONTRACTS = ("test_apiserver_contract*.py", "test_scheduler_contract.py")
INTEGRATION = Path("tests/integration")
TIERS = ("libs/hami-testkit", "tests/chart", "tests/e2e")
MEASURING = ("tests/e2e/test_a_burst.py", "tests/e2e/test_offering_every_node.py")
"""They have the machine for themselves; of the others three run at a time, since they wait most of it."""
BIN, KUBECONFIG, SCHEDULER = "HAMI_TEST_KUBE_BIN", "HAMI_TEST_KUBECONFIG", "HAMI_TEST_KUBE_SCHEDULER"


class Step(Struct, frozen=True):
    """One part of the run: what it was, whether it is well, how long it took."""

    name: str
    is_well: bool
    seconds: float


async def run(version: str, more: list[str]) -> list[Step]:
    """Build what is missing, then run every tier."""
    began = time.monotonic()
    folder = await asyncio.to_thread(binaries, version)
    print(f"Kubernetes' binaries are in {folder}", flush=True)
    steps = [Step("binaries", is_well=True, seconds=time.monotonic() - began)]
    with tempfile.TemporaryDirectory(prefix="e2e-") as name:
        if KUBECONFIG in os.environ:
            steps.append(await _contracts(folder, Path(os.environ[KUBECONFIG])))
        else:
            async with control_plane(folder, Path(name)) as kubeconfig:
                steps.append(await _contracts(folder, kubeconfig))
    where = {BIN: str(folder)}
    steps.append(await _pytest("how fast it is", [*MEASURING, "-m", "e2e", *more], where))
    others = [*TIERS, *(f"--ignore={file}" for file in MEASURING), "-n3", "--dist=loadscope", "--no-loadscope-reorder"]
    steps.append(await _pytest("our services on real parts", [*others, "-m", "e2e", *more], where))
    why = why_not(folder)
    print("\n".join(f"{'ok    ' if s.is_well else 'FAILED'} {s.seconds:6.0f} s  {s.name}" for s in steps))
    print(f"no real node ran: {why}" if why else "a real kubelet and containerd ran")
    return steps


async def _contracts(folder: Path, kubeconfig: Path) -> Step:
    env = {KUBECONFIG: str(kubeconfig), SCHEDULER: str(folder / "kube-scheduler")}
    return await _pytest("the stand-in's contracts, held against the real ones", _contract_files(), env)


def _contract_files() -> list[str]:
    return [str(file) for pattern in CONTRACTS for file in sorted(INTEGRATION.glob(pattern))]


async def _pytest(name: str, arguments: list[str], env: Mapping[str, str]) -> Step:
    print(f"\n{name} …", flush=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **env})
    code = await process.wait()
    is_well = code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    return Step(name, is_well=is_well, seconds=time.monotonic() - began)


def main() -> None:
    """Run it all; end with 1 when anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.run", description=main.__doc__)
    parser.add_argument("--kubernetes", default="", help="its version, such as 1.33.5; absent: the pinned one")
    options, more = parser.parse_known_args()
    try:
        steps = asyncio.run(run(options.kubernetes, more))
    except (NoBinaries, ProcessFailedError) as error:
        sys.exit(f"nothing ran: {error}")
    sys.exit(0 if all(step.is_well for step in steps) else 1)


if __name__ == "__main__":
    main()
