"""A cluster of the model alone: what a recorded case does to a real one, done to fleet, quotas and ledger.

One rule: it drives the model through the functions that the services call, and decides nothing itself.
"""

from typing import Any

import msgspec
import yaml
from hami_model import config, vendors
from hami_model.allocation import Allocation
from hami_model.annotations import allocation_annotations
from hami_model.catalog import Catalog
from hami_model.demands import pod_demand
from hami_model.errors import DomainError, MalformedInventory
from hami_model.fleet import Fleet
from hami_model.ledger import Ledger
from hami_model.life import BindSent, Bound, Confirmed, Released, Reserved, Seen
from hami_model.objects import ContainerState, ContainerStatus, Node, Pod, PodRef, Terminated
from hami_model.place import Placement, Unfit, place, why_not
from hami_model.policies import Policies, for_pod
from hami_model.quota import Quotas
from hami_model.request import asks_for_devices

from tests.compat import rules

CHART = yaml.safe_load((rules.VECTORS / "settings/device-config.yaml").read_text())
NOW = 1735689600.5


class ModelCluster:
    """The state that one recorded case walks through."""

    def __init__(self, case: dict[str, Any]) -> None:
        settings = case.get("settings", {})
        flags = settings.get("flags", {})
        self.catalog = catalog_of(settings)
        self.policies = Policies(
            node=flags.get("node-scheduler-policy", "binpack"), card=flags.get("gpu-scheduler-policy", "spread")
        )
        self.fleet = fleet_of(self.catalog, case["nodes"])
        self.quotas = Quotas(self.catalog)
        self.ledger = Ledger(self.fleet, self.quotas)
        self.pods: dict[str, Pod] = {}
        for quota in case.get("quotas", ()):
            self.limit(quota)

    def limit(self, quota: dict[str, Any]) -> None:
        """Set a namespace's ResourceQuota."""
        self.quotas.set(quota["namespace"], "quota", quota["hard"])

    def filter(self, raw: dict[str, Any], nodes: list[str]) -> dict[str, Any]:
        """Decide, and bind where a node was found; answer in the words of a vector's ``expect``."""
        pod = a_pod(raw)
        try:
            demand = pod_demand(pod, self.catalog)
            if not asks_for_devices(demand):
                return {"node": None, "passthrough": nodes}
            outcome = place(self.fleet, pod, demand, nodes, policies=for_pod(pod, self.policies), quota=self._room(pod))
        except DomainError as error:
            return {"node": None, "error": str(error)}
        if isinstance(outcome, Unfit):
            return {"node": None, "failed_nodes": by_name(outcome.reasons, nodes)}
        allocation = Allocation(pod=PodRef.of(pod), node=outcome.node, containers=outcome.containers)
        self.ledger.apply(Reserved(uid=pod.metadata.uid, pod=pod, allocation=allocation))
        self.pods[pod.metadata.name] = pod
        return {
            "node": outcome.node,
            "annotations": allocation_annotations(self.catalog, allocation, pod, now=NOW),
        }

    def simulate(self, raw: dict[str, Any], nodes: list[dict[str, Any]]) -> dict[str, Any]:
        """Decide on empty nodes that are not in the cluster."""
        pod, names = a_pod(raw), [node["metadata"]["name"] for node in nodes]
        demand = pod_demand(pod, self.catalog)
        if not asks_for_devices(demand):
            return {"nodes": []}
        fleet, policies = fleet_of(self.catalog, nodes), for_pod(pod, self.policies)
        outcome = place(fleet, pod, demand, names, policies=policies, quota=self._room(pod))
        failed = why_not(fleet, pod, demand, names, policies=policies, quota=self._room(pod))
        return {
            "nodes": [outcome.node] if isinstance(outcome, Placement) else [],
            "failed_nodes": by_name(failed, names),
        }

    def bind(self, name: str) -> None:
        """Bind the pod to its node."""
        uid = self.pods[name].metadata.uid
        self.ledger.apply(BindSent(uid=uid))
        self.ledger.apply(Bound(uid=uid))

    def confirm(self, name: str) -> None:
        """Report, as the node does, that the pod has its devices."""
        self.ledger.apply(Confirmed(uid=self.pods[name].metadata.uid))

    def end(self, name: str) -> None:
        """Take note that the pod is gone or has finished, or that its reservation is."""
        if name in self.pods:
            self.ledger.apply(Released(uid=self.pods.pop(name).metadata.uid))

    def finish_init(self, name: str) -> None:
        """Take note that all init containers have ended well."""
        pod = self.pods[name]
        ended = ContainerState(terminated=Terminated(exit_code=0))
        statuses = [ContainerStatus(name=container.name, state=ended) for container in pod.init_containers]
        status = msgspec.structs.replace(pod.status, init_container_statuses=statuses)
        self.ledger.apply(Seen(uid=pod.metadata.uid, pod=msgspec.structs.replace(pod, status=status)))

    def _room(self, pod: Pod) -> Any:
        return self.quotas.view(pod.metadata.namespace)


def catalog_of(settings: dict[str, Any]) -> Catalog:
    """Build the catalog of a case's device config."""
    raw = rules.merged_config(CHART, settings.get("config", {}))
    return vendors.build(config.parse(raw), ascend=True, iluvatar=True)


def fleet_of(catalog: Catalog, raw_nodes: list[dict[str, Any]]) -> Fleet:
    """Register nodes, as their plugins published them."""
    fleet = Fleet(catalog)
    for node in (msgspec.convert(raw, Node) for raw in raw_nodes):
        for vendor in catalog.vendors:
            try:
                devices = vendor.discover(vendor, node)
            except MalformedInventory:
                continue
            fleet.set_devices(node.metadata.name, vendor.word, devices)
        fleet.set_node(node)
    return fleet


def a_pod(raw: dict[str, Any]) -> Pod:
    """Read a recorded pod; its name serves as its uid."""
    pod = msgspec.convert(raw, Pod)
    return msgspec.structs.replace(pod, metadata=msgspec.structs.replace(pod.metadata, uid=pod.metadata.name))


def by_name(reasons: dict[str, list[int]], nodes: list[str]) -> dict[str, str]:
    """Turn reasons with positions into node -> reason."""
    return {nodes[position]: text for text, positions in reasons.items() for position in positions}
