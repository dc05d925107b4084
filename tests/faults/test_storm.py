"""A small storm with every fault, each kept up only as long as it must to matter."""

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.faults.kinds import KINDS
from tests.faults.report import Report

DEADLINE = 700


def a_program(module: str, *options: str) -> tuple[int, str]:
    """Run a module to its end; one that takes too long is interrupted, so that it leaves nothing behind."""
    command = [sys.executable, "-m", module, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said = process.communicate(timeout=DEADLINE)[0]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            said = process.communicate()[0]
    return process.returncode, said


@pytest.mark.timeout(900)
def test_every_pod_is_bound_and_no_card_given_twice_while_everything_fails(tmp_path: Path) -> None:
    """60 pods on 10 nodes; another seed, a bigger fleet or a real control plane: ``make faults``."""
    file = tmp_path / "report.json"
    options = ["--seed", "4", "--pods", "60", "--nodes", "10", "--short", "--report", str(file)]
    code, said = a_program("tests.faults.storm", *options)
    assert 0 == code, said
    seen = msgspec.json.decode(file.read_bytes(), type=Report)

    assert [] == seen.findings
    assert set(KINDS) == set(seen.faults)
    assert seen.pods > 60
    assert seen.bindings_sent > seen.pods
    assert 1 == len(seen.landed)
