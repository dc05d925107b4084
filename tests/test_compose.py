"""compose.yaml says what the chart and the guides say: the same images, rights on the bus, and scheduler."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hami_testkit.parts import scheduler_config
from hami_testkit.processes import BIN

ROOT = Path(__file__).parents[1]
STACK: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("hami/")}
FILES = ROOT / "deploy" / "compose"
NATS = (FILES / "nats.conf").read_text()


def test_it_runs_the_images_that_make_builds() -> None:
    """Of every one at least a container, of the version that the project has."""
    built = re.findall(r"^IMAGES := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
    (version,) = re.findall(r"^appVersion: (\S+)$", (ROOT / "deploy/chart/hami/Chart.yaml").read_text(), re.MULTILINE)

    assert {f"hami/{name}:${{HAMI_TAG:-{version}}}" for name in built} == {s["image"] for s in OURS.values()}


def test_its_users_of_the_bus_have_the_rights_of_the_page() -> None:
    """Each service its own user, with the subjects that the reference gives it and its inbox."""
    page = (ROOT / "docs/reference/bus.md").read_text().partition("## Who may do what")[2]
    told = {
        user: [set(re.findall(r"`([^`]+)`", cell)) for cell in cells.split(" | ")]
        for user, cells in re.findall(r"^\| `(\S+)` \| (.*) \|$", page, re.MULTILINE)
    }
    entry = r"user: (\S+), password: \$PASSWORD\s+permissions \{\s+publish: (\[[^\]]*\])\s+subscribe: (\[[^\]]*\])"
    given = {
        user: [set(json.loads(may)), set(json.loads(hears)) - {"_INBOX.>", "$SRV.>"}]
        for user, may, hears in re.findall(entry, NATS)
    }

    assert given == told


def test_nats_reads_its_configuration(tmp_path: Path) -> None:
    """As the server itself says."""
    checked = subprocess.run(
        [BIN / "nats-server", "-t", "-c", FILES / "nats.conf"],
        env={**os.environ, "PASSWORD": "x"}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert "is valid" in checked.stderr, checked.stderr


def test_each_service_says_who_it_is() -> None:
    """By the user in its URL of the bus."""
    users = {
        name: re.findall(r"nats://([\w-]+):", s.get("environment", {}).get("HAMI_NATS_URL", ""))
        for name, s in OURS.items()
    }
    of_agents = {name: ["node-agent"] for name in SERVICES if name.startswith("agent-")}

    assert {name: [name] for name in ("webhook", "extender", "allocator")} | of_agents == {
        name: found for name, found in users.items() if found
    }


def test_the_scheduler_asks_the_extender_about_every_resource() -> None:
    """On its loopback, where the extender asks nobody who they are."""
    assert scheduler_config("http://127.0.0.1:8080") == yaml.safe_load((FILES / "scheduler.yaml").read_text())
    assert "service:cluster" == SERVICES["extender"]["network_mode"]


@pytest.mark.parametrize("name", sorted({*OURS, "nats"}))
def test_nothing_of_ours_may_do_more_than_it_must(name: str) -> None:
    """No capability, no writing outside volumes; root only where folders are root's."""
    service = SERVICES[name]

    assert service["read_only"]
    assert ["ALL"] == service["cap_drop"]
    assert ("user" in service) == (name in {"nats", "cluster", "agent-gpu-a", "agent-gpu-b"})


def test_every_file_that_it_names_is_there() -> None:
    """Configurations, and folders of this repository that it mounts."""
    named = [config["file"] for config in STACK["configs"].values()]
    mounted = [v.partition(":")[0] for s in SERVICES.values() for v in s.get("volumes", []) if v.startswith("./")]

    assert [] == [name for name in (*named, *mounted) if not (ROOT / name).exists()]


def test_what_watches_the_stack_asks_its_services() -> None:
    """Prometheus, the collector and Grafana name services that run beside them, and the ports that these have."""
    files = ("prometheus.yaml", "collector.yaml", "grafana/datasources.yaml")
    read = {name: (FILES / name).read_text() for name in files}
    asked = {host for text in read.values() for host in re.findall(r"[\"/ ]([a-z][a-z-]*):[0-9]{4,5}", text)}
    jobs = yaml.safe_load(read["prometheus.yaml"])["scrape_configs"]
    asked |= {name for job in jobs for each in job.get("dns_sd_configs", []) for name in each["names"]}

    assert {"webhook", "cluster", "agent-gpu-a", "agent-gpu-b", "allocator", "jaeger", "prometheus"} == asked
    assert asked <= set(SERVICES)
    health = {s["environment"]["HAMI_HEALTH_LISTEN"].rpartition(":")[2] for s in OURS.values() if "environment" in s}
    assert health == set(re.findall(r":\s?(9[0-9]{3})\b", read["prometheus.yaml"]))
