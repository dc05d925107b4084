"""What contract tests stand on: the server under test, a namespace of its own there; and a node with its kubelet."""

from collections.abc import AsyncIterator

import pytest
from hami_testkit.cluster.client import ApiClient

from tests.integration.contract import CORE, a_namespace, a_server
from tests.integration.one_node import OneNode, one_node


@pytest.fixture
async def api() -> AsyncIterator[ApiClient]:
    """Open a client of the server under test."""
    async with a_server() as client:
        yield client


@pytest.fixture
async def namespace(api: ApiClient) -> AsyncIterator[str]:
    """Make a namespace of one test alone."""
    async with a_namespace(api) as name:
        yield name


@pytest.fixture
def pods(namespace: str) -> str:
    """Return the path of the namespace's pods."""
    return f"{CORE}/namespaces/{namespace}/pods"


@pytest.fixture
async def node() -> AsyncIterator[OneNode]:
    """A node whose kubelet waits less than a real one."""
    async with one_node() as found:
        yield found
