"""What the accounts of the chart may do in Kubernetes: what each program has to, and nothing else."""

from collections.abc import Iterator

import pytest
from hami_kit.kube.rights import RIGHTS

from tests.chart.rendering import Json, Rendered, render

Grant = tuple[str, str, str, bool]
"""Group, resource, verb, and whether in the namespace of the release alone."""


def granted(found: Rendered, account: str) -> set[Grant]:
    """Return all that a ServiceAccount may do by the chart's own roles."""
    return {
        grant
        for kind, is_local in (("ClusterRoleBinding", False), ("RoleBinding", True))
        for binding in found.of(kind)
        if any(subject["name"] == account for subject in binding["subjects"])
        and found.has(binding["roleRef"]["kind"], binding["roleRef"]["name"])
        for grant in of_role(found.one(binding["roleRef"]["kind"], binding["roleRef"]["name"]), is_local=is_local)
    }


def of_role(role: Json, *, is_local: bool) -> Iterator[Grant]:
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield group, resource, verb, is_local


def needed(*programs: str) -> set[Grant]:
    return {
        (right.group, right.resource, verb, right.in_lease_namespace)
        for program in programs
        for right in RIGHTS[program]
        for verb in right.verbs
    }


@pytest.mark.parametrize(
    ("account", "program"), [("hami-allocator", "allocator"), ("hami-device-plugin", "node-agent")]
)
def test_a_service_may_do_what_it_has_to_and_nothing_else(account: str, program: str) -> None:
    """Its role is what ``hamictl doctor`` demands, verb by verb."""
    assert needed(program) == granted(render(), account)


def test_hamictls_role_is_what_hamictl_needs() -> None:
    """It is bound to nobody; the admin binds it."""
    found = render()
    roles = [(found.one("ClusterRole", "hami-hamictl"), False), (found.one("Role", "hami-hamictl"), True)]

    assert needed("hamictl doctor", "hamictl trace") == {
        grant for role, is_local in roles for grant in of_role(role, is_local=is_local)
    }


def test_webhook_and_nats_have_no_token() -> None:
    """They ask the API server nothing."""
    tokens = {name: spec.get("automountServiceAccountToken") for name, spec in render().pods()}

    assert (False, False) == (tokens["hami-webhook"], tokens["hami-nats"])


def test_kube_scheduler_has_its_own_roles() -> None:
    """The built-in ones, and a Lease of its own name, which the built-in role does not know."""
    found = render("schedulerName=cards")
    builtin = {binding["roleRef"]["name"] for binding in found.of("ClusterRoleBinding")}

    assert {"system:kube-scheduler", "system:volume-scheduler"} <= builtin
    assert ["cards"] == found.one("Role", "hami-scheduler")["rules"][1]["resourceNames"]
    assert {("coordination.k8s.io", "leases", verb, True) for verb in ("create", "get", "update", "patch")} == granted(
        found, "hami-scheduler"
    )
