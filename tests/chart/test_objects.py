"""What the chart makes: HAMi's objects by name, each as Kubernetes knows it, and all that they refer to."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import helm_python as helm
import pytest

from tests.chart import shapes
from tests.chart.rendering import CHART, MATRIX, Json, Rendered, render

HAMIS = {
    ("Deployment", "hami-scheduler"): "",
    ("Service", "hami-scheduler"): "",
    ("ServiceAccount", "hami-scheduler"): "",
    ("ClusterRole", "hami-scheduler"): "nothing in that pod asks the API server but kube-scheduler",
    ("ClusterRoleBinding", "hami-scheduler"): "likewise",
    ("ClusterRoleBinding", "hami-scheduler-kube"): "",
    ("ClusterRoleBinding", "hami-scheduler-volume"): "",
    ("Role", "hami-scheduler"): "",
    ("RoleBinding", "hami-scheduler"): "",
    ("ConfigMap", "hami-scheduler"): "",
    ("ConfigMap", "hami-scheduler-device"): "",
    ("DaemonSet", "hami-device-plugin"): "",
    ("ConfigMap", "hami-device-plugin"): "",
    ("ServiceAccount", "hami-device-plugin"): "",
    ("ClusterRole", "hami-device-plugin-monitor"): "",
    ("ClusterRoleBinding", "hami-device-plugin"): "",
    ("Service", "hami-device-plugin-monitor"): "",
    ("RuntimeClass", "nvidia"): "",
    ("MutatingWebhookConfiguration", "hami-webhook"): "",
    ("Job", "hami-admission-create"): "Helm makes the certificate",
    ("Job", "hami-admission-patch"): "likewise",
    ("Certificate", "hami-scheduler-serving-cert"): "",
    ("Issuer", "hami-scheduler-selfsigned-issuer"): "",
    ("ServiceMonitor", "hami-scheduler-metrics-monitor"): "",
    ("ServiceMonitor", "hami-device-plugin-metrics-monitor"): "",
    ("DaemonSet", "hami-mock-device-plugin"): "there is none",
}
"""HAMi's objects for a release named hami, and why one is not here."""

EVERYTHING = (
    "prometheus.enabled=true,prometheus.assumeCRDs=true,scheduler.certManager.enabled=true,"
    "devicePlugin.runtimeClassName=nvidia,devicePlugin.createRuntimeClass=true"
)


@pytest.fixture(params=MATRIX, ids=lambda line: line[:40] or "defaults")
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return render(*filter(None, [request.param]))


def test_hamis_objects_have_hamis_names() -> None:
    """Whoever looks for an object of HAMi finds it, unless it is not needed here."""
    found = render(EVERYTHING)

    assert {key for key, why in HAMIS.items() if not why} == {key for key in HAMIS if found.has(*key)}


def test_services_have_hamis_ports() -> None:
    """Dashboards, HAMi-WebUI and firewalls go on as they are."""
    found = render()
    ports = {
        port["name"]: (port["port"], port.get("nodePort"))
        for name in ("hami-scheduler", "hami-device-plugin-monitor", "hami-webhook")
        for port in found.one("Service", name)["spec"]["ports"]
    }

    assert {"monitor": (31993, 31993), "monitorport": (31992, 31992), "http": (443, 31998)} == ports


def test_what_the_selectors_are_is_as_in_hami() -> None:
    """A selector cannot be changed, so an upgrade from HAMi would fail with another one."""
    wanted = {"app.kubernetes.io/name": "hami", "app.kubernetes.io/instance": "hami"}
    found = render()

    for kind, name, component in [
        ("Deployment", "hami-scheduler", "hami-scheduler"),
        ("DaemonSet", "hami-device-plugin", "hami-device-plugin"),
    ]:
        labels = {**wanted, "app.kubernetes.io/component": component}
        assert labels == found.one(kind, name)["spec"]["selector"]["matchLabels"]


def test_a_release_of_another_name_says_so_everywhere() -> None:
    """Two releases in two namespaces share no object of the cluster."""
    found = render(release="gpus", namespace="ml")

    assert [] == [o["metadata"]["name"] for o in found.objects if not o["metadata"]["name"].startswith("gpus-hami")]
    elsewhere = {o["metadata"]["name"] for o in found.objects if o["metadata"].get("namespace", "ml") != "ml"}
    assert {"gpus-hami-scheduler-authentication-reader"} == elsewhere  # Kubernetes keeps that role in kube-system


