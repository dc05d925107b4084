"""Every value of HAMi's that is not said to be without effect changes something when it is changed."""

from collections.abc import Iterator
from functools import reduce
from typing import Any

import pytest

from tests.chart.hami_values import HAMI_VALUES, HamiValue
from tests.chart.rendering import NAMESPACE, Json, chart

OTHERS: dict[str, Any] = {
    "schedulerName": "cards", "scheduler.nodeLockExpire": "7m", "devices.nvidia.gpuCorePolicy": "force",
    "metaxsGPUTopologyAware": "true", "scheduler.overwriteEnv": "true", "devicePlugin.disablecorelimit": "true",
    "scheduler.defaultSchedulerPolicy.nodeSchedulerPolicy": "spread",
    "scheduler.defaultSchedulerPolicy.gpuSchedulerPolicy": "numa",
    "scheduler.service.type": "ClusterIP", "devicePlugin.service.type": "ClusterIP",
    "scheduler.admissionWebhook.reinvocationPolicy": "IfNeeded", "scheduler.admissionWebhook.failurePolicy": "Ignore",
    "devicePlugin.deviceListStrategy": "cdi-cri", "devicePlugin.pluginPath": "/k/device-plugins",
    "devicePlugin.nvidiaDriverRoot": "/run/nvidia", "devicePlugin.gdrcopyEnabled": True,
    "devicePlugin.gdsEnabled": True, "devicePlugin.mofedEnabled": True,
    "device-config.content": "nvidia: {resourceCountName: example.com/gpu}",
}  # fmt: skip
"""What a value is changed to where adding to it would be refused."""
TOGETHER = {
    "global.gpuHookPath", "devicePlugin.libPath", "devicePlugin.monitor.ctrPath", "scheduler.metricsBindAddress",
    "scheduler.service.monitorTargetPort", "mockDevicePlugin.enabled", "scheduler.patch.enabled",
}  # fmt: skip
"""Values that cannot be changed alone, or not at all; other tests have them."""
KINDS: dict[str, Any] = {
    "tolerations": {"key": "x"}, "matchExpressions": {"key": "x", "operator": "Exists"}, "customresources": "x.io/x",
    "extraEnvs": {"name": "X", "value": "y"},
}  # fmt: skip
GROUND: Json = {
    "scheduler": {"certManager": {"enabled": True}, "admissionWebhook": {"customURL": {"enabled": True}}},
    "devices": {"ascend": {"enabled": True}, "iluvatar": {"enabled": True}},
    "devicePlugin": {"runtimeClassName": "nvidia", "gpuOperatorToolkitReady": {"enabled": True}},
    "nats": {"seed": "same"},
    "prometheus": {"assumeCRDs": True},
}
"""What must be on for other values to count; with cert-manager and a seed two renderings are alike."""


def living() -> Iterator[HamiValue]:
    """Yield every value that is said to have an effect; "likewise" means what the line before means."""
    here = ""
    for value in HAMI_VALUES:
        here = here if value.here == "likewise" else value.here
        if "no effect" not in here and value.name not in TOGETHER:
            yield value


def another(name: str, now: Any) -> Any:
    """Return something else than a value is now."""
    last = name.rpartition(".")[2]
    if name in OTHERS or last == "pullPolicy":
        return OTHERS.get(name, "Always")
    if last == "resources":
        return {"limits": {"cpu": "7"}}
    match now:
        case bool():
            return not now
        case int() | float():
            return now + 1
        case str():
            return f"{now}x"
        case list():
            return [KINDS.get(last, "x")]
        case _:
            return {"x": "y"}


def merged(into: Json, more: Json) -> Json:
    both = {key: merged(into[key], more[key]) for key in into.keys() & more.keys() if isinstance(into[key], dict)}
    return {**into, **more, **both}


def rendered(values: Json) -> dict[str, str]:
    """Return what reaches the cluster."""
    files = chart().render(values, name="hami", namespace=NAMESPACE)
    return {path: text for path, text in files.items() if path.endswith(".yaml")}


@pytest.mark.timeout(180)
def test_a_value_that_is_changed_changes_something() -> None:
    """A value that nothing reads would be a promise that nobody keeps."""
    before = rendered(GROUND)
    now = chart().merge_values(GROUND)
    dead = []
    for value in living():
        path = value.name.split(".")
        changed = another(value.name, reduce(lambda inner, key: inner.get(key), path, now))
        values: Json = reduce(lambda inner, key: {key: inner}, reversed(path), changed)
        if rendered(merged(GROUND, values)) == before:
            dead.append(value.name)

    assert before == rendered(GROUND)
    assert [] == dead
