"""What the tests of the highest tier stand on; ``make e2e`` says where the binaries are, and runs them."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hami_testkit.real_node import why_not

from tests.e2e.ground import Ground, a_ground


@pytest.fixture
def binaries() -> Path:
    """Return the folder of Kubernetes' binaries."""
    found = os.environ.get("HAMI_TEST_KUBE_BIN")
    if found is None:
        pytest.skip("HAMI_TEST_KUBE_BIN names no folder of Kubernetes' binaries: make e2e builds them")
    return Path(found)


@pytest.fixture
async def ground(binaries: Path) -> AsyncIterator[Ground]:
    """Run a cluster with one real node of simulated cards."""
    if why := why_not(binaries):
        pytest.skip(f"no real node can run here: {why}")
    async with a_ground(binaries) as found:
        yield found