def test_objects_are_as_kubernetes_knows_them(rendered: Rendered) -> None:
    """No field is misspelled, none is left empty."""
    assert [] == [fault for o in rendered.objects if shapes.is_known(o) for fault in shapes.faults(o)]


def test_a_misspelled_field_would_be_seen() -> None:
    """The check of fields sees what it is there for."""
    found = render().one("Deployment", "hami-webhook")
    found["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"

    assert ["Deployment hami-webhook.spec.template.spec.containers[0] has no field imagePullPolice"] == list(
        shapes.faults(found)
    )


def test_no_two_objects_are_the_same(rendered: Rendered) -> None:
    """Helm would apply the second over the first."""
    names = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in rendered.objects]

    assert sorted(set(names), key=str) == sorted(names, key=str)


def test_whatever_pods_refer_to_is_there(rendered: Rendered) -> None:
    """A pod whose ConfigMap, Secret, account or volume is missing never starts."""
    brought = {"creds", "ca"} | {"hami-webhook-tls"}  # by the admin, or by cert-manager
    missing = [
        (workload, kind, name)
        for workload, spec in rendered.pods()
        for kind, name in _references(spec)
        if not rendered.has(kind, name) and name not in brought
    ]

    assert [] == missing


def _references(spec: Json) -> Iterator[tuple[str, str]]:
    if "serviceAccountName" in spec:
        yield "ServiceAccount", spec["serviceAccountName"]
    for volume in spec["volumes"]:
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        for entry in container.get("env", []):
            if source := entry.get("valueFrom", {}).get("secretKeyRef"):
                yield "Secret", source["name"]


def test_what_containers_mount_is_a_volume_of_their_pod(rendered: Rendered) -> None:
    """And every volume is mounted by somebody."""
    claimed = {"data"}  # of a StatefulSet's claims
    for workload, spec in rendered.pods():
        containers = [*spec.get("initContainers", []), *spec["containers"]]
        mounted = {mount["name"] for container in containers for mount in container["volumeMounts"]}
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert (workload, mounted - claimed) == (workload, volumes - claimed)


def test_services_lead_to_ports_of_pods_that_they_select(rendered: Rendered) -> None:
    """A Service whose port no pod has answers nobody."""
    for service in rendered.of("Service"):
        chosen = service["spec"]["selector"].items()
        pods = [w["spec"]["template"] for w in rendered.workloads()]
        ports = [
            port
            for pod in pods
            if chosen <= pod["metadata"]["labels"].items()
            for container in pod["spec"]["containers"]
            for port in container["ports"]
        ]
        open_ports = {port["name"] for port in ports} | {port["containerPort"] for port in ports}
        wanted = {port["targetPort"] for port in service["spec"]["ports"]}
        assert (service["metadata"]["name"], set()) == (service["metadata"]["name"], wanted - open_ports)


def test_policies_and_budgets_select_pods_that_are_there(rendered: Rendered) -> None:
    """Each budget and policy is about one workload."""
    labels = [workload["spec"]["template"]["metadata"]["labels"].items() for workload in rendered.workloads()]
    selectors = [o["spec"]["selector"] for o in rendered.of("PodDisruptionBudget")]
    selectors += [o["spec"]["podSelector"] for o in rendered.of("NetworkPolicy")]

    assert [1] * len(selectors) == [sum(s["matchLabels"].items() <= found for found in labels) for s in selectors]


def test_every_container_asks_for_little_and_may_do_little(rendered: Rendered) -> None:
    """No privileges, no writable root, no capability; a request for memory, and probes."""
    for workload, spec in rendered.pods():
        for container in spec["containers"]:
            security = container["securityContext"]
            where = f"{workload}/{container['name']}"
            assert (where, False, True) == (
                where, security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"],
            )  # fmt: skip
            assert (where, {"drop": ["ALL"]}) == (where, security["capabilities"])
            assert (where, True) == (where, "memory" in container["resources"]["requests"])
            assert (where, True) == (where, {"livenessProbe", "readinessProbe"} <= container.keys())
        is_root = workload == "hami-device-plugin"
        assert (workload, not is_root) == (workload, spec["securityContext"].get("runAsNonRoot", False))


