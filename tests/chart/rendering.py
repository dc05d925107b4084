"""The chart as Helm renders it, with what tests ask of the objects.

One rule: Helm's own engine renders, in this process; nothing here knows what the chart should say.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml
from msgspec import Struct

Json = dict[str, Any]
CHART = Path(__file__).parents[2] / "deploy" / "chart" / "hami"
NAMESPACE = "kube-system"

MATRIX = [
    "",
    "prometheus.enabled=true,prometheus.assumeCRDs=true,dashboards.enabled=true",
    "nats.replicas=3,nats.persistence.enabled=true,nats.persistence.storageClassName=fast",
    "nats.enabled=false,nats.external.url=tls://nats:4222,nats.external.credsSecret=creds,nats.external.caSecret=ca",
    "scheduler.certManager.enabled=true,scheduler.overwriteEnv=true,devices.ascend.enabled=true",
    "scheduler.patch.enabled=false,webhook.caBundle=QUJD,scheduler.kubeScheduler.enabled=false",
    "scheduler.admissionWebhook.enabled=false,devicePlugin.enabled=false,networkPolicy.enabled=false",
    "scheduler.service.type=ClusterIP,devicePlugin.service.type=ClusterIP,scheduler.service.labels.a=b,"
    "devicePlugin.service.labels.a=b,scheduler.leaderElect=false,scheduler.nodeLabelSelector.pool=gpu",
    "devicePlugin.runtimeClassName=nvidia,devicePlugin.createRuntimeClass=true,devicePlugin.nvidiaDriverRoot=/run/n,"
    "devicePlugin.gpuOperatorToolkitReady.enabled=true,devicePlugin.hostNetwork=true,devicePlugin.hostPID=false,"
    "devicePlugin.gdsEnabled=true,devicePlugin.installLibrary=false,devicePlugin.extraEnvs.A=b,global.labels.team=ml",
    "scheduler.admissionWebhook.customURL.enabled=true,scheduler.admissionWebhook.customURL.host=10.0.0.1,"
    "scheduler.admissionWebhook.whitelistNamespaces={kube-system},global.imageRegistry=mirror:5000,"
    "global.imagePullSecrets={one},devicePlugin.image.pullSecrets[0].name=two",
]
"""Lines of ``--set`` that together turn on whatever the templates can do."""


@cache
def chart() -> helm.Chart:
    return helm.Chart.load(CHART)


class Rendered(Struct, frozen=True):
    """All objects of one rendering, in the order of the files."""

    objects: list[Json]
    notes: str = ""

    def of(self, kind: str) -> list[Json]:
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str, name: str) -> Json:
        return next(found for found in self.of(kind) if found["metadata"]["name"] == name)

    def has(self, kind: str, name: str) -> bool:
        return any(found["metadata"]["name"] == name for found in self.of(kind))

    def text(self, config_map: str, key: str) -> str:
        text: str = self.one("ConfigMap", config_map)["data"][key]
        return text

    def secret(self, name: str, key: str) -> str:
        """Return a value of a Secret, whichever way it is written."""
        found = self.one("Secret", name)
        if key in (found.get("stringData") or {}):
            return str(found["stringData"][key])
        return base64.b64decode(found["data"][key]).decode()

    def workloads(self) -> list[Json]:
        return [found for found in self.objects if found["kind"] in ("Deployment", "DaemonSet", "StatefulSet")]

    def pods(self) -> Iterator[tuple[str, Json]]:
        """Yield each workload's name with its pod's spec."""
        for found in self.workloads():
            yield found["metadata"]["name"], found["spec"]["template"]["spec"]

    def container(self, workload: str, name: str) -> Json:
        pod = next(spec for found, spec in self.pods() if found == workload)
        return next(found for found in pod["containers"] if found["name"] == name)

    def environment(self, workload: str, name: str, *, fields: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return a container's variables as the kubelet would resolve them."""
        found: dict[str, str] = {}
        for entry in self.container(workload, name)["env"]:
            source = entry.get("valueFrom", {})
            if "secretKeyRef" in source:
                value = self.secret(source["secretKeyRef"]["name"], source["secretKeyRef"]["key"])
            elif "fieldRef" in source:
                value = (fields or {})[source["fieldRef"]["fieldPath"]]
            else:
                value = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], str(entry["value"]))
            found[entry["name"]] = value
        return found


def values_of(*sets: str) -> Json:
    """Return what ``--set`` makes of these."""
    values: Json = helm.parse_set_string(",".join(sets)) if sets else {}
    return values


def render(*sets: str, values: Json | None = None, release: str = "hami", namespace: str = NAMESPACE) -> Rendered:
    """Render the chart with ``--set`` lines, or with the content of a values file; the same lines are rendered once."""
    if values is not None:
        return read(chart().render(values, name=release, namespace=namespace))
    return read(_files(sets, release, namespace))


@cache
def _files(sets: tuple[str, ...], release: str, namespace: str) -> dict[str, str]:
    return chart().render(values_of(*sets), name=release, namespace=namespace)


def read(files: Mapping[str, str]) -> Rendered:
    notes = next((text for path, text in files.items() if path.endswith("NOTES.txt")), "")
    texts = [text for path, text in sorted(files.items()) if path.endswith(".yaml")]
    loaded = (found for text in texts for found in yaml.load_all(text, Loader=yaml.CSafeLoader))
    return Rendered([found for found in loaded if found], notes)


def refusal(*sets: str, values: Json | None = None) -> str:
    """Return the sentence with which Helm refuses these values."""
    try:
        render(*sets, values=values)
    except helm.HelmError as error:
        return str(error)
    raise AssertionError(f"these values are taken: {sets or values}")
