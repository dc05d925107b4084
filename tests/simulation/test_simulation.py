"""The allocator's real code against an adversarial cluster: what the referee watches holds for every seed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEEDS = int(os.environ.get("SIMULATION_SEEDS", "200"))
"""How many seeds are run here; ``make soak`` runs more of them."""
PARTS = 4


def simulate(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation.run", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


class TestEverySeed:
    """Each part may run beside the others."""

    @pytest.mark.timeout(900)
    @pytest.mark.parametrize("part", range(PARTS))
    def test_what_must_hold_holds(self, part: int) -> None:
        """No card is given twice, nobody is served with another's devices, and all is well when calm returns."""
        each = SEEDS // PARTS
        done = simulate("--seeds", str(each), "--from", str(1 + part * each))

        assert 0 == done.returncode, done.stdout[-12000:] + done.stderr[-3000:]


def test_a_seed_tells_the_same_story_twice() -> None:
    """A failure can be seen again: same seed, same story, in another process too."""
    first, second = (simulate("--seed", "5", "--log").stdout for _ in range(2))

    assert "all held" in first
    assert first == second
