"""What happens to a pod at admission, beyond what HAMi's recorded answers cover (tests/compat)."""

from typing import Any

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.admission import Admit, Deny, Skip, admit, json_patch, over_quota
from hami_model.bus.messages import QuotaDenied, QuotaNeed
from hami_model.catalog import Catalog
from hami_model.objects import Pod
from hami_model.patch import changed
from hypothesis import given
from hypothesis import strategies as st

GPU, MEMORY, CORES = "nvidia.com/gpu", "nvidia.com/gpumem", "nvidia.com/gpucores"
PERCENT, PRIORITY = "nvidia.com/gpumem-percentage", "nvidia.com/priority"
CATALOG = vendors.build(config.DEFAULTS, ascend=True, iluvatar=False)


def a_container(name: str, limits: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "resources": {"limits": limits or {}}, **more}


def a_pod(*containers: dict[str, Any], annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "annotations": annotations or {}},
        "spec": {"containers": list(containers), **spec},
    }


def answer_to(
    raw: dict[str, Any], catalog: Catalog = CATALOG, *, scheduler: str = "hami-scheduler"
) -> Admit | Deny | Skip:
    return admit(msgspec.convert(raw, Pod), catalog, scheduler_name=scheduler, force_overwrite=True)


def admitted(raw: dict[str, Any], catalog: Catalog = CATALOG) -> Admit:
    answer = answer_to(raw, catalog)
    assert isinstance(answer, Admit)
    return answer


def chips(**changes: Any) -> Catalog:
    assert config.DEFAULTS.vnpus is not None
    changed = tuple(msgspec.structs.replace(chip, **changes) for chip in config.DEFAULTS.vnpus.configs)
    return vendors.build(config.DeviceConfig(vnpus=config.Vnpus(configs=changed)), ascend=True, iluvatar=False)


@pytest.mark.parametrize("memory", ["16Gi", "1.5", "-1", "1e30"])
def test_a_value_that_cannot_be_meant_is_denied_at_the_door(memory: str) -> None:
    """HAMi would admit the pod, and lose sight of it on its way to any node."""
    answer = answer_to(a_pod(a_container("train", {GPU: "1", MEMORY: memory})))

    assert isinstance(answer, Deny)
    assert 403 == answer.code
    assert answer.message.startswith(f"nvidia.com/gpumem {memory} in container train")


@pytest.mark.parametrize(
    ("percent", "named"),
    [("101", "101"), ("-1", "-1"), ("100.5", "101"), ("-500m", "-1"), ("1.5k", "1500"), ("500m", "500m")],
)
def test_a_percentage_out_of_range_is_refused_in_hamis_words(percent: str, named: str) -> None:
    """HAMi names the value as it rounds it; a fraction in range, which HAMi would let pass, is named as written."""
    answer = answer_to(a_pod(a_container("c0", {GPU: "1", PERCENT: percent})))

    text = f"invalid {PERCENT} value {named} in container c0: must be an integer between 0 and 100"
    assert Deny(code=500, message=text) == answer


def test_an_unreadable_value_is_nobodys_business_under_another_scheduler() -> None:
    """A pod of another scheduler is left alone whatever it asks for."""
    raw = a_pod(a_container("c0", {GPU: "1", MEMORY: "16Gi"}), schedulerName="volcano")

    assert Skip(reason="pod already has different scheduler assigned") == answer_to(raw)


def test_both_forms_of_memory_are_admitted_with_a_warning() -> None:
    """Memory wins, as in HAMi, and the user is told."""
    answer = admitted(a_pod(a_container("c0", {GPU: "1", MEMORY: "3k", PERCENT: "50"})))

    assert (
        "container c0 sets both nvidia.com/gpumem and nvidia.com/gpumem-percentage: nvidia.com/gpumem wins",
    ) == answer.warnings


def test_cores_above_a_whole_card_are_admitted_with_a_warning() -> None:
    """More than all cores is all cores."""
    answer = admitted(a_pod(a_container("c0", {GPU: "1", MEMORY: "3k", CORES: "150"})))

    assert ("container c0 sets nvidia.com/gpucores above 100: it is read as 100, a whole card",) == answer.warnings
    assert (QuotaNeed(vendor="NVIDIA", memory=3000, cores=100),) == answer.needs


