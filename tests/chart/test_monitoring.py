"""Alerts and dashboards: they ask for metrics that we have, and can be read."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import ProcessCollector

from tests.chart.rendering import CHART, render

PAGE = (CHART.parents[2] / "docs" / "reference" / "metrics.md").read_text()
ALERTS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
ON = "prometheus.enabled=true,prometheus.assumeCRDs=true"


def metrics_in(query: str) -> set[str]:
    return set(re.findall(r"\b(?:hami|process|python)_[a-z_]+\b", query))


def documented() -> set[str]:
    """Return what the page names, and what the client library measures of every process."""
    own = {sample.name for metric in ProcessCollector(registry=None).collect() for sample in metric.samples}
    return metrics_in(PAGE) | own


def queries(found: Any) -> Iterator[str]:
    """Yield every query of a dashboard, however deep it stands."""
    if isinstance(found, dict):
        yield from (value for key, value in found.items() if key in ("expr", "query") and isinstance(value, str))
        found = list(found.values())
    if isinstance(found, list):
        for item in found:
            yield from queries(item)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_asks_for_metrics_that_we_have_and_says_what_to_do(alert: dict[str, Any]) -> None:
    """A metric that is misspelled never fires."""
    asked = metrics_in(alert["expr"])

    assert asked
    assert set() == asked - documented()
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"]["summary"].endswith(".")
    assert alert["annotations"]["description"].endswith(".")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_asks_for_metrics_that_we_have(path: Path) -> None:
    """A panel of an unknown metric stays empty."""
    asked = {name for query in queries(json.loads(path.read_text())) for name in metrics_in(query)}

    assert len(asked) > 3
    assert set() == asked - documented()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_two_allocators_count_once(path: Path) -> None:
    """Leader and followers show the same fleet: a bare sum would count each card as often as allocators run."""
    fleet = r"sum(?: by \(\w+\))? ?\(hami_(?:gpu|node_gpu|resource_quota|vgpu_memory_allocated|vgpu_core_allocated)"

    assert [] == [query for query in queries(json.loads(path.read_text())) if re.search(fleet, query)]


def test_dashboards_and_rules_reach_the_cluster_as_they_are() -> None:
    """In ConfigMaps for Grafana's sidecar, and a PrometheusRule."""
    found = render(ON, "dashboards.enabled=true")
    maps = [o for o in found.of("ConfigMap") if "grafana_dashboard" in o["metadata"]["labels"]]

    assert {path.name: path.read_text() for path in DASHBOARDS} == {
        name: text for one in maps for name, text in one["data"].items()
    }
    assert ALERTS == found.one("PrometheusRule", "hami")["spec"]["groups"][0]["rules"]


def test_labels_of_workloads_are_kept() -> None:
    """Series of a pod carry the pod's namespace and name, not the scraped service's; HAMi-WebUI looks for them."""
    monitors = render(ON).of("ServiceMonitor")

    assert 4 == len(monitors)
    assert [True] * 4 == [monitor["spec"]["endpoints"][0]["honorLabels"] for monitor in monitors]


def test_each_monitor_chooses_one_service_and_a_port_of_it() -> None:
    """Or Prometheus would scrape nothing, or twice."""
    found = render(ON)
    for monitor in found.of("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        port = monitor["spec"]["endpoints"][0]["port"]
        chosen = [
            service["metadata"]["name"]
            for service in found.of("Service")
            if wanted <= service["metadata"]["labels"].items() and port in {p["name"] for p in service["spec"]["ports"]}
        ]
        assert (monitor["metadata"]["name"], 1) == (monitor["metadata"]["name"], len(chosen))


def test_without_the_operator_no_monitor_is_made_and_the_notes_say_so() -> None:
    """The cluster is asked, as HAMi does."""
    found = render("prometheus.enabled=true")

    assert [] == found.of("ServiceMonitor") + found.of("PrometheusRule")
    assert "this cluster knows no ServiceMonitor: none was made" in found.notes


def test_the_page_has_every_alert() -> None:
    """With what it fires on, as Prometheus reads it."""
    page = (CHART.parents[2] / "docs" / "how-to" / "monitor.md").read_text()

    assert [] == [
        a["alert"] for a in ALERTS if f"| `{a['alert']}` ({a['labels']['severity']}) | `{a['expr']}`" not in page
    ]
