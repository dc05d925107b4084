"""The webhook's configuration in the guide sees every pod that asks for devices, and no other."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hami_testkit.builders import a_catalog
from hami_testkit.cluster.conditions import all_hold

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs/how-to/run-the-services.md").read_text()
CONFIGURATION = GUIDE.partition("## The webhook")[2].partition("```yaml\n")[2].partition("```")[0]
(WEBHOOK,) = yaml.safe_load(CONFIGURATION)["webhooks"]
NAMES = sorted({vendor.resources.count for vendor in a_catalog().vendors})


def is_seen(**spec: Any) -> bool:
    """Say whether the webhook sees a pod."""
    return all_hold(WEBHOOK, {"object": {"kind": "Pod", "spec": spec}, "oldObject": None})


def asking(**resources: dict[str, str]) -> dict[str, Any]:
    """Return a container."""
    return {"name": "main", "image": "app", **({"resources": resources} if resources else {})}


@pytest.mark.parametrize("name", NAMES)
def test_whoever_asks_is_seen(name: str) -> None:
    """In limits, in requests alone, or in an init container."""
    assert is_seen(containers=[asking(), asking(limits={"cpu": "1", name: "1"})])
    assert is_seen(containers=[asking(requests={name: "1"})])
    assert is_seen(containers=[asking(limits={"cpu": "1"}, requests={"cpu": "1", name: "1"})])
    assert is_seen(containers=[asking()], initContainers=[asking(limits={name: "1"})])


def test_other_pods_are_none_of_its_business() -> None:
    """So they are created while it is away."""
    assert not is_seen(containers=[asking()])
    assert not is_seen(containers=[asking(limits={"cpu": "1", "ephemeral-storage": "1Gi"}, requests={"memory": "1Gi"})])
    assert not is_seen(containers=[asking()], initContainers=[asking(limits={"example.com/fpga": "1"})])
