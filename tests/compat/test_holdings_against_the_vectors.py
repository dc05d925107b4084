"""What HAMi gave to pods is believed as it stands: upgrading in place changes nobody's bookings."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.annotations import read_allocation
from hami_model.catalog import Catalog
from hami_model.defaults import DEVICE_CONFIG
from hami_model.device import Device
from hami_model.holding import Holding, holding
from hami_model.objects import Node, Pod
from msgspec import structs

from tests.compat import answers, rules


def catalog_of(case: dict[str, Any]) -> Catalog:
    changes = case.get("settings", {}).get("config", {})
    return vendors.build(config.parse(rules.merged_config(DEVICE_CONFIG, changes)), ascend=True, iluvatar=True)


def devices_of(case: dict[str, Any], catalog: Catalog) -> dict[str, list[Device]]:
    """Return the cards of every node of a case."""
    nodes = [msgspec.convert(raw, Node) for raw in case["nodes"]]
    return {node.metadata.name: [d for v in catalog.vendors for d in v.discover(v, node)] for node in nodes}


def bound_pods(case: dict[str, Any]) -> Iterator[Pod]:
    """Walk the pods that HAMi gave devices, bound and with the annotations that it wrote."""
    for step in case["steps"]:
        expect = step.get("expect", {})
        if "pod" in step and expect.get("annotations"):
            pod = msgspec.convert(step["pod"], Pod)
            yield structs.replace(
                pod,
                metadata=structs.replace(pod.metadata, annotations={**pod.annotations, **expect["annotations"]}),
                spec=structs.replace(pod.spec, node_name=expect["node"]),
            )


CASES = [pytest.param(case, id=f"{vendor}: {case['name']}") for vendor, case in answers.recorded("schedule")]


@pytest.mark.parametrize("case", CASES)
def test_what_hami_gave_is_believed(case: dict[str, Any]) -> None:
    """Every recorded allocation is read in full, without a complaint, and no card is held back."""
    catalog = catalog_of(case)
    devices = devices_of(case, catalog)
    for pod in bound_pods(case):
        written = read_allocation(catalog, pod)
        assert written is not None

        assert Holding(allocation=written) == holding(pod, catalog, devices[written.node])
