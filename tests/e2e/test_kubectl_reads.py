"""What people read with kubectl is printed alike on the stand-in and on a real API server."""

import asyncio
import json

import pytest

from tests.e2e.kubectl import DEADLINE, POD, STARTED, Kubectl, a_node, bind, start

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


async def test_pods_are_shown_in_every_form(kubectl: Kubectl) -> None:
    """As a table, wide, as objects, by a path, in columns of one's own, and only those with a label."""
    await kubectl("apply", "-f", "-", text=POD)
    await kubectl("apply", "-f", "-", text=POD.replace("my-slice", "waits").replace("first", "other"))
    await bind(kubectl, "my-slice", "gpu-a")
    await start(kubectl, "my-slice")

    (await kubectl("get", "pods")).assert_shows(
        "NAME READY STATUS RESTARTS AGE", "my-slice 1/1 Running 0 …", "waits 0/1 Pending 0 …"
    )
    (await kubectl("get", "pods", "-o", "wide")).assert_shows(
        "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES",
        "my-slice 1/1 Running 0 … 10.0.0.7 gpu-a <none> <none>",
        "waits 0/1 Pending 0 … <none> <none> <none> <none>",
    )
    assert "List" == json.loads((await kubectl("get", "pods", "-o", "json")).text)["kind"]
    assert "gpu-a" == (await kubectl("get", "pod", "my-slice", "-o", "jsonpath={.spec.nodeName}")).text
    own = await kubectl(
        "get", "pods", "--sort-by=.metadata.name", "-o", "custom-columns=POD:.metadata.name,ON:.spec.nodeName"
    )
    assert ["POD ON", "my-slice gpu-a", "waits <none>"] == own.lines
    assert ["pod/waits"] == (await kubectl("get", "pods", "-l", "app=other", "-o", "name")).lines
    (await kubectl("get", "pods", "--field-selector=spec.nodeName=gpu-a", "--no-headers")).assert_shows("my-slice …")
    assert "my-slice" in (await kubectl("get", "all", "-l", "app=first")).text
    assert ["No resources found in " + kubectl.namespace + " namespace."] == (
        await kubectl("get", "pods", "-l", "x")
    ).lines


async def test_a_watch_shows_each_change_as_a_row(kubectl: Kubectl) -> None:
    """``get -w`` prints the pod as it is, and again when it is bound and when it runs."""
    await kubectl("apply", "-f", "-", text=POD)
    async with kubectl.running("get", "pods", "-o", "wide", "-w") as process, asyncio.timeout(DEADLINE):
        assert process.stdout is not None
        seen = [(await process.stdout.readline()).split() for _ in range(2)]
        await bind(kubectl, "my-slice", "gpu-a")
        await start(kubectl, "my-slice")
        seen += [(await process.stdout.readline()).split() for _ in range(2)]

    rows = [[row[at].decode() for at in (0, 1, 2, 6)] for row in seen]
    assert [
        ["NAME", "READY", "STATUS", "NODE"],
        ["my-slice", "0/1", "Pending", "<none>"],
        ["my-slice", "0/1", "Pending", "gpu-a"],
        ["my-slice", "1/1", "Running", "gpu-a"],
    ] == rows


async def test_a_condition_and_a_value_are_waited_for(kubectl: Kubectl) -> None:
    """Also one that is never met, for as long as was said."""
    await kubectl("apply", "-f", "-", text=POD)
    said = await kubectl.try_("wait", "--for=condition=Ready", "pod/my-slice", "--timeout=1s")
    assert ["error: timed out waiting for the condition on pods/my-slice"] == said.lines

    await start(kubectl, "my-slice")

    met = ["pod/my-slice condition met"]
    assert met == (await kubectl("wait", "--for=condition=Ready", "pod/my-slice", "--timeout=60s")).lines
    running = "--for=jsonpath={.status.phase}=Running"
    assert met == (await kubectl("wait", running, "pod/my-slice", "--timeout=60s")).lines


