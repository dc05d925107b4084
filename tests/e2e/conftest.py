"""What the tests of the highest tier stand on; ``make e2e`` says where the binaries are, and runs them."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from hami_testkit.real_node import why_not

from tests.e2e.ground import Ground, a_ground
from tests.e2e.installed import Installed, an_installation

Report = Callable[[object], None]
LINES = pytest.StashKey[list[str]]()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Return where to say what was counted: it is shown at the end of the run."""
    lines = request.config.stash.setdefault(LINES, [])
    name = request.node.name.removeprefix("test_").replace("_", " ")
    return lambda what: lines.append(f"{name}: {what}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show what the tests counted."""
    for line in config.stash.get(LINES, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installed(binaries: Path) -> AsyncIterator[Installed]:
    """Run the chart on a control plane with its controllers; the tests of a module have a namespace each."""
    async with an_installation(binaries) as found:
        yield found
