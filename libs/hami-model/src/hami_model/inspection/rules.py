"""Every rule that the nodes and pods of a cluster are held to.

One rule: a rule that may be broken stands in ``RULES``, which the reference lists.
"""

from hami_model.inspection.findings import Rule, Severity

STUCK_AFTER = 300.0
"""Seconds that a pod may wait for its devices, or for a scheduler; as long as a node lock counts."""

BINDING_TAKES = 60.0
"""Seconds within which a pod that holds a node lock is bound, or the lock is given back."""

AHEAD = 60.0
"""Seconds that a clock may be ahead before it is told."""

_FREE = "delete one of the pods named, the youngest first, and keep the annotations of all for a bug report"
_AGAIN = "delete the pod and create it again, so that our webhook and scheduler see it"

OVER_MEMORY = Rule(
    name="over-memory", severity=Severity.ERROR, way_out=_FREE, means="a card has given out more memory than it has"
)
OVER_CORES = Rule(
    name="over-cores", severity=Severity.ERROR, way_out=_FREE, means="a card has given out more cores than it has"
)
OVER_SLOTS = Rule(
    name="over-slots", severity=Severity.ERROR, way_out=_FREE, means="more containers share a card than it has slots"
)
NOT_ALONE = Rule(
    name="not-alone",
    severity=Severity.ERROR,
    way_out=_FREE,
    means="a pod that was given a whole card (100 % of its cores, or a form that gives nothing less) shares it",
)
PARTS_OVERLAP = Rule(
    name="parts-overlap",
    severity=Severity.ERROR,
    way_out=_FREE,
    means="two containers were given parts of a card that share memory slices",
)
CARD_UNKNOWN = Rule(
    name="card-unknown",
    severity=Severity.ERROR,
    way_out="look at the card on the node; if it is gone for good, delete the pod",
    means="a pod holds a card that its node does not register",
)
ELSEWHERE = Rule(
    name="allocation-elsewhere",
    severity=Severity.ERROR,
    way_out=_AGAIN,
    means="a pod's annotations speak of another node than the one it runs on",
)
UNACCOUNTED = Rule(
    name="unaccounted",
    severity=Severity.ERROR,
    way_out=_AGAIN,
    means="a bound pod asks for devices and nothing says which it holds",
)
UNREADABLE = Rule(
    name="allocation-unreadable",
    severity=Severity.ERROR,
    way_out="find out who changed the annotation, then delete the pod and create it again",
    means="what a bound pod's annotation says that it holds cannot be read, or does not answer what it asks for",
)
NOT_ASKED = Rule(
    name="allocation-not-asked",
    severity=Severity.WARNING,
    way_out="find out who wrote the annotation, and remove it",
    means="a pod's annotation gives it devices of a vendor that it asks nothing of",
)
UNCONFIRMED = Rule(
    name="unconfirmed",
    severity=Severity.ERROR,
    way_out="look at the device plugin or node-agent of the node, then at the pod's Events",
    means="a pod was bound 5 minutes ago and nobody has served its devices (`hami.io/bind-phase: allocating`)",
)
BIND_FAILED = Rule(
    name="bind-failed",
    severity=Severity.ERROR,
    way_out="the log of the node's device plugin says why; delete the pod and create it again",
    means="the device plugin could not serve the pod (`hami.io/bind-phase: failed`)",
)
UNTRIED = Rule(
    name="untried",
    severity=Severity.ERROR,
    way_out="see that the kube-scheduler of that name runs and has our extender",
    means="a device pod waits for 5 minutes and no scheduler has said anything of it",
)
OTHER_SCHEDULER = Rule(
    name="other-scheduler",
    severity=Severity.WARNING,
    way_out=_AGAIN,
    means="a device pod goes to another scheduler than ours, so nobody chooses its cards",
)
NODE_GONE = Rule(
    name="node-gone",
    severity=Severity.WARNING,
    way_out="if the node is gone for good, delete the pod with --force",
    means="a device pod is bound to a node that is not there",
)
LOCK_LEFT = Rule(
    name="lock-left",
    severity=Severity.ERROR,
    way_out="remove the annotation from the node, and see whether the allocator runs",
    means="a node lock stands although the pod it was made for is gone, ended, served or elsewhere",
    passes=True,
)
LOCK_OLD = Rule(
    name="lock-old",
    severity=Severity.ERROR,
    way_out="see whether the allocator and the node's device plugin run; they remove it",
    means="a node lock is older than 5 minutes",
)
LOCK_UNREADABLE = Rule(
    name="lock-unreadable",
    severity=Severity.ERROR,
    way_out="remove the annotation from the node",
    means="nobody can say who holds a node lock, or since when",
)
REGISTER_UNREADABLE = Rule(
    name="register-unreadable",
    severity=Severity.ERROR,
    way_out="see which version of its device plugin the node runs, and who else writes the annotation",
    means="the cards that a node registers cannot be read, so it takes no pods",
)
CARD_TWICE = Rule(
    name="card-twice",
    severity=Severity.ERROR,
    way_out="remove the register annotation from the node that does not have the card",
    means="two nodes register the same card",
)
PLUGIN_GONE = Rule(
    name="plugin-gone",
    severity=Severity.WARNING,
    way_out="see whether the device plugin, or our node-agent, runs on the node",
    means="a node registers cards and its kubelet offers none, or its handshake says `Deleted_`",
    passes=True,
)
AHEAD_OF_TIME = Rule(
    name="ahead-of-time",
    severity=Severity.WARNING,
    way_out="set the clock of whoever wrote it: the allocator's machine, or that node",
    means="an annotation carries a time that has not come yet",
)
OBJECT_UNREADABLE = Rule(
    name="object-unreadable",
    severity=Severity.ERROR,
    way_out="the sentence names the field; see who writes it",
    means="a pod or a node is not as Kubernetes describes them, so nobody looks at it",
)

RULES = (
    OVER_MEMORY, OVER_CORES, OVER_SLOTS, NOT_ALONE, PARTS_OVERLAP, CARD_UNKNOWN, ELSEWHERE, UNACCOUNTED, UNREADABLE,
    NOT_ASKED, UNCONFIRMED, BIND_FAILED, UNTRIED, OTHER_SCHEDULER, NODE_GONE, LOCK_LEFT, LOCK_OLD, LOCK_UNREADABLE,
    REGISTER_UNREADABLE, CARD_TWICE, PLUGIN_GONE, AHEAD_OF_TIME, OBJECT_UNREADABLE,
)  # fmt: skip
"""In the order in which the reference lists them."""
