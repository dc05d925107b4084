"""kube-scheduler's and the webhook's configuration, judged by hamictl's own rules, and which pods the webhook sees."""

import time
from typing import Any

import msgspec
import pytest
import yaml
from hami_model import config, vendors
from hami_testkit.cluster import conditions
from hamictl.doctor import scheduler, webhook

from tests.chart.rendering import Json, Rendered, render

ALL = "devices.ascend.enabled=true,devices.iluvatar.enabled=true"
OVERWRITES = "scheduler.overwriteEnv=true"


def configuration(found: Rendered) -> Json:
    return found.one("MutatingWebhookConfiguration", "hami-webhook")


@pytest.mark.parametrize("line", ["", ALL, "schedulerName=cards", "devices.kunlun.enabled=false"])
def test_the_doctor_finds_nothing_in_kube_schedulers_configuration(line: str) -> None:
    """It is complete: verbs, timeout, every resource, all nodes."""
    found = render(*filter(None, [line]))
    device_config = config.parse(yaml.safe_load(found.text("hami-scheduler-device", "device-config.yaml")))
    env = found.environment("hami-webhook", "webhook")
    catalog = vendors.build(
        device_config, ascend=env["HAMI_ENABLE_ASCEND"] == "true", iluvatar=env["HAMI_ENABLE_ILUVATAR"] == "true"
    )
    wanted = scheduler.Wanted(scheduler=env["HAMI_SCHEDULER_NAME"], catalog=catalog, bind_timeout=28.0)

    assert [] == list(scheduler.check("the chart", found.text("hami-scheduler", "config.yaml"), wanted))


@pytest.mark.parametrize("line", ["", OVERWRITES])
def test_the_doctor_finds_nothing_in_the_webhooks_configuration(line: str) -> None:
    """It fails closed for device pods alone, and trusts a CA that is valid for years."""
    raw = msgspec.json.encode(configuration(render(*filter(None, [line]))))
    found = msgspec.json.decode(raw, type=webhook.Configuration)

    in_nine_years = time.time() + 9 * 365 * 86400
    assert [] == list(webhook.check([found], now=in_nine_years))


def sees(entry: Json, **spec: Any) -> bool:
    """Say whether a webhook is asked about a pod of this spec."""
    request = {"object": {"metadata": {"name": "p"}, "spec": spec}, "oldObject": None}
    return conditions.all_hold(entry, request)


def container(**resources: Any) -> Json:
    return {"name": "c", "resources": resources} if resources else {"name": "c"}


PLAIN = container(limits={"cpu": "1"})
GPU = container(limits={"cpu": "1", "nvidia.com/gpu": "1"})


@pytest.mark.parametrize(
    "spec",
    [
        {"containers": [GPU]},
        {"containers": [PLAIN, GPU]},
        {"containers": [container(requests={"nvidia.com/gpu": "1"})]},
        {"containers": [PLAIN], "initContainers": [GPU]},
        {"containers": [container()], "initContainers": [container(requests={"hygon.com/dcunum": "1"})]},
        {"containers": [container(limits={"aws.amazon.com/neuroncore": "1"})]},
        {"containers": [container(limits={"enflame.com/vgcu": "1"})]},  # an older guide's name: it is warned of
    ],
)
def test_the_webhook_sees_pods_that_ask_for_devices(spec: Json) -> None:
    """In limits or requests, of containers or init containers."""
    (entry,) = configuration(render())["webhooks"]

    assert sees(entry, **spec)


@pytest.mark.parametrize(
    "spec",
    [
        {"containers": [PLAIN]},
        {"containers": [container()], "initContainers": [container(limits={})]},
        {"containers": [container(limits={"aws.amazon.com/ec2-capacity": "1"})]},
        {"containers": [container(limits={"huawei.com/Ascend910B3": "1"})]},  # Ascend is off
    ],
)
def test_other_pods_do_not_wait_for_the_webhook(spec: Json) -> None:
    """They are created while it is away, whatever its failurePolicy."""
    (entry,) = configuration(render())["webhooks"]

    assert not sees(entry, **spec)


def test_ascend_pods_are_seen_where_ascend_is_on() -> None:
    """The conditions follow the vendors that take part."""
    (entry,) = configuration(render(ALL))["webhooks"]

    assert sees(entry, containers=[container(limits={"huawei.com/Ascend910B3": "1"})])


def test_every_pod_is_seen_by_one_webhook_where_cards_are_hidden() -> None:
    """Device pods by the one that fails closed, the others by one that nobody waits for."""
    first, second = configuration(render(OVERWRITES))["webhooks"]

    assert ("Fail", True, False) == (
        first["failurePolicy"],
        sees(first, containers=[GPU]),
        sees(first, containers=[PLAIN]),
    )
    assert ("Ignore", False, True) == (
        second["failurePolicy"],
        sees(second, containers=[GPU]),
        sees(second, containers=[PLAIN]),
    )


def test_the_selectors_are_hamis_with_the_admins_own_added() -> None:
    """Namespaces and pods labelled hami.io/webhook=ignore are left alone, and those of the whitelist."""
    found = configuration(
        render(
            "scheduler.admissionWebhook.whitelistNamespaces={infra},"
            "scheduler.admissionWebhook.namespaceSelector.matchLabels.team=ml,"
            "scheduler.admissionWebhook.objectSelector.matchExpressions[0].key=app,"
            "scheduler.admissionWebhook.objectSelector.matchExpressions[0].operator=Exists"
        )
    )["webhooks"][0]
    ignored = {"key": "hami.io/webhook", "operator": "NotIn", "values": ["ignore"]}
    infra = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["infra"]}

    assert {"matchLabels": {"team": "ml"}, "matchExpressions": [ignored, infra]} == found["namespaceSelector"]
    assert {"matchExpressions": [ignored, {"key": "app", "operator": "Exists"}]} == found["objectSelector"]


def test_a_cluster_that_owns_the_namespace_selector_keeps_it() -> None:
    """AKS and others write it themselves."""
    found = configuration(render("scheduler.admissionWebhook.manageNamespaceSelector=false"))["webhooks"][0]

    assert "namespaceSelector" not in found


def test_cert_manager_is_told_where_the_bundle_goes() -> None:
    """The chart then makes no certificate of its own."""
    found = render("scheduler.certManager.enabled=true,fullnameOverride=cards")
    certificate = found.one("Certificate", "cards-scheduler-serving-cert")
    annotations = found.one("MutatingWebhookConfiguration", "cards-webhook")["metadata"]["annotations"]

    assert "cards-webhook.kube-system.svc" in certificate["spec"]["dnsNames"]
    assert {"cert-manager.io/inject-ca-from": "kube-system/cards-scheduler-serving-cert"} == annotations
    assert not found.has("Secret", certificate["spec"]["secretName"])
