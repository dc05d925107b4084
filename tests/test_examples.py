"""The examples: each folder is a fleet and the pods for it, and all fleets fit into one cluster."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hami_model.demands import pod_demand
from hami_model.objects import Pod
from hami_model.request import asks_for_devices
from hami_testkit.builders import a_catalog
from hami_testkit.demo import example_folders, manifests
from msgspec import convert

EXAMPLES = Path(__file__).parents[1] / "examples"
FOLDERS = example_folders(EXAMPLES)


def pods_of(folder: Path) -> list[Any]:
    return [pod for file in manifests([folder]) for pod in yaml.safe_load_all(file.read_text())]


def test_every_folder_is_a_demo() -> None:
    """None lacks its fleet."""
    assert sorted(found for found in EXAMPLES.iterdir() if found.is_dir()) == FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_manifest_asks_for_devices(folder: Path) -> None:
    """Each pod of the folder asks for cards of a vendor that the chart knows."""
    pods = pods_of(folder)

    assert pods
    assert all(asks_for_devices(pod_demand(convert(pod, Pod), a_catalog())) for pod in pods)


def test_all_fleets_fit_into_one_cluster() -> None:
    """No two nodes and no two pods share a name."""
    nodes = [node for folder in FOLDERS for node in yaml.safe_load((folder / "nodes.yaml").read_text())["items"]]
    named = Counter(
        (kind, thing["metadata"]["name"])
        for kind, things in (("node", nodes), ("pod", [pod for folder in FOLDERS for pod in pods_of(folder)]))
        for thing in things
    )

    assert [] == [name for name, times in named.items() if times > 1]
