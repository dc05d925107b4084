"""Our defaults against the device config that HAMi's chart renders."""

import yaml
from hami_model import config

from tests.compat import rules


def test_the_defaults_are_what_the_chart_renders() -> None:
    """Without a device config file everything has the names and sizes of an untouched HAMi."""
    rendered = yaml.safe_load((rules.VECTORS / "settings/device-config.yaml").read_text())

    assert config.parse(rendered) == config.DEFAULTS
