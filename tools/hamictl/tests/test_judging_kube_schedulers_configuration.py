"""The doctor reads kube-scheduler's configuration and refuses what would lose pods or time."""

from typing import Any

import pytest
import yaml
from hami_testkit.builders import a_catalog
from hami_testkit.stack import scheduler_config
from hamictl.doctor.scheduler import Wanted, check

WANTED = Wanted(scheduler="hami-scheduler", catalog=a_catalog(), bind_timeout=28)


def good() -> dict[str, Any]:
    config = scheduler_config("http://127.0.0.1:8080")
    config["profiles"] = [{"schedulerName": "hami-scheduler", "percentageOfNodesToScore": 100}]
    return config


def found(config: dict[str, Any]) -> list[str]:
    return [finding.rule for finding in check("config.yaml", yaml.safe_dump(config), WANTED)]


def with_extender(**fields: Any) -> dict[str, Any]:
    config = good()
    config["extenders"][0] |= fields
    return config


def test_the_configuration_of_the_documentation() -> None:
    """Nothing is wrong with it, however the time is written."""
    assert [] == found(good())
    assert [] == found(with_extender(httpTimeout="0.5m"))


@pytest.mark.parametrize(("fields", "rule"), [
    ({"ignorable": True}, "extender-ignorable"),
    ({"bindVerb": ""}, "extender-verbs"),
    ({"filterVerb": ""}, "extender-verbs"),
    ({"prioritizeVerb": "score"}, "extender-verbs"),
    ({"nodeCacheCapable": False}, "extender-nodes"),
    ({"httpTimeout": ""}, "extender-timeout"),
    ({"httpTimeout": "29s"}, "extender-timeout"),
    ({"httpTimeout": "soon"}, "extender-timeout"),
])  # fmt: skip
def test_an_extender_that_loses_pods(fields: dict[str, Any], rule: str) -> None:
    """Each with its own reason."""
    assert [rule] == found(with_extender(**fields))


def test_ignorable_is_refused_with_the_reason() -> None:
    """The sentence says what would happen."""
    (finding,) = check("c.yaml", yaml.safe_dump(with_extender(ignorable=True)), WANTED)

    assert "pods would be bound without devices" in finding.says
    assert "write `ignorable: false`" in finding.way_out


def test_resources_that_are_not_managed_or_are_counted() -> None:
    """A missing name lets pods pass us by; a counted one keeps them pending for ever."""
    config = good()
    managed = config["extenders"][0]["managedResources"]
    managed[:] = [each for each in managed if each["name"] != "nvidia.com/gpumem"]
    managed[0]["ignoredByScheduler"] = False

    assert ["extender-resources", "resources-counted"] == found(config)
    assert [] == found(with_extender(managedResources=[]))


def test_somebody_elses_extender_is_left_alone() -> None:
    """It neither binds nor manages what is ours."""
    config = good()
    config["extenders"].append({"urlPrefix": "http://other", "filterVerb": "f", "ignorable": True})

    assert [] == found(config)
    config["extenders"].pop(0)
    assert ["extender-missing"] == found(config)


def test_nodes_that_are_never_offered() -> None:
    """By default kube-scheduler stops looking early; the profile's word counts before the general one."""
    config = good()
    config["profiles"][0].pop("percentageOfNodesToScore")
    assert ["nodes-hidden"] == found(config)
    assert [] == found(config | {"percentageOfNodesToScore": 100})
    config["profiles"][0]["percentageOfNodesToScore"] = 50
    assert ["nodes-hidden"] == found(config | {"percentageOfNodesToScore": 100})


@pytest.mark.parametrize("text", ["", "[", "kind: Pod", "kind: KubeSchedulerConfiguration\nprofiles: 7", "{" * 2000])
def test_a_configuration_that_is_none(text: str) -> None:
    """One finding, whatever it is."""
    assert ["scheduler-config"] == [finding.rule for finding in check("c.yaml", text, WANTED)]
