"""Admission by the model alone, against what HAMi 2.10 answered (``vectors/webhook``)."""

import json
from typing import Any

import msgspec
import pytest
import yaml
from hami_model import config, vendors
from hami_model.admission import Admit, Deny, Skip, admit, json_patch, over_quota
from hami_model.catalog import Catalog
from hami_model.objects import Pod
from hami_model.quota import Quotas

from tests.compat import rules

VENDORS = ("nvidia", "ascend", "cambricon")
RECORDED = [
    pytest.param(case, id=f"{vendor}: {case['name']}")
    for vendor in VENDORS
    for case in rules.cases(f"webhook/{vendor}.json")
]
DIFFERENT = {case["name"]: case for case in rules.cases("differences/webhook-nvidia.json")}
CHART = yaml.safe_load((rules.VECTORS / "settings/device-config.yaml").read_text())

SCHEDULER = {"/spec/schedulerName": "hami-scheduler"}
WHOLE_CARD = {"/spec/containers/0/resources/limits/nvidia.com~1gpucores": "100"}
OUR_CHANGES: dict[str, dict[str, Any]] = {
    "percentage 0": {**WHOLE_CARD, **SCHEDULER},
    "priority without a card": {},
    "count zero": {},
    "requests only, count": {},
    "runtimeClassName, core policy, default count": {
        "/spec/containers/0/env/0/name": "GPU_CORE_UTILIZATION_POLICY",
        "/spec/containers/0/env/0/value": "force",
        "/spec/containers/0/resources/limits/nvidia.com~1gpu": "2",
        "/spec/containers/1/env/0/name": "NVIDIA_VISIBLE_DEVICES",
        "/spec/containers/1/env/0/value": "none",
        "/spec/runtimeClassName": "nvidia",
        **SCHEDULER,
    },
    "overwriteEnv without devices": {
        "/spec/containers/0/env/0/name": "NVIDIA_VISIBLE_DEVICES",
        "/spec/containers/0/env/0/value": "none",
    },
    "core policy on a container that has it already": {
        "/spec/containers/0/env/0/value": "force",
        "/spec/runtimeClassName": "nvidia",
        **SCHEDULER,
    },
    "quota: percentage is not counted": SCHEDULER,
}
OUR_DENIALS = {
    "percentage with a fraction": (500, "invalid nvidia.com/gpumem-percentage value 500m in container c0"),
    "memory 16Gi": (
        403,
        "nvidia.com/gpumem 16Gi in container c0 is too much: nvidia.com/gpumem counts MiB: write 16384",
    ),
}


@pytest.mark.parametrize("case", RECORDED)
def test_admission_answers_as_hami_did(case: dict[str, Any]) -> None:
    """Every recorded pod gets HAMi's decision, HAMi's text first, and the very same changes."""
    expected = case["expect"]

    answer = answered(case)

    if not expected["allowed"]:
        assert isinstance(answer, Deny)
        assert expected["code"] == answer.code
        assert answer.message.startswith(expected["message"])
    else:
        assert not isinstance(answer, Deny)
        assert rules.comparable_changes(expected["pod_changes"]) == rules.comparable_changes(changes_of(case, answer))


@pytest.mark.parametrize("name", OUR_CHANGES)
def test_a_known_weakness_is_mended_with_these_changes(name: str) -> None:
    """Where HAMi's answer is a known weakness ours is another (docs/reference/differences-from-hami.md)."""
    answer = answered(DIFFERENT[name])

    assert not isinstance(answer, Deny)
    assert OUR_CHANGES[name] == changes_of(DIFFERENT[name], answer)


@pytest.mark.parametrize("name", OUR_DENIALS)
def test_a_pod_that_could_never_work_is_refused_at_once(name: str) -> None:
    """HAMi admits these and loses them later; the user hears here what to write instead."""
    answer = answered(DIFFERENT[name])

    assert isinstance(answer, Deny)
    assert OUR_DENIALS[name][0] == answer.code
    assert answer.message.startswith(OUR_DENIALS[name][1])


def test_every_recorded_difference_is_decided() -> None:
    """No known weakness is left without an answer of ours."""
    assert DIFFERENT.keys() == OUR_CHANGES.keys() | OUR_DENIALS.keys()


def answered(case: dict[str, Any]) -> Admit | Deny | Skip:
    """Run one case: the pod through the model, then its needs against the recorded quotas."""
    catalog = catalog_of(case)
    flags = case.get("settings", {}).get("flags", {})
    pod = msgspec.json.decode(json.dumps(case["pod"]), type=Pod)
    force = flags.get("force-overwrite-default-scheduler", "true") == "true"
    answer = admit(pod, catalog, scheduler_name="hami-scheduler", force_overwrite=force)
    if not isinstance(answer, Admit):
        return answer
    quotas = Quotas(catalog)
    for quota in case.get("quotas", []):
        quotas.set(quota["namespace"], "quota", quota["hard"])
    for need in answer.needs:
        denied = quotas.fits(pod.metadata.namespace, need.vendor, need.memory, need.cores)
        if denied is not None:
            return over_quota(denied, pod.metadata.namespace)
    return answer


def catalog_of(case: dict[str, Any]) -> Catalog:
    """Build the catalog under the case's settings."""
    changes = case.get("settings", {}).get("config", {})
    return vendors.build(config.parse(rules.merged_config(CHART, changes)), ascend=True, iluvatar=True)


def changes_of(case: dict[str, Any], answer: Admit | Skip) -> dict[str, Any]:
    """Apply our patch and list every leaf that it leaves different."""
    patch = json_patch(case["pod"], answer.changes if isinstance(answer, Admit) else ())
    return rules.pod_changes(case["pod"], rules.patched(case["pod"], patch))
