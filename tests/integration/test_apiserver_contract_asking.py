"""What kubectl relies on before it writes and when it prints: OpenAPI documents, checked fields, tables.

The stand-in answers by default; with HAMI_TEST_KUBECONFIG set, the same tests ask the real server it leads to.
"""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hami_testkit.cluster.client import MERGE, STRATEGIC, ApiClient
from hami_testkit.cluster.schemas import SCHEMAS, record

from tests.integration.contract import CORE, Json, a_binding, a_pod, bind, refusal

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
APPLY = "application/apply-patch+yaml"
POD = "io.k8s.api.core.v1.Pod"

# OpenAPI


async def test_each_document_is_where_the_index_says(api: ApiClient) -> None:
    """A document for a group and version describes its kinds, and what may be asked of them."""
    index = (await api.get("/openapi/v3"))["paths"]

    assert {"api/v1", "apis/coordination.k8s.io/v1", "apis/admissionregistration.k8s.io/v1"} <= set(index)
    path, _, query = index["api/v1"]["serverRelativeURL"].partition("?")
    document = await api.get(path, query=dict([query.split("=")]))
    assert "3.0.0" == document["openapi"]
    kind = {"group": "", "kind": "Pod", "version": "v1"}
    assert [kind] == document["components"]["schemas"][POD]["x-kubernetes-group-version-kind"]
    patch = document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"]
    assert kind == patch["x-kubernetes-group-version-kind"]
    assert {APPLY, MERGE, STRATEGIC} <= set(patch["requestBody"]["content"])
    assert {"dryRun", "fieldManager", "fieldValidation"} <= {each["name"] for each in patch["parameters"]}


async def test_the_recorded_schemas_are_those_of_the_server(api: ApiClient) -> None:
    """Field by field; ``python -m hami_testkit.cluster.schemas KUBECONFIG`` records them anew."""
    version = (await api.get("/version"))["minor"]
    if version != "34":
        pytest.skip(f"the schemas are those of Kubernetes 1.34, and this server is 1.{version}")

    assert await record(api) == SCHEMAS


# Fields that a kind does not have


def a_typo(name: str = "p0") -> Json:
    pod = a_pod(name, limits={"cpu": "1"})
    pod["spec"]["containers"][0]["resources"]["limts"] = {"nvidia.com/gpu": 1}
    return {"kind": "Pod", "apiVersion": "v1", **pod, "spce": {}}


TYPOS = ('unknown field "spec.containers[0].resources.limts"', 'unknown field "spce"')


async def test_a_misspelt_field_is_refused_who_asks_for_it(api: ApiClient, pods: str) -> None:
    """Each of them is named, and nothing is written; kubectl asks for it."""
    async with refusal(400, f'Pod in version "v1" cannot be handled as a Pod: strict decoding error: {TYPOS[0]}'):
        await api.create(pods, a_typo(), query={"fieldValidation": "Strict"})
    async with refusal(400, TYPOS[1]):
        await api.create(pods, a_typo(), query={"fieldValidation": "Strict"})
    async with refusal(404):
        await api.get(f"{pods}/p0")


@pytest.mark.parametrize("kind", [MERGE, STRATEGIC])
async def test_a_patch_is_checked_too(api: ApiClient, pods: str, kind: str) -> None:
    """What it adds must be a field; the labels and annotations of users are their own."""
    await api.create(pods, a_pod())
    strict = {"fieldValidation": "Strict"}

    async with refusal(422, 'strict decoding error: unknown field "metadata.lables"'):
        await api.patch(f"{pods}/p0", {"metadata": {"lables": {"a": "1"}}}, content=kind, query=strict)

    changed = await api.patch(f"{pods}/p0", {"metadata": {"labels": {"lables": "1"}}}, content=kind, query=strict)
    assert {"lables": "1"} == changed["metadata"]["labels"]


async def test_an_apply_is_always_checked(api: ApiClient, pods: str) -> None:
    """Server-side apply cannot own a field that is none."""
    async with refusal(500, ".spce: field not declared in schema"):
        await api.patch(f"{pods}/p0", a_typo(), content=APPLY, query={"fieldManager": "test"})


async def test_a_misspelt_field_is_a_warning_for_who_asks_for_that(api: ApiClient, pods: str) -> None:
    """The pod is made, and each field is named in a header."""
    made = await api.send("POST", pods, a_typo(), query={"fieldValidation": "Warn"})

    assert 201 == made.code
    warning = made.headers.get("Warning", "")
    assert warning.startswith("299 - ")
    assert warning.replace("\\", "").split("299 - ")[1] in [f'"{typo}"' for typo in TYPOS]


async def test_a_wish_that_is_none_is_refused(api: ApiClient, pods: str) -> None:
    """It says which there are."""
    async with refusal(422, 'fieldValidation: Unsupported value: "Rude": supported values: "", "Ignore", "Strict"'):
        await api.create(pods, a_pod(), query={"fieldValidation": "Rude"})


# Tables


