"""kube-scheduler's own filters, as far as a device pod meets them: resources, cordons, taints, node selectors.

One rule: pure books of what stands where; a refusal is the text that kube-scheduler prints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hami_testkit.cluster import quantities
from hami_testkit.cluster.selectors import has_labels, label_selector
from hami_testkit.cluster.status import Json

Amounts = Mapping[str, int]


def amounts(listed: Mapping[str, Any] | None) -> dict[str, int]:
    """Return quantities in thousandths."""
    return {name: int(quantities.parse(amount) * 1000) for name, amount in (listed or {}).items()}


def requests(pod: Json) -> Counter[str]:
    """Return what a pod takes: the sum of what runs together, or the largest init container."""
    spec = pod["spec"]
    total = Counter({"pods": 1000})
    for container in spec["containers"]:
        total.update(_asked(container))
    highest: Counter[str] = Counter()
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":
            total.update(_asked(container))
            continue
        highest |= Counter(_asked(container))
    return total | highest


def _asked(container: Json) -> dict[str, int]:
    return amounts((container.get("resources") or {}).get("requests"))


class NodeBooks:
    """One node: what it has and what is taken."""

    def __init__(self, node: Json) -> None:
        self.used: dict[str, int] = {}
        self.renew(node)

    def renew(self, node: Json) -> None:
        """Take the node's new state."""
        self.node = node
        spec = node.get("spec") or {}
        self._is_open = not spec.get("unschedulable") and not spec.get("taints")
        self.free_of_use = {"pods": 110_000} | amounts((node.get("status") or {}).get("allocatable"))

    def take(self, wanted: Amounts, *, times: int = 1) -> None:
        """Count what a pod takes, or with ``times=-1`` gives back."""
        for name, amount in wanted.items():
            self.used[name] = self.used.get(name, 0) + times * amount

    def refusal(self, pod: Json, wanted: Amounts) -> list[str]:
        """Return why the pod cannot go here, empty when it can."""
        return self._closed_to(pod) or [
            "Too many pods" if name == "pods" else f"Insufficient {name}"
            for name, amount in wanted.items()
            if amount and self.used.get(name, 0) + amount > self.free_of_use.get(name, 0)
        ]

    def _closed_to(self, pod: Json) -> list[str]:
        wishes = pod["spec"]
        if self._is_open and "nodeSelector" not in wishes and "affinity" not in wishes:
            return []
        spec = self.node.get("spec") or {}
        tolerations = pod["spec"].get("tolerations") or []
        if spec.get("unschedulable") and not _tolerates(tolerations, UNSCHEDULABLE):
            return ["node(s) were unschedulable"]
        if not _is_selected(pod["spec"], self.node):
            return ["node(s) didn't match Pod's node affinity/selector"]
        for taint in spec.get("taints") or []:
            if taint["effect"] in ("NoSchedule", "NoExecute") and not _tolerates(tolerations, taint):
                return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"]
        return []


UNSCHEDULABLE = {"key": "node.kubernetes.io/unschedulable", "value": "", "effect": "NoSchedule"}


def _tolerates(tolerations: list[Json], taint: Json) -> bool:
    def meets(toleration: Json) -> bool:
        if toleration.get("effect") not in (None, "", taint["effect"]):
            return False
        if toleration.get("operator") == "Exists":
            return toleration.get("key") in (None, "", taint["key"])
        return bool(toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""))

    return any(map(meets, tolerations))


def _is_selected(spec: Json, node: Json) -> bool:
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    terms = (affinity or {}).get("nodeSelectorTerms")
    return terms is None or any(_meets_term(term, node, labels) for term in terms)


def _meets_term(term: Json, node: Json, labels: Mapping[str, str]) -> bool:
    fields = {"metadata.name": node["metadata"]["name"]}
    return has_labels(labels, label_selector({"matchExpressions": term.get("matchExpressions")})) and has_labels(
        fields, label_selector({"matchExpressions": term.get("matchFields")})
    )


def explain(total: int, reasons: Counter[str], *, helpless: int) -> str:
    """Return kube-scheduler's sentence for a pod that fits nowhere; ``helpless``: nodes that preemption cannot help."""
    listed = ", ".join(sorted(f"{number} {reason}" for reason, number in reasons.items()))
    text = f"0/{total} nodes are available" + (f": {listed}." if listed else ".")
    hopes = Counter({"Preemption is not helpful for scheduling": helpless})
    hopes["No preemption victims found for incoming pod"] = total - helpless
    why = ", ".join(f"{number} {reason}" for reason, number in sorted(hopes.items()) if number > 0)
    return f"{text} preemption: 0/{total} nodes are available: {why}." if why else text
