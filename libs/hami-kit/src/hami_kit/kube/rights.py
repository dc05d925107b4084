"""What each of our programs may do in Kubernetes, and asking whether it may.

One rule: the rights of a program stand in ``RIGHTS`` and nowhere else; the documentation's table is held to it.
"""

from collections.abc import Iterator, Mapping

import msgspec
from msgspec import Struct, field

from hami_kit.errors import KubeError
from hami_kit.kube.client import Kube

REVIEWS = "/apis/authorization.k8s.io/v1"
ACCOUNT = "system:serviceaccount:"


class Right(Struct, frozen=True):
    """Verbs on one resource, everywhere or (``in_lease_namespace``) only in the namespace where the Lease lives."""

    resource: str
    verbs: tuple[str, ...]
    group: str = ""
    in_lease_namespace: bool = False

    def __str__(self) -> str:
        return _qualified(self.resource, self.group)


def _qualified(resource: str, group: str) -> str:
    """Return a resource as ``kubectl auth can-i`` takes it."""
    return f"{resource}.{group}" if group else resource


RIGHTS: Mapping[str, tuple[Right, ...]] = {
    "allocator": (
        Right("pods", ("get", "list", "watch", "patch")),
        Right("pods/binding", ("create",)),
        Right("nodes", ("get", "list", "watch", "patch")),
        Right("resourcequotas", ("list", "watch")),
        Right("events", ("create",)),
        Right("leases", ("get", "create", "update"), group="coordination.k8s.io", in_lease_namespace=True),
    ),
    "node-agent": (Right("pods", ("get", "list", "watch")),),
    "hamictl trace": (Right("pods", ("get",)),),
    "hamictl doctor": (
        Right("pods", ("list",)),
        Right("nodes", ("list",)),
        Right("configmaps", ("list",)),
        Right("mutatingwebhookconfigurations", ("list",), group="admissionregistration.k8s.io"),
        Right("leases", ("get",), group="coordination.k8s.io", in_lease_namespace=True),
        Right("subjectaccessreviews", ("create",), group="authorization.k8s.io"),
    ),
}
"""By program; whoever is not here needs none."""


class Deed(Struct, frozen=True, kw_only=True):
    """One verb on one resource, in one namespace or (empty) everywhere."""

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {_qualified(self.resource, self.group)}" + (
            f" in {self.namespace}" if self.namespace else ""
        )


def deeds(program: str, *, lease_namespace: str) -> Iterator[Deed]:
    """Yield everything that a program must be allowed to do."""
    for right in RIGHTS[program]:
        for verb in right.verbs:
            namespace = lease_namespace if right.in_lease_namespace else ""
            yield Deed(verb=verb, resource=right.resource, group=right.group, namespace=namespace)


class _Verdict(Struct, frozen=True):
    allowed: bool = False


class _Review(Struct, frozen=True):
    status: _Verdict = field(default_factory=_Verdict)


async def may(kube: Kube, deed: Deed, *, account: str = "") -> bool:
    """Say whether we, or the account of that name, may do this; raise the ``KubeError`` where nobody says."""
    resource, _, sub = deed.resource.partition("/")
    wanted = {"verb": deed.verb, "group": deed.group, "resource": resource}
    wanted |= {"subresource": sub} if sub else {}
    wanted |= {"namespace": deed.namespace} if deed.namespace else {}
    spec: dict[str, object] = {"resourceAttributes": wanted}
    if account:
        spec |= {"user": account, "groups": _groups(account)}
    kind = "SubjectAccessReview" if account else "SelfSubjectAccessReview"
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
    answer = await kube.transport.call("POST", f"{REVIEWS}/{kind.lower()}s", body=body)
    try:
        return msgspec.json.decode(answer, type=_Review).status.allowed
    except msgspec.DecodeError as e:
        raise KubeError(f"whether {deed} is allowed cannot be read: {e}") from e


def _groups(account: str) -> list[str]:
    """Return the groups that the API server puts an account into; a review does not do it."""
    if not account.startswith(ACCOUNT):
        return ["system:authenticated"]
    namespace = account.removeprefix(ACCOUNT).partition(":")[0]
    return ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