async def a_table(api: ApiClient, path: str, **query: str | int) -> Json:
    found = (await api.send("GET", path, accept=TABLE, query=query)).object
    assert ("Table", "meta.k8s.io/v1") == (found["kind"], found["apiVersion"])
    return found


def columns(table: Json) -> tuple[list[str], list[str]]:
    """Return the columns that everybody sees, and those of ``-o wide``."""
    heads = table["columnDefinitions"]
    return [c["name"] for c in heads if not c["priority"]], [c["name"] for c in heads if c["priority"]]


async def test_pods_are_listed_as_a_table(api: ApiClient, pods: str) -> None:
    """A row a pod, with its metadata beside the cells."""
    await api.create(pods, a_pod("a"))
    await api.create(pods, a_pod("b"))
    await bind(api, pods, a_binding("b", node="node-b"))

    table = await a_table(api, pods)

    usual = ["Name", "Ready", "Status", "Restarts", "Age"]
    assert (usual, ["IP", "Node", "Nominated Node", "Readiness Gates"]) == columns(table)
    none = "<none>"
    assert [
        ["a", "0/1", "Pending", "0", none, none, none, none],
        ["b", "0/1", "Pending", "0", none, "node-b", none, none],
    ] == [[*row["cells"][:4], *row["cells"][5:]] for row in table["rows"]]
    assert all(row["cells"][4].endswith("s") for row in table["rows"])
    shown = table["rows"][0]["object"]
    assert ("PartialObjectMetadata", "a", None) == (shown["kind"], shown["metadata"]["name"], shown.get("spec"))


