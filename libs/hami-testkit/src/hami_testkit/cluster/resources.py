"""What the stand-in serves: one row per resource, and its sub-resources as a table.

One rule: everything generic code must know of a kind stands here; adding a kind is adding a row.
"""

from __future__ import annotations

from msgspec import Struct

COLLECTION = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
OBJECT = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
"""What may be done with a list and with one object, by HTTP method."""
SUBRESOURCES = {"status": {"GET": "get", "PUT": "update", "PATCH": "patch"}, "binding": {"POST": "create"}}
"""What may be done with each sub-resource, by HTTP method."""
INTO_CONTAINERS = ("attach", "exec", "log", "portforward")
"""What leads into a pod's containers, in which nothing runs here."""


class Resource(Struct, frozen=True):
    """One kind of object and how the API treats it."""

    name: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    """Groups of resources that kubectl lists together, such as ``get all``."""
    subresources: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    """Field selectors beyond ``metadata.name`` and ``metadata.namespace``."""
    needs_revision: bool = False
    """A replacement must name the resourceVersion that it read."""
    create_on_update: bool = False
    """PUT of an absent name creates it."""
    shows_deleted: bool = False
    """A deletion answers with the object, not with a Status."""

    @property
    def api_version(self) -> str:
        """Return ``v1`` or ``group/v1``, as objects spell it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def head(self) -> bytes:
        """Return how every encoded object of this kind begins."""
        return f'{{"kind":"{self.kind}","apiVersion":"{self.api_version}",'.encode()

    @property
    def root(self) -> str:
        """Return the path under which the group and version are served."""
        return f"/apis/{self.group}/{self.version}" if self.group else "/api/v1"


_EVENT_FIELDS = (
    "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
    "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
    "reason", "reportingComponent", "source", "type",
)  # fmt: skip

PODS = Resource(
    "pods", "Pod", short=("po",), categories=("all",), subresources=("status", "binding"), shows_deleted=True,
    fields=("spec.nodeName", "spec.schedulerName", "spec.restartPolicy", "spec.serviceAccountName",
            "spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName"),
)  # fmt: skip
NODES = Resource(
    "nodes", "Node", namespaced=False, short=("no",), subresources=("status",), fields=("spec.unschedulable",)
)
NAMESPACES = Resource(
    "namespaces", "Namespace", namespaced=False, short=("ns",), subresources=("status",), fields=("status.phase",),
    shows_deleted=True,
)  # fmt: skip
BINDINGS = Resource("bindings", "Binding")
EVENTS = Resource("events", "Event", short=("ev",), fields=_EVENT_FIELDS, create_on_update=True)
QUOTAS = Resource("resourcequotas", "ResourceQuota", short=("quota",), subresources=("status",), shows_deleted=True)
LEASES = Resource("leases", "Lease", group="coordination.k8s.io", needs_revision=True, create_on_update=True)
WEBHOOKS = Resource(
    "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", group="admissionregistration.k8s.io",
    namespaced=False, needs_revision=True,
)  # fmt: skip
CONFIGS = Resource("configmaps", "ConfigMap", short=("cm",))
SECRETS = Resource("secrets", "Secret")
ACCOUNTS = Resource("serviceaccounts", "ServiceAccount", short=("sa",), shows_deleted=True)

RESOURCES = (PODS, NODES, NAMESPACES, BINDINGS, EVENTS, QUOTAS, LEASES, WEBHOOKS, CONFIGS, SECRETS, ACCOUNTS)