def test_an_agent_that_makes_mig_instances_may_change_cards() -> None:
    """As soon as one node is in MIG mode; otherwise it has no privileges."""
    config = '{"nodeconfig": [{"name": "n1", "operatingmode": "mig"}]}'
    found = render(values={"devicePlugin": {"nodeConfiguration": {"config": config}}})
    agent = found.container("hami-device-plugin", "device-plugin")

    assert {"name": "NVIDIA_MIG_CONFIG_DEVICES", "value": "all"} in agent["env"]
    assert agent["securityContext"]["privileged"]
    assert "privileged" not in render().container("hami-device-plugin", "device-plugin")["securityContext"]


def test_images_come_from_the_mirror_that_is_named() -> None:
    """Every image, kube-scheduler's and NATS' and HAMi-core's too."""
    found = render("global.imageRegistry=mirror:5000,global.imageTag=v9,scheduler.kubeScheduler.image.tag=v1.34.1")
    images = {
        container["image"]
        for _, spec in found.pods()
        for container in [*spec.get("initContainers", []), *spec["containers"]]
    }

    assert {
        "mirror:5000/hami/webhook:v9", "mirror:5000/hami/extender:v9", "mirror:5000/hami/allocator:v9",
        "mirror:5000/hami/node-agent:v9", "mirror:5000/kube-scheduler:v1.34.1", "mirror:5000/nats:2.15.1-alpine",
        "mirror:5000/projecthami/hami:v2.10.0",
    } == images  # fmt: skip


@pytest.mark.parametrize("version", ["v1.31.1", "v1.31.1+k3s1", "v1.31.1-eks-a1b2c3", "v1.31.1-gke.100"])
def test_the_kube_scheduler_is_of_the_clusters_version(version: str, tmp_path: Path) -> None:
    """Whatever a distribution appends to it: images of kube-scheduler are tagged without."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: one\nversion: 0.1.0\n")
    shutil.copy(CHART / "templates" / "scheduler" / "_config.tpl", tmp_path / "templates")
    cluster = f'(dict "Capabilities" (dict "KubeVersion" (dict "Version" "{version}")))'
    (tmp_path / "templates" / "tag.txt").write_text(f'{{{{ include "hami.kubeVersion" {cluster} }}}}')
    with helm.Chart.load(tmp_path) as chart:
        rendered = chart.render(name="one")

    assert ["v1.31.1"] == list(rendered.values())


def test_a_change_of_the_device_config_restarts_whoever_reads_it() -> None:
    """By a checksum in the pods' annotations; NATS does not read it."""
    before, after = render(), render("devicePlugin.deviceSplitCount=5")

    def changed(name: str) -> bool:
        one, other = (next(w for w in found.workloads() if w["metadata"]["name"] == name) for found in (before, after))
        key = "checksum/hami-scheduler-device-config"
        notes = [w["spec"]["template"]["metadata"]["annotations"].get(key) for w in (one, other)]
        return notes[0] != notes[1]

    names = [workload["metadata"]["name"] for workload in before.workloads()]
    readers = ["hami-allocator", "hami-device-plugin", "hami-scheduler", "hami-webhook"]
    assert readers == sorted(name for name in names if changed(name))


def test_the_webhook_never_sees_our_own_pods() -> None:
    """Or nothing of ours could start while it is away."""
    labels = [workload["spec"]["template"]["metadata"]["labels"] for workload in render().workloads()]

    assert ["ignore"] * len(labels) == [found.get("hami.io/webhook") for found in labels]


def test_agents_stand_where_hami_has_them() -> None:
    """On nodes with the label gpu=on, with the host's folders at the same paths."""
    spec = next(spec for name, spec in render().pods() if name == "hami-device-plugin")
    host = {volume["name"]: volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume}
    inside = {m["name"]: m["mountPath"] for m in spec["containers"][0]["volumeMounts"] if m["name"] in host}

    assert {"gpu": "on"} == spec["nodeSelector"]
    assert host == inside
    assert {"/var/lib/kubelet/device-plugins", "/usr/local/vgpu"} < set(host.values())


def test_arguments_of_hamis_programs_are_left_out() -> None:
    """They would end ours at once; flags of ours are passed on."""
    found = render(values={"devicePlugin": {"extraArgs": ["-v=4", "--legacy-metrics=true"]}})

    assert ["--legacy-metrics=true"] == found.container("hami-device-plugin", "device-plugin")["args"]
