"""HAMi's strings through our codecs: what its plugins published and its scheduler wrote, read and written again."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.annotations import (
    allocation_annotations,
    decode_register,
    encode_links,
    encode_register,
    read_allocation,
)
from hami_model.objects import Node, Pod, PodSpec
from hami_model.vendor import Form

from tests.compat import answers, rules

CATALOG = vendors.build(config.DEFAULTS, ascend=True, iluvatar=True)
NOW = 1735689600.5

Written = tuple[Pod, dict[str, str]]


def recorded_cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Walk the cases whose resource names are the chart's."""
    for vendor, case in answers.recorded("schedule"):
        if "CountName" not in str(case.get("settings")):
            yield f"{vendor}: {case['name']}", case


def written_by_hami(case: dict[str, Any]) -> Iterator[Written]:
    """Walk the pods of a case that got devices, each with the annotations that HAMi wrote."""
    for step in case["steps"]:
        annotations = step.get("expect", {}).get("annotations")
        if annotations and "pod" in step:
            yield msgspec.convert(step["pod"], Pod), annotations


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in recorded_cases()])
def test_what_a_plugin_published_is_written_back_byte_for_byte(case: dict[str, Any]) -> None:
    """Cards read from a node's annotations are the same text when written again, pair scores too."""
    for raw in case["nodes"]:
        node = msgspec.convert(raw, Node)
        for vendor in CATALOG.vendors:
            text = node.annotations.get(vendor.keys.register)
            if text is None or vendor.form is Form.OWN:
                continue
            assert text == encode_register(decode_register(text, vendor.word, vendor.form), vendor.form)
            if vendor.keys.links in node.annotations:
                links = {device.id: device.links for device in vendor.discover(vendor, node)}
                assert node.annotations[vendor.keys.links] == encode_links(links)


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in recorded_cases()])
def test_what_the_scheduler_wrote_is_written_back_the_same(case: dict[str, Any]) -> None:
    """An allocation read from HAMi's annotations is written as HAMi wrote it, extras included."""
    for pod, annotations in written_by_hami(case):
        bound = bound_with(pod, annotations)

        allocation = read_allocation(CATALOG, bound)

        assert allocation is not None
        expected, actual = rules.comparable_annotations(
            annotations, allocation_annotations(CATALOG, allocation, bound, now=NOW)
        )
        assert expected == actual


def bound_with(pod: Pod, annotations: dict[str, str]) -> Pod:
    """Return the pod as it stands in the API server once bound."""
    metadata = msgspec.structs.replace(pod.metadata, annotations={**pod.annotations, **annotations})
    spec: PodSpec = msgspec.structs.replace(pod.spec, node_name=annotations["hami.io/vgpu-node"])
    return msgspec.structs.replace(pod, metadata=metadata, spec=spec)
