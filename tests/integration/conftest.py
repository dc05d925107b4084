"""What every contract test stands on: the server under test, and a namespace of its own there."""

from collections.abc import AsyncIterator

import pytest
from hami_testkit.cluster.client import ApiClient

from tests.integration.contract import CORE, a_namespace, a_server


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