def test_the_model_annotation_of_cambricon_is_ignored_with_a_warning() -> None:
    """HAMi declares the annotation and never reads it."""
    raw = a_pod(a_container("c0", {"cambricon.com/vmlu": "1"}), annotations={"cambricon.com/use-mlutype": "MLU590"})

    (warning,) = admitted(raw).warnings

    assert warning.startswith("annotation cambricon.com/use-mlutype is ignored")


def test_a_pod_without_devices_gets_no_warnings_and_no_changes() -> None:
    """Other people's pods pass untouched."""
    raw = a_pod(a_container("c0", {"cpu": "1"}), annotations={"cambricon.com/use-mlutype": "MLU590"})

    assert Admit() == answer_to(raw)


@pytest.mark.parametrize(("priority", "way_out"), [("1.5", "write 0 for high or 1 for low"), ("-1", "write 0")])
def test_a_priority_that_is_no_number_is_denied(priority: str, way_out: str) -> None:
    """The variable in the container would mean nothing."""
    answer = answer_to(a_pod(a_container("c0", {GPU: "1", PRIORITY: priority})))

    assert isinstance(answer, Deny)
    assert way_out in answer.message


def test_needs_are_the_most_that_runs_at_once() -> None:
    """An init container runs beside the sidecars started before it, never beside the containers."""
    raw = a_pod(
        a_container("c0", {GPU: "2", MEMORY: "100"}),
        initContainers=[
            a_container("i0", {GPU: "1", MEMORY: "1k"}),
            a_container("s0", {GPU: "1", MEMORY: "300"}, restartPolicy="Always"),
            a_container("i1", {GPU: "1", MEMORY: "900"}),
        ],
    )

    assert (QuotaNeed(vendor="NVIDIA", memory=1200, cores=0),) == admitted(raw).needs


def test_needs_are_asked_after_rounding_to_a_template() -> None:
    """What is charged is what admission made of the ask, for each vendor its own."""
    raw = a_pod(
        a_container("c0", {"huawei.com/Ascend910B3": "1", "huawei.com/Ascend910B3-memory": "10k"}),
        a_container("c1", {"cambricon.com/vmlu": "2", "cambricon.com/mlu.smlu.vmemory": "4"}),
    )

    assert (
        QuotaNeed(vendor="Ascend910B3", memory=16384, cores=0),
        QuotaNeed(vendor="MLU", memory=2048, cores=200),
    ) == admitted(raw).needs


def test_a_quota_says_no_in_hamis_words_and_with_the_numbers() -> None:
    """The user sees what is used, what is allowed and what was asked."""
    denied = QuotaDenied(resource="limits.nvidia.com/gpumem", used=3000, limit=4000, wanted=2000)

    assert (
        "exceeding resource quota: namespace team-a uses 3000 of 4000 limits.nvidia.com/gpumem, "
        "the pod asks for 2000: ask for less or raise the quota"
    ) == over_quota(denied, "team-a").message


def test_without_a_scheduler_name_the_pod_is_changed_but_not_taken_over() -> None:
    """HAMi compat: then a named node is no reason to refuse either."""
    raw = a_pod(a_container("c0", {GPU: "1"}), nodeName="node-1")

    answer = answer_to(raw, scheduler="")

    assert isinstance(answer, Admit)
    assert answer.scheduler_name is None
    assert [
        {"op": "add", "path": "/spec/containers/0/resources/limits/nvidia.com~1gpucores", "value": "100"}
    ] == json_patch(raw, answer.changes)


def test_a_container_with_one_chip_is_not_hidden_from_it_by_its_siblings() -> None:
    """HAMi compat left behind: every other chip's module would blank the variable that the plugin sets."""
    raw = a_pod(a_container("c0", {"huawei.com/Ascend910B3": "1"}), a_container("c1"))
    answer = admitted(raw, chips(overwrite_env=True))

    env = [(c.container, c.env) for c in answer.changes if c.env]

    assert {("c1", ("ASCEND_VISIBLE_DEVICES", ""))} == set(env)
    assert [{"op": "add", "path": "/spec/containers/1/env", "value": [{"name": "ASCEND_VISIBLE_DEVICES"}]}] == [
        op for op in json_patch(raw, answer.changes) if "env" in op["path"]
    ]


def test_with_a_memory_factor_a_template_survives_being_read_again() -> None:
    """128 units of 10 MiB are rounded to vir01, and stay it when admission sees its own answer again."""
    catalog = chips(memory_factor=10)
    raw = a_pod(a_container("c0", {"huawei.com/Ascend310P": "1", "huawei.com/Ascend310P-memory": "128"}))

    first = admitted(raw, catalog)
    again = admitted(
        a_pod(a_container("c0", {"huawei.com/Ascend310P": "1", "huawei.com/Ascend310P-memory": "307"})), catalog
    )

    assert (QuotaNeed(vendor="Ascend310P", memory=3070, cores=0),) == first.needs == again.needs


