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

from tests.compat import answers, rules

RECORDED = [pytest.param(case, id=f"{vendor}: {case['name']}") for vendor, case in answers.recorded("webhook")]
WEAKNESSES = answers.known_weaknesses("webhook")
OUR_CHANGES = {(vendor, name): told for vendor, ours in answers.ALL.items() for name, told in ours.admitted.items()}
OUR_DENIALS = {(vendor, name): told for vendor, ours in answers.ALL.items() for name, told in ours.denied.items()}
CHART = yaml.safe_load((rules.VECTORS / "settings/device-config.yaml").read_text())


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


@pytest.mark.parametrize("case", OUR_CHANGES, ids=": ".join)
def test_a_known_weakness_is_mended_with_these_changes(case: tuple[str, str]) -> None:
    """Where HAMi's answer is a known weakness ours is another (docs/reference/differences-from-hami.md)."""
    answer = answered(WEAKNESSES[case])

    assert not isinstance(answer, Deny)
    assert OUR_CHANGES[case] == changes_of(WEAKNESSES[case], answer)


@pytest.mark.parametrize("case", OUR_DENIALS, ids=": ".join)
def test_a_pod_that_could_never_work_is_refused_at_once(case: tuple[str, str]) -> None:
    """HAMi admits these and loses them later; the user hears here what to write instead."""
    answer = answered(WEAKNESSES[case])

    assert isinstance(answer, Deny)
    assert OUR_DENIALS[case][0] == answer.code
    assert answer.message.startswith(OUR_DENIALS[case][1])


def test_every_recorded_difference_is_decided() -> None:
    """No known weakness is left without an answer of ours."""
    assert WEAKNESSES.keys() == OUR_CHANGES.keys() | OUR_DENIALS.keys()


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
