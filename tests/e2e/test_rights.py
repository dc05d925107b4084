"""Each service with the token of its own account and the chart's rights alone, from the webhook to the node-agent.

One rule: the API server's audit log is the witness of who asked what, and of what was refused.
"""

import json
from collections.abc import Iterator

import pytest
from hami_kit.kube.rights import ACCOUNT
from hami_testkit.cluster.access import connect
from hami_testkit.cluster.status import ApiError
from hami_testkit.real_cluster import AUDIT_LOG

from tests.chart.rendering import NAMESPACE
from tests.chart.test_rights import granted
from tests.e2e.conftest import Report
from tests.e2e.installed import NODES, Installed, Json, a_pod

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
OURS = f"{ACCOUNT}{NAMESPACE}:hami-"
NOT_OURS = "not-ours"
"""What only the tests ask about, to be refused."""

Right = tuple[str, str, str]
"""Group, resource, verb."""

KEPT: dict[str, dict[Right, str]] = {
    "allocator": {
        ("", "pods", "get"): "whether a Binding landed whose answer was lost; whether a pod that a list lacks is gone",
        ("", "nodes", "get"): "the node's lock, which only foreign plugins need",
    },
    "device-plugin": {("", "pods", "get"): "a pod that neither the allocator's push nor the watch has shown in time"},
    "scheduler": {("coordination.k8s.io", "leases", "patch"): "what Kubernetes' own role allows with its own Lease"},
}
"""By account: rights that no pod of these tests needs, and what they are there for."""

REFUSED = [
    ("device-plugin", "PATCH", f"/api/v1/namespaces/{NOT_OURS}/pods/p"),
    ("device-plugin", "PATCH", f"/api/v1/namespaces/{NOT_OURS}/pods/p/status"),
    ("device-plugin", "PATCH", f"/api/v1/nodes/{NOT_OURS}"),
    ("device-plugin", "POST", f"/api/v1/namespaces/{NOT_OURS}/events"),
    ("device-plugin", "GET", f"/api/v1/nodes/{NOT_OURS}"),
    ("allocator", "POST", f"/api/v1/namespaces/{NOT_OURS}/pods"),
    ("allocator", "DELETE", f"/api/v1/namespaces/{NOT_OURS}/pods/p"),
    ("allocator", "PATCH", f"/api/v1/namespaces/{NOT_OURS}/pods/p/status"),
    ("allocator", "GET", f"/api/v1/namespaces/{NOT_OURS}/secrets"),
    ("allocator", "GET", f"/apis/coordination.k8s.io/v1/namespaces/{NOT_OURS}/leases/l"),
]
"""What an account may not do: a verb more than it has on what it reads, and what is another's."""


def asked(installed: Installed) -> Iterator[Json]:
    """Yield what the chart's accounts have asked for so far, but for what a test asked in their name."""
    whole_lines = (installed.folder / AUDIT_LOG).read_text().rpartition("\n")[0].splitlines()
    for entry in map(json.loads, whole_lines):
        about = entry.get("objectRef", {})
        is_tests = NOT_OURS in (about.get("name"), about.get("namespace"))
        if entry["user"].get("username", "").startswith(OURS) and not is_tests:
            yield entry


def right(entry: Json) -> Right:
    """Return the right that a request needs."""
    about = entry.get("objectRef", {})
    resource = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
    return about.get("apiGroup", ""), resource, entry["verb"]


async def test_no_service_asks_for_what_it_may_not_nor_may_what_it_never_asks(
    installed: Installed, report: Report
) -> None:
    """A pod is given its cards, another waits and is told why; all that was asked is allowed, all else has a reason."""
    async with installed.namespace("rights") as there:
        await there.create("pods", a_pod("slice", node=NODES[0]))
        await there.create("pods", a_pod("too-big", memory=50_000))
        pod = await there.wait_running("slice")
        await there.wait_event("FilteringFailed")
    entries = list(asked(installed))
    used = {account: {right(entry) for entry in entries if is_of(entry, account)} for account in KEPT}
    may = {account: {each[:3] for each in granted(installed.here.found, f"hami-{account}")} for account in KEPT}

    report(", ".join(f"{account} uses {len(used[account] & may[account])} of {len(may[account])}" for account in KEPT))
    assert ("hami-scheduler", NODES[0]) == (pod["spec"]["schedulerName"], pod["spec"]["nodeName"])
    assert ",NVIDIA,1000,0:;" in pod["metadata"]["annotations"]["hami.io/vgpu-devices-allocated"]
    assert [] == [(entry["user"]["username"], *right(entry)) for entry in entries if is_forbidden(entry)]
    assert {f"{OURS}{account}" for account in KEPT} == {entry["user"]["username"] for entry in entries}
    assert {name: set() for name in KEPT} == {name: may[name] - used[name] - KEPT[name].keys() for name in KEPT}


def is_forbidden(entry: Json) -> bool:
    """Say whether a right was missing; an event in a namespace that ends is refused with the same code."""
    return bool(entry["annotations"]["authorization.k8s.io/decision"] == "forbid")


def is_of(entry: Json, account: str) -> bool:
    """Say whether this account asked."""
    return bool(entry["user"]["username"] == f"{OURS}{account}")


async def test_what_an_account_has_no_right_to_is_refused(installed: Installed) -> None:
    """The node-agent writes nothing; the allocator makes and deletes no pod, and reads no Secret and no other Lease."""
    folder = installed.folder
    kubeconfigs = {account: await installed.cluster.kubeconfig_of(account, folder) for account in KEPT}

    for account, method, path in REFUSED:
        async with connect(kubeconfigs[account]) as api:
            with pytest.raises(ApiError, match=f'User "{OURS}{account}" cannot'):
                await api.send(method, path, {} if method != "GET" else None)