NPU = "huawei.com/Ascend310P"


@pytest.mark.parametrize(
    ("mode", "written", "becomes"),
    [("", "1500m", "3072"), ("", "3072500m", "6144"), ("", "3Ki", "3072"), ("", "0", "3072"),
     ("hami-core", "1500m", "2"), ("hami-core", "3Ki", "3072"), ("hami-core", "2999500m", "3k")],
)  # fmt: skip
def test_every_form_of_an_npu_s_memory_becomes_a_plain_number(mode: str, written: str, becomes: str) -> None:
    """HAMi compat: a fraction means the next whole MiB, and the suffix is gone, whether a template is cut or not."""
    asking = a_container("c0", {NPU: "1", f"{NPU}-memory": written})
    raw = a_pod(asking, annotations={"huawei.com/vnpu-mode": mode})

    after = changed(raw, admitted(raw).changes)

    assert {NPU: "1", f"{NPU}-memory": becomes} == after["spec"]["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize("memory", ["0", "-1"])
def test_a_share_of_nothing_is_refused_in_soft_split(memory: str) -> None:
    """There is no smallest template to fall back on."""
    asking = a_container("c0", {NPU: "1", f"{NPU}-memory": memory})

    answer = answer_to(a_pod(asking, annotations={"huawei.com/vnpu-mode": "hami-core"}))

    assert isinstance(answer, Deny)
    assert (500, True) == (answer.code, answer.message.startswith(f"{NPU}-memory {memory} is invalid: "))


def test_half_a_module_more_is_refused_outside_of_a_super_pod_too() -> None:
    """Several 910C are given as whole modules, so three never fit; one may stand alone there."""
    catalog = chips(super_pod=False)

    three = answer_to(a_pod(a_container("c0", {"huawei.com/Ascend910C": "3"})), catalog)
    one = admitted(a_pod(a_container("c0", {"huawei.com/Ascend910C": "1"})), catalog)

    assert isinstance(three, Deny)
    assert three.message.startswith("Ascend910C device request must be 1 or 2*n, got 3: write huawei.com/Ascend910C 4")
    assert (QuotaNeed(vendor="Ascend910C", memory=65536, cores=0),) == one.needs


def test_part_of_a_core_is_a_core_asked_for() -> None:
    """HAMi compat: cores belong to soft split, however few."""
    answer = answer_to(a_pod(a_container("c0", {NPU: "1", f"{NPU}-core": "500m"})))

    assert Deny(code=500, message=f"{NPU}-core is only supported in hami-core (soft split) mode") == answer


def test_admission_is_the_same_when_asked_twice() -> None:
    """The API server may call again after other webhooks: our own answer needs no further change."""
    raw = a_pod(a_container("c0", {GPU: "1", PRIORITY: "1"}), a_container("c1", {"huawei.com/Ascend910C": "1"}))
    answer = admitted(raw)
    again = changed(raw, answer.changes)

    assert [] == json_patch(again, admitted(again).changes)


quantities = st.one_of(
    st.integers(-3, 10**12),
    st.floats(allow_nan=False),
    st.sampled_from(["0", "1", "3k", "16Gi", "1.5", "100m", "-1", "1e30", "", "abc", "50"]),
)
resources = st.sampled_from(
    [GPU, MEMORY, CORES, PERCENT, PRIORITY, "huawei.com/Ascend310P", "huawei.com/Ascend310P-memory",
     "huawei.com/Ascend910C", "cambricon.com/vmlu", "cambricon.com/mlu.smlu.vmemory"]
)  # fmt: skip


@given(st.lists(st.dictionaries(resources, quantities, max_size=4), min_size=1, max_size=3))
def test_admission_always_has_an_answer(limits: list[dict[str, Any]]) -> None:
    """Whatever a user writes is admitted or denied with a sentence, and what is admitted is admitted again."""
    raw = a_pod(*(a_container(f"c{at}", each) for at, each in enumerate(limits)))

    answer = answer_to(raw)

    if isinstance(answer, Deny):
        assert answer.message
    else:
        assert isinstance(answer, Admit)
        assert isinstance(answer_to(changed(raw, answer.changes)), Admit)
