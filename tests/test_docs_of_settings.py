"""The page about settings leaves nothing out: every variable that a service reads has its row."""

import re
from pathlib import Path

import pytest
from hami_allocator.settings import AllocatorSettings
from hami_extender.settings import ExtenderSettings
from hami_kit.settings import Help, load
from hami_node_agent.settings import Settings as NodeAgentSettings
from hami_webhook.settings import WebhookSettings
from msgspec import Struct

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "settings.md").read_text()


@pytest.mark.parametrize("settings", [AllocatorSettings, ExtenderSettings, NodeAgentSettings, WebhookSettings])
def test_the_page_has_every_variable_of_a_service(settings: type[Struct]) -> None:
    """What ``--help`` lists stands in the page; OpenTelemetry's own variables stand there together."""
    with pytest.raises(Help) as told:
        load(settings, ["--help"], {})
    variables = set(re.findall(r"\b(?:HAMI_\w+|KUBECONFIG)\b", str(told.value)))

    assert [] == sorted(name for name in variables if f"`{name}`" not in PAGE)