async def test_a_pod_is_described_with_its_devices_and_events(kubectl: Kubectl) -> None:
    """What the container asks for, the annotations of the allocator, and what happened."""
    await kubectl("apply", "-f", "-", text=POD)
    await kubectl("annotate", "pod", "my-slice", "hami.io/vgpu-node=gpu-a")
    uid = (await kubectl("get", "pod", "my-slice", "-o", "jsonpath={.metadata.uid}")).text
    event = {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "my-slice.1"}, "type": "Warning", "count": 2,
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "name": "my-slice", "namespace": kubectl.namespace, "uid": uid
        },
        "reason": "FilteringFailed", "message": "1 4/4 CardInsufficientMemory",
        "source": {"component": "hami-scheduler"}, "firstTimestamp": STARTED, "lastTimestamp": STARTED,
    }  # fmt: skip
    await kubectl("create", "-f", "-", text=json.dumps(event))

    (await kubectl("describe", "pod", "my-slice")).assert_shows(
        "Name: my-slice", "Labels: app=first", "Annotations: hami.io/vgpu-node: gpu-a", "Status: Pending", "Limits:",
        "nvidia.com/gpu: 1", "nvidia.com/gpucores: 30", "nvidia.com/gpumem: 3k", "QoS Class: BestEffort", "Events:",
        "Warning FilteringFailed … hami-scheduler 1 4/4 CardInsufficientMemory",
    )  # fmt: skip
    (await kubectl("get", "events")).assert_shows(
        "LAST SEEN TYPE REASON OBJECT MESSAGE", "… Warning FilteringFailed pod/my-slice 1 4/4 CardInsufficientMemory"
    )
    (await kubectl("events", "--for=pod/my-slice")).assert_shows(
        "LAST SEEN TYPE REASON OBJECT MESSAGE",
        "… (x2 over …) Warning FilteringFailed Pod/my-slice 1 4/4 CardInsufficientMemory",
    )


async def test_a_node_is_labelled_cordoned_and_described(kubectl: Kubectl) -> None:
    """The label by which cards take part, and what the node has."""
    node = await a_node(kubectl)

    (await kubectl("label", "node", node, "gpu=on")).assert_shows(f"node/{node} labeled")
    (await kubectl("label", "node", node, "gpu=on")).assert_shows(f"node/{node} not labeled")
    taken = await kubectl.try_("label", "node", node, "gpu=off")
    assert ["error: 'gpu' already has a value (on), and --overwrite is false"] == taken.lines
    (await kubectl("get", "nodes", "-l", "gpu=on")).assert_shows(
        "NAME STATUS ROLES AGE VERSION", f"{node} Ready <none> …"
    )
    (await kubectl("cordon", node)).assert_shows(f"node/{node} cordoned")
    wide = await kubectl("get", "node", node, "-o", "wide")
    wide.assert_shows(
        "NAME STATUS ROLES AGE VERSION INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME",
        f"{node} Ready,SchedulingDisabled <none> … <none> <none> <unknown> <unknown> <unknown>",
    )
    (await kubectl("describe", "node", node)).assert_shows(
        f"Name: {node}", "Labels: gpu=on", "Unschedulable: true", "Conditions:", "Ready True … KubeletReady well",
        "Capacity:", "nvidia.com/gpu: 20", "Allocatable:", "Non-terminated Pods: (0 in total)", "Allocated resources:",
    )  # fmt: skip
    (await kubectl("uncordon", node)).assert_shows(f"node/{node} uncordoned")
    (await kubectl("taint", "node", node, "gpu=busy:NoSchedule")).assert_shows(f"node/{node} tainted")
    (await kubectl("label", "node", node, "gpu-")).assert_shows(f"node/{node} unlabeled")


async def test_fields_are_explained(kubectl: Kubectl) -> None:
    """Their names and types."""
    (await kubectl("explain", "pod.spec.containers.resources")).assert_shows(
        "KIND: Pod", "VERSION: v1", "FIELD: resources <ResourceRequirements>", "limits <map[string]Quantity>"
    )


async def test_a_pod_is_deleted(kubectl: Kubectl) -> None:
    """kubectl waits until it is gone."""
    await kubectl("apply", "-f", "-", text=POD)

    said = await kubectl("delete", "pod", "my-slice")

    said.assert_shows('pod "my-slice" deleted…')  # from 1.34 on it says from which namespace
    gone = await kubectl.try_("get", "pod", "my-slice")
    assert ['Error from server (NotFound): pods "my-slice" not found'] == gone.lines


async def test_what_the_stand_in_has_not_is_said(anywhere: tuple[str, Kubectl], kubectl: Kubectl) -> None:
    """No containers to look into, and no Deployments: one sentence each."""
    if anywhere[0] != "stand-in":
        pytest.skip("a real one has these, with kubelets and a controller manager")
    await kubectl("apply", "-f", "-", text=POD)
    nothing = "Error from server (NotImplemented): nothing runs in the containers of this stand-in: …"

    for command in (("logs", "my-slice"), ("exec", "my-slice", "--", "nvidia-smi"), ("attach", "my-slice")):
        said = await kubectl.try_(*command)
        assert 1 == said.code
        said.assert_shows(nothing)
    said = await kubectl.try_("scale", "deployment", "train", "--replicas=2")
    assert ['error: the server doesn\'t have a resource type "deployment"'] == said.lines
