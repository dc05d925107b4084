"""The planted bugs stay plantable: each patch still fits the sources, and the test that it names is there."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.planted.run import HERE, ROOT, Plant

PLANTS = [Plant.read(path) for path in sorted(HERE.glob("*.patch"))]
NAMES = [plant.path.stem for plant in PLANTS]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git, which applies the patches")
@pytest.mark.parametrize("plant", PLANTS, ids=NAMES)
def test_a_patch_still_fits(plant: Plant) -> None:
    """Whoever changes the lines around a planted bug moves the bug along."""
    alone = os.environ | {"GIT_CEILING_DIRECTORIES": str(ROOT.parent)}
    command = ["git", "apply", "--check", str(plant.path)]
    checked = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=False)

    assert "" == checked.stderr


@pytest.mark.parametrize("plant", PLANTS, ids=NAMES)
def test_the_test_that_must_turn_red_is_there(plant: Plant) -> None:
    """A test that was renamed would otherwise be missed only when somebody plants the bugs."""
    path, _, name = plant.test.partition("::")

    assert name in Path(ROOT / path).read_text()
