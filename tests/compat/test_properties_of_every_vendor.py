"""What holds for every vendor, on the fleets and with the asks that were recorded of it, in any order.

One rule: the vendor is a parameter, and nothing here knows any; who stands in ``answers`` takes part.
"""

import json
from typing import Any

import msgspec
import pytest
from hami_model.allocation import Allocation
from hami_model.annotations import allocation_annotations
from hami_model.catalog import Catalog
from hami_model.demands import pod_demand
from hami_model.errors import DomainError
from hami_model.fleet import Fleet
from hami_model.holding import holding
from hami_model.inspection import Sight, inspect
from hami_model.ledger import Ledger
from hami_model.life import BindSent, Bound, FoundBound, Released, Seen
from hami_model.objects import ContainerState, ContainerStatus, Node, Pod, PodRef, PodStatus, Terminated
from hami_model.place import Placement, place
from hami_model.policies import Policies, for_pod
from hami_model.quota import Quotas
from hami_model.request import asks_for_devices
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.compat import answers
from tests.compat.model_cluster import catalog_of, fleet_of

NOW = 1_800_000_000.0
CATALOG = catalog_of({})
OURS = {"schedulerName": "hami-scheduler"}
ENDED = ContainerState(terminated=Terminated(exit_code=0))


def fleets(vendor: str) -> list[list[dict[str, Any]]]:
    """Return the recorded fleets under the chart's names, each once."""
    cases = [case for word, case in answers.recorded("schedule") if word == vendor and not case.get("settings")]
    return list({json.dumps(case["nodes"]): case["nodes"] for case in cases}.values())


def asks(vendor: str) -> list[dict[str, Any]]:
    """Return what recorded pods ask for, each once."""
    cases = [case for word, case in answers.recorded("schedule") if word == vendor]
    pods = [step["pod"] for case in cases for step in case["steps"] if "pod" in step]
    found = [{"annotations": pod["metadata"].get("annotations", {}), "spec": {**pod["spec"], **OURS}} for pod in pods]
    return list({json.dumps(ask): ask for ask in found}.values())


FLEETS = {vendor: fleets(vendor) for vendor in answers.VENDORS}
ASKS = {vendor: asks(vendor) for vendor in answers.VENDORS}


class Cluster:
    """A recorded fleet, the books about it, and its pods as the API server has them."""

    def __init__(self, nodes: list[dict[str, Any]]) -> None:
        self.raw = nodes
        self.nodes = [msgspec.convert(node, Node) for node in nodes]
        self.fleet = fleet_of(CATALOG, nodes)
        self.ledger = Ledger(self.fleet, Quotas(CATALOG))
        self.pods: dict[str, Pod] = {}
        self.number = 0

    def comes(self, ask: dict[str, Any]) -> None:
        """Place a pod and bind it, if a node takes it."""
        self.number += 1
        named = {"name": f"p{self.number}", "namespace": "team-a", "uid": f"u{self.number}"}
        pod = msgspec.convert({"metadata": {**named, "annotations": ask["annotations"]}, "spec": ask["spec"]}, Pod)
        placement = placed(self.fleet, pod)
        if placement is None:
            return
        assert placement == placed(self.fleet, pod)  # the same question has the same answer
        allocation = Allocation(pod=PodRef.of(pod), node=placement.node, containers=placement.containers)
        self.ledger.apply(BindSent(uid=pod.metadata.uid, pod=pod, allocation=allocation))
        self.ledger.apply(Bound(uid=pod.metadata.uid))
        said = pod.annotations | allocation_annotations(CATALOG, allocation, pod, now=NOW)
        meta = structs.replace(pod.metadata, annotations=said)
        bound = structs.replace(pod.spec, node_name=placement.node)
        self.pods[pod.metadata.uid] = structs.replace(pod, metadata=meta, spec=bound)

    def starts(self, uid: str) -> None:
        """Let a pod's init containers end."""
        pod = self.pods[uid]
        ended = [ContainerStatus(name=c.name, state=ENDED) for c in pod.init_containers if not c.is_sidecar]
        self.pods[uid] = structs.replace(pod, status=PodStatus(phase="Running", init_container_statuses=ended))
        self.ledger.apply(Seen(uid=uid, pod=self.pods[uid]))

    def goes(self, uid: str) -> None:
        """Delete a pod."""
        del self.pods[uid]
        self.ledger.apply(Released(uid=uid))

    def restarted(self) -> Fleet:
        """Return the books as a new process makes them, from the API server alone."""
        fleet = fleet_of(CATALOG, self.raw)
        ledger = Ledger(fleet, Quotas(CATALOG))
        for uid, pod in self.pods.items():
            devices = [d for v in CATALOG.vendors for n in self.nodes for d in v.discover(v, n)
                       if n.metadata.name == pod.spec.node_name]  # fmt: skip
            found = holding(pod, CATALOG, devices)
            assert not found.complaints
            assert found.allocation is not None
            ledger.apply(FoundBound(uid=uid, pod=pod, allocation=found.allocation))
        return fleet


