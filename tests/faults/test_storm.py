"""A small storm with every fault, each kept up only as long as it must to matter."""

import tempfile
from pathlib import Path

import pytest

from tests.faults.kinds import KINDS, SHORT
from tests.faults.storm import Order, storm


@pytest.mark.timeout(600)
async def test_every_pod_is_bound_and_no_card_given_twice_while_everything_fails() -> None:
    """60 pods on 10 nodes; another seed, a bigger fleet or a real control plane: ``make faults``."""
    # short on purpose: the kubelets' sockets stand below it
    with tempfile.TemporaryDirectory(prefix="s-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        seen = await storm(Order(seed=4, pods=60, nodes=10, lengths=SHORT), Path(folder))

    assert [] == seen.findings
    assert [] == seen.failed
    assert set(KINDS) == set(seen.faults)
    assert seen.pods >= 60 + seen.recreated + seen.replaced
    assert len(seen.landed) == 1
