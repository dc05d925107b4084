"""The how-to's example is a vendor: taken from the page as it stands, it is served like any other."""

import json
import re
from pathlib import Path
from types import ModuleType

import pytest
from hami_model import config, vendors
from hami_model.admission import Admit, Deny, admit
from hami_model.allocation import Allocation
from hami_model.annotations import allocation_annotations, read_allocation
from hami_model.catalog import Catalog
from hami_model.charge import charge
from hami_model.config import Names
from hami_model.demands import pod_demand
from hami_model.fleet import Fleet
from hami_model.inspection import reading
from hami_model.objects import Node, Pod, PodRef
from hami_model.place import Placement, Unfit, place
from hami_model.policies import Policies, for_pod
from msgspec import convert, structs

PAGE = Path(__file__).parents[1] / "docs/how-to/add-a-vendor.md"
EXAMPLE = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
CARDS = [
    {"id": f"acme-{at}", "index": at, "count": 4, "devmem": 32768, "devcore": 100, "type": "ACME", "health": True}
    for at in (0, 1)
]


@pytest.fixture
def catalog() -> Catalog:
    """All vendors, and the page's."""
    assert EXAMPLE is not None
    module = ModuleType("acme")
    exec(EXAMPLE[1], module.__dict__)  # noqa: S102 - the page is ours
    names = Names(
        resource_count_name="acme.example/npu",
        resource_memory_name="acme.example/npumem",
        resource_core_name="acme.example/npucores",
    )
    others = vendors.build(config.DEFAULTS, ascend=True, iluvatar=True)
    return Catalog.of([*others.vendors, module.vendor(names)])


def a_pod(**limits: object) -> Pod:
    asked = {f"acme.example/{name}": amount for name, amount in limits.items()}
    container = {"name": "main", "resources": {"limits": asked, "requests": asked}}
    metadata = {"name": "p", "namespace": "default", "uid": "u"}
    return convert({"metadata": metadata, "spec": {"containers": [container]}}, Pod)


def a_fleet(catalog: Catalog) -> tuple[Fleet, Node]:
    notes = {"hami.io/node-acme-register": json.dumps(CARDS)}
    node = convert({"metadata": {"name": "n", "annotations": notes}}, Node)
    acme, fleet = catalog.by_word("ACME"), Fleet(catalog)
    fleet.set_node(node)
    fleet.set_devices("n", "ACME", list(acme.discover(acme, node)))
    return fleet, node


def test_the_example_is_short() -> None:
    """A vendor is mostly data."""
    assert EXAMPLE is not None
    assert len([line for line in EXAMPLE[1].splitlines() if line.strip()]) < 60


def test_the_example_is_admitted_and_refused_like_any_other(catalog: Catalog) -> None:
    """A good ask gets the scheduler; one that cannot be read is told what to write."""
    good = admit(a_pod(npu=1, npumem=8000), catalog, scheduler_name="hami-scheduler", force_overwrite=True)
    bad = admit(a_pod(npu=1, npumem="8Gi"), catalog, scheduler_name="hami-scheduler", force_overwrite=True)

    assert isinstance(good, Admit)
    assert "hami-scheduler" == good.scheduler_name
    assert isinstance(bad, Deny)
    assert bad.message.endswith("acme.example/npumem counts MiB: write 8192")


def test_the_example_is_placed_booked_and_read_back(catalog: Catalog) -> None:
    """Cards are shared up to their memory, annotations say who has what, a restart finds it, the checker agrees."""
    fleet, node = a_fleet(catalog)
    pod = a_pod(npu=2, npumem=8000)
    outcome = place(fleet, pod, pod_demand(pod, catalog), ["n"], policies=for_pod(pod, Policies()))
    assert isinstance(outcome, Placement)
    allocation = Allocation(pod=PodRef.of(pod), node="n", containers=outcome.containers)
    written = allocation_annotations(catalog, allocation, pod, now=1735689600.5)
    bound = structs.replace(
        pod,
        metadata=structs.replace(pod.metadata, annotations=written),
        spec=structs.replace(pod.spec, node_name="n"),
    )
    found = read_allocation(catalog, bound)
    assert found is not None
    fleet.charge("n", charge(found, bound))
    too_much = a_pod(npu=1, npumem=25000)

    assert "acme-1,ACME,8000,25:acme-0,ACME,8000,25:;" == written["hami.io/acme-devices-allocated"]
    assert "2" == written["acme.example/cards"]
    assert ["acme-0", "acme-1"] == [card.id for card in reading.cards(catalog.by_word("ACME"), node)]
    assert Unfit(reasons={"2/2 CardInsufficientMemory": [0]}) == place(
        fleet, too_much, pod_demand(too_much, catalog), ["n"], policies=for_pod(too_much, Policies())
    )
