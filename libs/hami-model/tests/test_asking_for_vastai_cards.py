"""Vastai: what a container's limits mean, and what nodes publish."""

from collections.abc import Mapping

import msgspec
import pytest
from hami_model import config, vendors
from hami_model.admission import Admit, Deny, admit
from hami_model.demands import pod_demand
from hami_model.device import Device
from hami_model.errors import MalformedInventory
from hami_model.objects import Node, Pod
from hami_model.request import Demand, Exactly

CATALOG = vendors.build(config.DEFAULTS, ascend=True, iluvatar=False)
VASTAI = CATALOG.by_word("Vastai")
VA = "vastaitech.com/va"
DIE = '{"id":"7-0","count":1,"devmem":32768,"type":"Vastai","health":true,"custominfo":{"DeviceStrategy":"die"%s}}'


def a_va_pod(limits: Mapping[str, object]) -> Pod:
    return msgspec.convert({"spec": {"containers": [{"name": "c0", "resources": {"limits": limits}}]}}, Pod)


def admitted(pod: Pod) -> object:
    return admit(pod, CATALOG, scheduler_name="hami-scheduler", force_overwrite=True)


def test_a_count_is_all_there_is_to_ask() -> None:
    """Cards or dies, whichever the node lists."""
    pod = a_va_pod({VA: "2"})
    (container,) = pod_demand(pod, CATALOG)
    answer = admitted(pod)

    assert (Demand(vendor="Vastai", count=2, memory=Exactly(0), percent_hint=100),) == container.demands
    assert isinstance(answer, Admit)
    assert ("hami-scheduler", ()) == (answer.scheduler_name, answer.needs)


@pytest.mark.parametrize("written", ["1.5", "-1", "3G"])
def test_a_count_that_cannot_be_meant_is_refused(written: str) -> None:
    """With what to write instead."""
    answer = admitted(a_va_pod({VA: written}))

    assert isinstance(answer, Deny)
    assert answer.message.startswith(f"{VA} {written} in container c0 cannot be read: write a whole number of cards")


@pytest.mark.parametrize(
    ("facts", "aic"), [(',"AIC":"7"', "7"), ("", None), (',"AIC":7', None), (',"AIC":"7","DeviceStrategy":"x"', None)]
)
def test_a_die_names_its_card(facts: str, aic: str | None) -> None:
    """As a text; whatever else stands there is no name, and a node that lists whole cards has no dies."""
    (die,) = published(f"[{DIE % facts}]")

    assert VASTAI.group is not None
    assert (100, aic) == (die.cores, VASTAI.group(die))


def test_garbage_rejects_the_nodes_cards() -> None:
    """``custominfo`` that is no object, for one."""
    with pytest.raises(MalformedInventory, match="card 0 has custominfo"):
        published('[{"id":"7-0","custominfo":"die"}]')


def published(text: str) -> tuple[Device, ...]:
    annotations = {"hami.io/node-va-register": text}
    node = msgspec.convert({"metadata": {"name": "node-1", "annotations": annotations}}, Node)
    return VASTAI.discover(VASTAI, node)