def a_status(*containers: Json, **more: object) -> Json:
    named = [{"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 0, **c} for c in containers]
    return {"status": {"phase": "Running", "containerStatuses": named, **more}}


AGO = (datetime.now(UTC) - timedelta(days=2, hours=12, minutes=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
"""A moment that stays ``2d12h`` ago for half an hour."""
WAITS = {"state": {"waiting": {"reason": "ContainerCreating"}}}
LOOPS = {
    "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 3,
    "lastState": {"terminated": {"exitCode": 1, "finishedAt": AGO}},
}  # fmt: skip
RUNS = {"state": {"running": {}}, "ready": True}
GATED = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
INIT = [{"name": "first", "image": "x", "imageID": "", "ready": False, "restartCount": 1, "state": {"running": {}}}]


@pytest.mark.parametrize(
    ("status", "cells"),
    [
        (a_status(WAITS), ["0/1", "ContainerCreating", "0"]),
        (a_status(LOOPS), ["0/1", "CrashLoopBackOff", "3 (2d12h ago)"]),
        (a_status(RUNS), ["1/1", "Running", "0"]),
        (a_status({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}), ["0/1", "Completed", "0"]),
        (a_status({"state": {"terminated": {"exitCode": 3}}}), ["0/1", "ExitCode:3", "0"]),
        (a_status({"state": {"terminated": {"exitCode": 137, "signal": 9}}}), ["0/1", "Signal:9", "0"]),
        (a_status(phase="Failed", reason="UnexpectedAdmissionError"), ["0/1", "UnexpectedAdmissionError", "0"]),
        (a_status(phase="Pending", conditions=[GATED]), ["0/1", "SchedulingGated", "0"]),
        (a_status(phase="Pending", initContainerStatuses=INIT), ["0/1", "Init:0/1", "1"]),
    ],
)
async def test_a_table_says_how_a_pod_is(api: ApiClient, pods: str, status: Json, cells: list[str]) -> None:
    """What holds it up comes before its phase; restarts say when the last one was."""
    first = [{"name": "first", "image": "x"}] if "initContainerStatuses" in status["status"] else []
    await api.create(pods, a_pod(initContainers=first))
    await bind(api, pods, a_binding())
    await api.patch(f"{pods}/p0/status", status)

    (row,) = (await a_table(api, f"{pods}/p0"))["rows"]

    assert cells == row["cells"][1:4]


@pytest.mark.parametrize(
    ("included", "kind"), [("Metadata", "PartialObjectMetadata"), ("Object", "Pod"), ("None", None)]
)
async def test_a_table_brings_along_what_was_asked_for(
    api: ApiClient, pods: str, included: str, kind: str | None
) -> None:
    """Custom columns and sorting want the whole object."""
    await api.create(pods, a_pod())

    (row,) = (await a_table(api, pods, includeObject=included))["rows"]

    assert kind == (row["object"] or {}).get("kind")
    assert (included == "Object") == ("spec" in (row["object"] or {}))


async def test_what_a_table_cannot_bring_along_is_refused(api: ApiClient, pods: str) -> None:
    """It says what can be asked for."""
    async with refusal(400, "includeObject: Invalid value: \"All\": must be 'Metadata', 'Object', 'None', or empty"):
        await api.send("GET", pods, accept=TABLE, query={"includeObject": "All"})


async def test_a_watch_tells_tables(api: ApiClient, pods: str) -> None:
    """An event a pod, each with a table of one row; the columns come with the first."""
    for name in "ab":
        await api.create(pods, a_pod(name))

    async with asyncio.timeout(10):
        told = [event async for event in api.watch(pods, accept=TABLE, timeoutSeconds=1)]

    assert ["a", "b"] == [event["object"]["rows"][0]["cells"][0] for event in told]
    assert [True, False] == [bool(event["object"]["columnDefinitions"]) for event in told]


async def test_nodes_are_listed_as_a_table(api: ApiClient) -> None:
    """Roles come from labels; a node that nobody vouches for is unknown, one that takes no pods says so."""
    name = f"contract-{uuid.uuid4().hex[:8]}"
    meta = {"name": name, "labels": {"contract": name, "node-role.kubernetes.io/gpu": ""}}
    address = [{"type": "InternalIP", "address": "10.1.2.3"}]
    info = dict.fromkeys(
        ("machineID", "systemUUID", "bootID", "osImage", "kernelVersion", "containerRuntimeVersion", "kubeletVersion",
         "kubeProxyVersion", "operatingSystem", "architecture"), "",
    )  # fmt: skip
    status = {"addresses": address, "nodeInfo": {**info, "kubeletVersion": "v1.34.2", "osImage": "Debian"}}
    await api.create(f"{CORE}/nodes", {"metadata": meta, "spec": {"unschedulable": True}, "status": status})
    try:
        table = await a_table(api, f"{CORE}/nodes", labelSelector=f"contract={name}")
        ready = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
        await api.patch(f"{CORE}/nodes/{name}/status", ready)
        later = await a_table(api, f"{CORE}/nodes", labelSelector=f"contract={name}")
    finally:
        await api.delete(f"{CORE}/nodes/{name}")

    wide = ["Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime"]
    assert (["Name", "Status", "Roles", "Age", "Version"], wide) == columns(table)
    unknown = "<unknown>"
    (row,) = table["rows"]
    assert [name, "Unknown,SchedulingDisabled", "gpu"] == row["cells"][:3]
    assert ["v1.34.2", "10.1.2.3", "<none>", "Debian", unknown, unknown] == row["cells"][4:]
    assert "NotReady,SchedulingDisabled" == later["rows"][0]["cells"][1]


async def test_events_are_listed_as_a_table(api: ApiClient, namespace: str) -> None:
    """What happened to whom, told by whom, how often and since when."""
    about = {"kind": "Pod", "namespace": namespace, "name": "p0", "fieldPath": "spec.containers{main}"}
    event = {
        "metadata": {"name": "p0.1"}, "involvedObject": about, "type": "Warning", "reason": "FilteringFailed",
        "message": "no card is free\n", "source": {"component": "hami-scheduler", "host": "h1"}, "count": 4,
        "firstTimestamp": AGO, "lastTimestamp": None,
    }  # fmt: skip
    await api.create(f"{CORE}/namespaces/{namespace}/events", event)

    table = await a_table(api, f"{CORE}/namespaces/{namespace}/events")

    assert (
        ["Last Seen", "Type", "Reason", "Object", "Message"],
        ["Subobject", "Source", "First Seen", "Count", "Name"],
    ) == columns(table)
    (row,) = table["rows"]
    told = ["Warning", "FilteringFailed", "pod/p0", "spec.containers{main}", "hami-scheduler, h1", "no card is free"]
    assert ["2d12h", *told, "2d12h", 4, "p0.1"] == row["cells"]


async def test_a_quota_is_listed_with_what_is_used(api: ApiClient, namespace: str) -> None:
    """Requests and limits in columns of their own."""
    path = f"{CORE}/namespaces/{namespace}/resourcequotas"
    hard = {"requests.nvidia.com/gpu": "2", "limits.nvidia.com/gpumem": "3000", "pods": "4"}
    await api.create(path, {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    used = {"requests.nvidia.com/gpu": "1", "limits.nvidia.com/gpumem": "1000", "pods": "1"}
    await api.patch(f"{path}/q/status", {"status": {"hard": hard, "used": used}})

    (row,) = (await a_table(api, path))["rows"]

    assert ["q", "pods: 1/4, requests.nvidia.com/gpu: 1/2", "limits.nvidia.com/gpumem: 1k/3k"] == row["cells"][:3]


@pytest.mark.parametrize(
    ("path", "body", "cells"),
    [
        ("api/v1/namespaces/{}/configmaps", {"data": {"a": "1"}, "binaryData": {"b": "MQ=="}}, [2]),
        ("api/v1/namespaces/{}/secrets", {"data": {"a": "MQ=="}}, ["Opaque", 1]),
        ("api/v1/namespaces/{}/serviceaccounts", {}, [0]),
        ("apis/coordination.k8s.io/v1/namespaces/{}/leases", {"spec": {"holderIdentity": "me"}}, ["me"]),
    ],
)
async def test_each_kind_has_its_columns(
    api: ApiClient, namespace: str, path: str, body: Json, cells: list[object]
) -> None:
    """Between the name and the age."""
    await api.create(f"/{path.format(namespace)}", {"metadata": {"name": "x"}, **body})

    rows = (await a_table(api, f"/{path.format(namespace)}"))["rows"]

    assert cells == next(row["cells"][1:-1] for row in rows if row["cells"][0] == "x")
