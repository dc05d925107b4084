"""The manifests and kubectl commands of HAMi's users' guides work on the stand-in as on a real API server.

``kubectl version --short`` is not among them: kubectl has had no such option since 1.28.
"""

import pytest
import yaml

from tests.e2e.kubectl import Kubectl, a_node, bind, start

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
GPU = """
apiVersion: v1
kind: Pod
metadata:
  name: gpu-test3-01
  annotations:
    nvidia.com/nouse-gputype: "A40"   # no card of this model
    hami.io/node-scheduler-policy: "spread"
    hami.io/gpu-scheduler-policy: "binpack"
spec:
  restartPolicy: OnFailure
  nodeSelector:
    gpu: "on"
  containers:
  - name: main
    imagePullPolicy: IfNotPresent
    image: monkjiang/ubuntu2004:pytorch2.2.2-classification-example
    command:
    - python3
    - /opt/classification/train.py
    resources:
      limits:
        nvidia.com/vgpu: 2
        #nvidia.com/gpumem: 3000
        nvidia.com/gpumem-percentage: 50
        nvidia.com/gpucores: 30
"""
OTHERS = """
apiVersion: v1
kind: Pod
metadata:
  name: mlu-inference
  annotations:
    cambricon.com/use-mlutype: "MLU370"
spec:
  containers:
  - name: mlu-app
    image: my-mlu-inference:latest
    resources:
      limits:
        cambricon.com/vmlu: 1
        cambricon.com/mlu.smlu.vmemory: 16
        cambricon.com/mlu.smlu.vcore: 50
---
apiVersion: v1
kind: Pod
metadata:
  name: ascend-inference
spec:
  containers:
  - name: mindspore-app
    image: ascendhub/ascend-mindspore:latest
    command: ["python", "inference.py"]
    resources:
      limits:
        huawei.com/Ascend910B3: "1"
        huawei.com/Ascend910B3-memory: "16384"
---
apiVersion: v1
kind: Pod
metadata:
  name: ascend-edge-inference
spec:
  containers:
  - name: edge-app
    image: ascend-edge-inference:latest
    resources:
      limits:
        huawei.com/Ascend310P: "1"
        huawei.com/Ascend310P-memory: "4096"
"""


async def test_the_way_of_the_nvidia_guide(anywhere: tuple[str, Kubectl], kubectl: Kubectl) -> None:
    """Label a node, look for what was installed and what the node has, apply a pod, see it run, read its log."""
    node = await a_node(kubectl)
    (await kubectl("label", "node", node, "gpu=on")).assert_shows(f"node/{node} labeled")
    said = await kubectl("-n", "kube-system", "get", "all", "-l", "app.kubernetes.io/component")
    assert ["No resources found"] == [line.partition(" in ")[0] for line in said.lines]
    (await kubectl("describe", "node", node)).assert_shows("Labels: gpu=on", "Capacity:", "nvidia.com/gpu: 20")

    (await kubectl("apply", "-f", "-", text=GPU)).assert_shows("pod/gpu-test3-01 created")
    await bind(kubectl, "gpu-test3-01", node)
    await start(kubectl, "gpu-test3-01")

    (await kubectl("get", "pods", "-o", "wide")).assert_shows(
        "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES",
        f"gpu-test3-01 1/1 Running 0 … 10.0.0.7 {node} <none> <none>",
    )
    (await kubectl("describe", "pod", "gpu-test3-01")).assert_shows(
        "Annotations: hami.io/gpu-scheduler-policy: binpack", "nvidia.com/gpucores: 30",
        "nvidia.com/gpumem-percentage: 50", "nvidia.com/vgpu: 2", "Node-Selectors: gpu=on",
    )  # fmt: skip
    if anywhere[0] == "stand-in":  # a real one asks the kubelet, and here is none
        for command in (("logs", "gpu-test3-01"), ("exec", "gpu-test3-01", "--", "bash")):
            said = await kubectl.try_(*command)
            said.assert_shows("Error from server (NotImplemented): nothing runs in the containers of this stand-in: …")


async def test_the_pods_of_the_guide_for_other_vendors(kubectl: Kubectl) -> None:
    """Their amounts are stored as Kubernetes spells them, and applying them again changes nothing that matters."""
    names = [pod["metadata"]["name"] for pod in yaml.safe_load_all(OTHERS)]

    said = await kubectl("apply", "-f", "-", text=OTHERS)
    again = await kubectl("apply", "-f", "-", text=OTHERS)

    assert [f"pod/{name} created" for name in names] == said.lines
    assert [f"pod/{name}" for name in names] == [line.partition(" ")[0] for line in again.lines]
    (await kubectl("describe", "pod", "ascend-inference")).assert_shows(
        "Limits:", "huawei.com/Ascend910B3: 1", "huawei.com/Ascend910B3-memory: 16384"
    )
    (await kubectl("get", "pods")).assert_shows(*(f"{name} 0/1 Pending 0 …" for name in sorted(names)))
