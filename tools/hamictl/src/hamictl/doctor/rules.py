"""What an installation is held to, beside the rules of the cluster itself (``hami_model.inspection``).

One rule: a rule that may be broken stands in ``RULES``, which the reference lists.
"""

from hami_model.inspection import Finding, Rule, Severity

SCHEDULER_SECTION = "see the section kube-scheduler of run-the-services"
WEBHOOK_SECTION = "see the section on the webhook of run-the-services"


def _error(name: str, means: str, way_out: str) -> Rule:
    return Rule(name=name, severity=Severity.ERROR, means=means, way_out=way_out)


def _warning(name: str, means: str, way_out: str) -> Rule:
    return Rule(name=name, severity=Severity.WARNING, means=means, way_out=way_out)


NOT_CHECKED = Rule(
    name="not-checked",
    severity=Severity.UNCHECKED,
    means="something could not be looked at, so nobody knows whether it is fine",
    way_out="give hamictl what the sentence names, and run it again",
)
KUBERNETES_OLD = _error(
    "kubernetes-old", "Kubernetes is older than 1.30, which has no matchConditions for webhooks", "upgrade Kubernetes"
)
CLOCK_OFF = _warning(
    "clock-off", "a clock differs from the API server's, so ages and Leases mean something else", "set that clock"
)
SCHEDULER_CONFIG = _error(
    "scheduler-config",
    "kube-scheduler's configuration cannot be read, or has no profile of our scheduler's name",
    SCHEDULER_SECTION,
)
EXTENDER_MISSING = _error(
    "extender-missing", "kube-scheduler does not ask our extender, so nobody chooses cards", SCHEDULER_SECTION
)
EXTENDER_IGNORABLE = _error(
    "extender-ignorable",
    "`ignorable: true`: while the extender is away, pods would be bound without devices",
    "write `ignorable: false`, or leave it out",
)
EXTENDER_VERBS = _error(
    "extender-verbs",
    "the extender is not asked to filter and to bind, and nothing else",
    "write `filterVerb: filter` and `bindVerb: bind`, and no other verb",
)
EXTENDER_NODES = _error(
    "extender-nodes",
    "without `nodeCacheCapable: true` every filter is a what-if that reserves nothing",
    "write `nodeCacheCapable: true`",
)
EXTENDER_TIMEOUT = _error(
    "extender-timeout",
    "`httpTimeout` is not 2 s above `HAMI_BIND_TIMEOUT`, so binds are cut off",
    "write `httpTimeout: 30s`, or lower HAMI_BIND_TIMEOUT",
)
EXTENDER_RESOURCES = _error(
    "extender-resources",
    "`managedResources` lacks a resource of the device config, so such pods are placed without us",
    "list it with `ignoredByScheduler: true`",
)
RESOURCES_COUNTED = _error(
    "resources-counted",
    "a managed resource lacks `ignoredByScheduler: true`, so kube-scheduler counts what no node lists",
    "write `ignoredByScheduler: true`",
)
NODES_HIDDEN = _warning(
    "nodes-hidden",
    "`percentageOfNodesToScore` is not 100: in a big cluster nodes with cards may never be offered to us",
    "write `percentageOfNodesToScore: 100` in the profile",
)
WEBHOOK_MISSING = _error(
    "webhook-missing", "no MutatingWebhookConfiguration shows new pods to our webhook", WEBHOOK_SECTION
)
WEBHOOK_IGNORES = _warning(
    "webhook-ignores",
    "`failurePolicy: Ignore`: while the webhook is away, device pods go to another scheduler",
    "write `failurePolicy: Fail` with matchConditions",
)
WEBHOOK_STOPS_ALL = _warning(
    "webhook-stops-all",
    "`failurePolicy: Fail` without matchConditions: while the webhook is away, no pod of any kind is created",
    "add the matchConditions of run-the-services",
)
WEBHOOK_HURRIES = _warning(
    "webhook-hurries", "`timeoutSeconds` is too short for the quota question, which may take 1 s", "write 5"
)
WEBHOOK_TRUST = _error(
    "webhook-trust",
    "`caBundle` is missing, cannot be read or has expired, so the API server cannot call the webhook",
    "write the CA of the webhook's certificate into caBundle",
)
WEBHOOK_EXPIRES = _warning(
    "webhook-expires", "a certificate of `caBundle` expires within 30 days", "renew the certificate and its CA"
)
NO_LEADER = _error(
    "no-leader", "no allocator holds the Lease `hami-allocator`, so no pod gets devices", "see whether allocators run"
)
NO_FOLLOWER = _warning(
    "no-follower", "one allocator alone: when it dies, pods wait until it runs again", "run two or more"
)
SERVICE_MISSING = _error(
    "service-missing", "a service that must be on the bus does not answer there", "see whether it runs and is ready"
)
NOT_READY = _error("not-ready", "a service's `/readyz` is not 200", "its answer says which part is not ready")
VERSIONS_DIFFER = _warning(
    "versions-differ", "services, or hamictl, are of different versions", "finish the upgrade: one version for all"
)
DRIFT = _warning(
    "drift",
    "what a node's agent holds, what its kubelet counts and what runs on its cards disagree",
    "the sentence says it; see run-on-a-gpu-node",
)
RIGHT_MISSING = _error(
    "right-missing", "a service's account may not do what the service has to", "grant it: the table of run-the-services"
)

RULES = (
    NOT_CHECKED, KUBERNETES_OLD, CLOCK_OFF, SCHEDULER_CONFIG, EXTENDER_MISSING, EXTENDER_IGNORABLE, EXTENDER_VERBS,
    EXTENDER_NODES, EXTENDER_TIMEOUT, EXTENDER_RESOURCES, RESOURCES_COUNTED, NODES_HIDDEN, WEBHOOK_MISSING,
    WEBHOOK_IGNORES, WEBHOOK_STOPS_ALL, WEBHOOK_HURRIES, WEBHOOK_TRUST, WEBHOOK_EXPIRES, NO_LEADER, NO_FOLLOWER,
    SERVICE_MISSING, NOT_READY, VERSIONS_DIFFER, DRIFT, RIGHT_MISSING,
)  # fmt: skip
"""In the order in which the reference lists them."""


def unchecked(what: str, why: object) -> Finding:
    """Return the finding that something was not looked at."""
    return NOT_CHECKED.broken(f"{what}: {why}")
