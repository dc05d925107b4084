"""What the tests of the highest tier stand on; ``make e2e`` says where the binaries are, and runs them."""

import os
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from hami_testkit.real_node import why_not

from tests.e2e.ground import Ground, a_ground
from tests.e2e.installed import Installed, an_installation
from tests.e2e.kubectl import Kubectl, a_server

Report = Callable[[object], None]
COUNTED = "counted"
LONGEST = ("test_whose_allocate_is_it", "test_the_chart_as_pods", "test_losing_nodes", "test_what_a_container_gets")
"""Modules that begin first, so that no worker waits for another at the end."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest modules first; within a module nothing changes its place."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Return where to say what was counted: it is shown at the end of the run."""
    name = request.node.name.removeprefix("test_").replace("_", " ")
    return lambda what: request.node.user_properties.append((COUNTED, f"{name}: {what}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the tests counted, whichever worker ran them."""
    for result in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        if result.when == "call":
            for kind, line in result.user_properties:
                if kind == COUNTED:
                    terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def binaries() -> Path:
    """Return the folder of Kubernetes' binaries."""
    found = os.environ.get("HAMI_TEST_KUBE_BIN")
    if found is None:
        pytest.skip("HAMI_TEST_KUBE_BIN names no folder of Kubernetes' binaries: make e2e builds them")
    return Path(found)


@pytest.fixture
def with_helm(binaries: Path) -> Path:
    """Return the folder of Kubernetes' binaries, which has kubectl and helm in it."""
    if missing := [name for name in ("kubectl", "helm") if not (binaries / name).exists()]:
        pytest.skip(f"{binaries} holds no {' and no '.join(missing)}: make e2e builds them into its own folder")
    return binaries


@pytest.fixture
async def ground(binaries: Path) -> AsyncIterator[Ground]:
    """Run a cluster with one real node of simulated cards."""
    if why := why_not(binaries):
        pytest.skip(f"no real node can run here: {why}")
    async with a_ground(binaries) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["stand-in", "kube-apiserver"])
async def anywhere(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, binaries: Path
) -> AsyncIterator[tuple[str, Kubectl]]:
    """Run one server, and say which; all tests of a module stand on it."""
    if not (binaries / "kubectl").is_file():
        pytest.skip(f"{binaries} holds no kubectl: make e2e builds it")
    folder = tmp_path_factory.mktemp("kubectl")
    async with a_server(request.param, binaries, folder) as kubeconfig:
        yield request.param, Kubectl(binaries / "kubectl", kubeconfig, folder / "cache")


@pytest_asyncio.fixture(loop_scope="module")
async def kubectl(anywhere: tuple[str, Kubectl]) -> Kubectl:
    """Return kubectl in a namespace of one test alone."""
    _, everywhere = anywhere
    name = f"test-{uuid.uuid4().hex[:8]}"
    (await everywhere("create", "namespace", name)).assert_shows(f"namespace/{name} created")
    return everywhere.within(name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installed(binaries: Path) -> AsyncIterator[Installed]:
    """Run the chart on a control plane with its controllers; the tests of a module have a namespace each."""
    async with an_installation(binaries) as found:
        yield found