def placed(fleet: Fleet, pod: Pod) -> Placement | None:
    try:
        demand = pod_demand(pod, CATALOG)
        policies = for_pod(pod, Policies())
    except DomainError:
        return None
    outcome = place(fleet, pod, demand, fleet.nodes, policies=policies) if asks_for_devices(demand) else None
    return outcome if isinstance(outcome, Placement) else None


def lived(vendor: str, data: st.DataObject) -> Cluster:
    """Let pods come, start and go."""
    cluster = Cluster(data.draw(st.sampled_from(FLEETS[vendor]), label="fleet"))
    for _ in range(data.draw(st.integers(1, 14), label="steps")):
        what = data.draw(st.sampled_from(["comes", "comes", "comes", "starts", "goes"]), label="what")
        if what == "comes":
            cluster.comes(data.draw(st.sampled_from(ASKS[vendor]), label="ask"))
        elif cluster.pods:
            getattr(cluster, what)(data.draw(st.sampled_from(sorted(cluster.pods)), label="pod"))
    return cluster


@pytest.mark.parametrize("vendor", answers.VENDORS)
@settings(max_examples=12)
@given(st.data())
def test_no_card_is_promised_twice(vendor: str, data: st.DataObject) -> None:
    """The checker, which shares nothing with the books, finds nothing in what the API server shows."""
    cluster = lived(vendor, data)
    sight = Sight(nodes=cluster.nodes, pods=list(cluster.pods.values()), now=NOW, untried=frozenset())

    assert () == inspect(sight, CATALOG)


@pytest.mark.parametrize("vendor", answers.VENDORS)
@settings(max_examples=12)
@given(st.data())
def test_a_restart_finds_the_same_books(vendor: str, data: st.DataObject) -> None:
    """From nodes and pods alone, without a complaint; whom the cards' guests are, too."""
    cluster = lived(vendor, data)

    assert cluster.fleet.uses == cluster.restarted().uses


@pytest.mark.parametrize("vendor", answers.VENDORS)
@settings(max_examples=12)
@given(st.data())
def test_when_all_have_gone_nothing_is_booked(vendor: str, data: st.DataObject) -> None:
    """And the next pod is answered as on a new fleet."""
    cluster = lived(vendor, data)
    for uid in list(cluster.pods):
        cluster.goes(uid)
    ask = data.draw(st.sampled_from(ASKS[vendor]), label="ask")
    next_one = Cluster(cluster.raw)
    next_one.number = cluster.number
    for each in (cluster, next_one):
        each.comes(ask)
    now = [list(each.pods.values()) for each in (cluster, next_one)]

    assert now[0] == now[1]


@pytest.mark.parametrize("vendor", answers.VENDORS)
def test_there_is_something_to_try(vendor: str) -> None:
    """Of every vendor pods are placed on its recorded fleets."""
    clusters = [Cluster(nodes) for nodes in FLEETS[vendor]]
    for cluster in clusters:
        for ask in ASKS[vendor]:
            cluster.comes(ask)

    assert any(cluster.pods for cluster in clusters)


def test_the_catalog_is_whole() -> None:
    """Every vendor of the chart's device config takes part."""
    assert isinstance(CATALOG, Catalog)
    words = {c.vendor for vendor in answers.VENDORS for ask in ASKS[vendor] for c in _demands(ask)}

    assert set(CATALOG.words) == words


def _demands(ask: dict[str, Any]) -> list[Any]:
    try:
        containers = pod_demand(msgspec.convert({"metadata": {"name": "p"}, "spec": ask["spec"]}, Pod), CATALOG)
    except DomainError:
        return []
    return [demand for container in containers for demand in container.demands]
