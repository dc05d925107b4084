"""What the kubelet is answered for a container, against HAMi's device plugin (``vectors/allocate``).

The node-agent is wired as it is at its start: settings, device config and ``config.json`` in, the protocol's own
message out. What admission writes into the container counts too: the kubelet puts it after the plugin's variables.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hami_kit.kubelet import deviceplugin_v1beta1_pb2 as pb
from hami_kit.settings import load, load_device_config
from hami_model import vendors
from hami_model.admission import Admit, admit
from hami_model.allocation import Grant
from hami_model.config import DeviceConfig, Nvidia
from hami_model.objects import Container, Pod
from hami_model.patch import changed
from hami_node_agent.bootstrap import limiters
from hami_node_agent.edits import Edits
from hami_node_agent.inventory import Inventory
from hami_node_agent.limits import Limiter, Receiver
from hami_node_agent.node_config import NodeConfig
from hami_node_agent.plugin import Plugin
from hami_node_agent.probes import CardFacts
from hami_node_agent.settings import Settings
from hami_testkit.builders import a_card
from msgspec import convert

from tests.compat import rules

FOLDER = rules.VECTORS / "allocate"
CHART = rules.VECTORS / "settings/device-config.yaml"
PLAIN = json.loads((FOLDER / "plain.json").read_text())
CARDS = ("GPU-a", "GPU-b")
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


CASES = [
    pytest.param(case, id=f"{file}: {case['name']}")
    for file in ("limits", "mounts", "strategies")
    for case in json.loads((FOLDER / f"{file}.json").read_text())
]


@pytest.mark.parametrize("case", CASES)
async def test_the_kubelet_is_answered_as_by_hamis_plugin(case: dict[str, Any], tmp_path: Path) -> None:
    """Variables, mounts in order, device nodes, annotations and CDI names; then what the container sees of it."""
    expect = case.get("expect", {})
    envs = {name: value for name, value in {**PLAIN["envs"], **expect.get("envs", {})}.items() if value is not None}

    found, container = await answered(host(case, tmp_path), case)

    assert {**PLAIN, **expect, "envs": envs, "container": {**envs, **expect.get("container", {})}} == {
        **shown(found, tmp_path),
        "container": {**shown(found, tmp_path)["envs"], **env_of(container)},
    }


def host(case: dict[str, Any], root: Path) -> Path:
    """Lay down the files that the case finds on the host."""
    for name in case.get("host", ()):
        path = Path(name.replace("H", str(root), 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


async def answered(root: Path, case: dict[str, Any]) -> tuple[pb.ContainerAllocateResponse, Container]:
    """Return the answer to Allocate, and the container as admission left it."""
    file = root / "device-config.yaml"
    chart = yaml.safe_load(CHART.read_text())
    file.write_text(yaml.safe_dump({**chart, "nvidia": {**chart["nvidia"], **case.get("config", {})}}))
    config = load_device_config(file)
    container = admitted(config, case)
    cards = [Grant(uuid=uuid, vendor="NVIDIA", memory=memory, cores=cores) for uuid, memory, cores in given(case)]
    receiver = Receiver(uid="uid-p", name="main", spec=container)
    desk: Any = Desk(limiter(root, config, case), receiver, cards)
    request = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=["any"])])
    (answer,) = (await Plugin(desk, desk).Allocate(request, None)).container_responses
    return answer, container


def given(case: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [tuple(card) for card in case.get("cards", [["GPU-a", 3000, 30]])]


def limiter(root: Path, config: DeviceConfig, case: dict[str, Any]) -> Limiter:
    """Wire what makes the answers, as ``bootstrap`` does."""
    environment = {name: value.replace("H/", f"{root}/") for name, value in case.get("settings", {}).items()}
    settings = load(Settings, [], {"HAMI_NODE_NAME": "n1", "HAMI_HOOK_PATH": str(root), **environment})
    entry = {"name": "n1", **case.get("node", {})}
    (root / "config.json").write_text(json.dumps({"nodeconfig": [entry]}))
    node_config = NodeConfig(config.nvidia or Nvidia(), node="n1", path=root / "config.json")
    _ = node_config.rules
    facts = {uuid: CardFacts(minor=at) for at, uuid in enumerate(CARDS)}
    probe: Any = SimpleNamespace(facts=facts)
    inventory = Inventory(probe, tuple(a_card(uuid, index=at) for at, uuid in enumerate(CARDS)))
    return limiters(settings, config, node_config, inventory)["NVIDIA"]


def admitted(config: DeviceConfig, case: dict[str, Any]) -> Container:
    """Return the container with what admission adds."""
    catalog = vendors.build(config, ascend=True, iluvatar=True)
    limits = {"nvidia.com/gpu": str(len(given(case))), **case.get("limits", {})}
    env = [{"name": name, "value": value} for name, value in case.get("env", {}).items()]
    container = {"name": "main", "resources": {"limits": limits, "requests": limits}, "env": env}
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [container]}}
    answer = admit(convert(pod, Pod), catalog, scheduler_name="hami-scheduler", force_overwrite=True)
    assert isinstance(answer, Admit)
    return convert(changed(pod, answer.changes), Pod).containers[0]


class Desk:
    """Knows whose Allocate it is, and what that container was given."""

    def __init__(self, limiter: Limiter, receiver: Receiver, cards: Sequence[Grant]) -> None:
        self._limiter, self._receiver, self._cards = limiter, receiver, cards

    async def allocate(self, _ids: Sequence[str]) -> Edits:
        return self._limiter(self._receiver, self._cards)


def shown(answer: pb.ContainerAllocateResponse, root: Path) -> dict[str, Any]:
    """Write an answer as the vectors do."""
    told = {
        "envs": dict(answer.envs),
        "mounts": [[m.host_path, m.container_path, "ro" if m.read_only else "rw"] for m in answer.mounts],
        "devices": [[d.host_path, d.container_path, d.permissions] for d in answer.devices],
        "annotations": dict(answer.annotations),
        "cdi": [device.name for device in answer.cdi_devices],
    }
    text = UUID4.sub("<uuid4>", json.dumps(told).replace(str(root), "H"))
    return dict(json.loads(text))


def env_of(container: Container) -> dict[str, str]:
    return {env.name: env.value or "" for env in container.env or ()}
