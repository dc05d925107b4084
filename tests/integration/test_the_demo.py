"""``hami-demo`` as a person runs it: what it promises is in its report, and it leaves nothing behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hami_testkit.demo_report import Report

pytestmark = pytest.mark.timeout(120)

Json = Any
BIN = Path(sys.executable).parent
DEADLINE = 90
MARK = "A_DEMO_OF_THE_TESTS"
"""A variable that every process of one demo inherits, so that those left over can be found."""


class Demo:
    """One run of the program, in a folder that is not the repository."""

    def __init__(self, folder: Path) -> None:
        self.cwd = folder / "elsewhere"
        self.cwd.mkdir()
        self.report_file = self.cwd / "report.json"
        self.mark = f"{MARK}={uuid.uuid4()}"
        self.env = {**_clean(), "XDG_STATE_HOME": str(folder / "state"), MARK: self.mark.partition("=")[2]}
        self.said = ""

    def run(self, *options: str) -> int:
        """Run the program to its end."""
        command = [str(BIN / "hami-demo"), *options]
        done = subprocess.run(
            command, cwd=self.cwd, env=self.env, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        self.said = done.stdout + done.stderr
        return done.returncode

    @property
    def report(self) -> Json:
        return json.loads(self.report_file.read_text())

    def placed(self, name: str) -> Json:
        return next(pod for pod in self.report["placed"] if pod["name"] == name)

    def cards(self, name: str) -> list[str]:
        return [device["id"] for device in self.placed(name)["devices"]]

    def folder(self) -> Path:
        """Return the folder of the demo's processes, read from what a container was told."""
        (cache,) = (env["CUDA_DEVICE_MEMORY_SHARED_CACHE"] for env in self.placed("whole-card")["env"].values())
        return Path(*Path(cache).parts[:3])

    def still_running(self) -> list[str]:
        """Return the command lines of processes that this demo started."""
        return [line for pid, line in _processes() if self.mark in _environment_of(pid)]


def _clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("HAMI_", "OTEL_", "KUBECONFIG"))}


def _processes() -> Iterator[tuple[str, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if line:
            yield folder.name, line.replace(b"\0", b" ").decode(errors="replace")


def _environment_of(pid: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo that was left running; whoever reads it changes nothing that others read."""
    demo = Demo(tmp_path_factory.mktemp("kept"))
    try:
        assert 0 == demo.run("--keep", "--report", str(demo.report_file)), demo.said
        demo.env |= dict(
            line.strip().removeprefix("export ").split("=", 1)
            for line in demo.said.splitlines()
            if line.strip().startswith(("export HAMI_", "export KUBECONFIG"))
        )
        yield demo
    finally:
        stopped = demo.run("--stop")

    assert 0 == stopped, demo.said
    assert [] == demo.still_running()
    assert not demo.folder().exists()
    assert 0 == demo.run("--stop")
    assert "no demo was left running\n" == demo.said


# what the report promises


def test_the_report_has_the_promised_shape(kept: Demo) -> None:
    """Placed pods with devices, environment and trace; refused ones with a reason for each card; nothing else."""
    report = kept.report

    msgspec.convert(report, Report, strict=True)
    assert {"placed", "refused", "seconds"} == set(report)
    assert 0 < report["seconds"]
    for pod in report["placed"]:
        assert {"name", "namespace", "node", "devices", "env", "trace"} == set(pod)
        assert {"name", "ms", "children"} == set(pod["trace"])
        assert all({"container", "id", "memory_mib", "cores"} == set(device) for device in pod["devices"])
    assert all({"name", "nodes"} == set(pod) for pod in report["refused"])


def names(tree: Json) -> list[str]:
    return [tree["name"], *(name for child in tree["children"] for name in names(child))]


def test_every_pod_has_its_whole_trace(kept: Demo) -> None:
    """From admission to confirmation; where our agent serves the node, Allocate too."""
    for pod in kept.report["placed"]:
        way = {"webhook", "filter", "bind", "confirm"} | ({"Allocate"} if pod["node"].startswith("gpu-") else set())

        assert way <= set(names(pod["trace"])), pod["name"]


def test_two_halves_share_a_card_and_the_third_goes_elsewhere(kept: Demo) -> None:
    """Packing fills one card before it opens another."""
    halves = [kept.cards(f"packed-half-{i}") for i in (1, 2, 3)]

    assert halves[0] == halves[1]
    assert halves[0] != halves[2]
    assert {20480} == {d["memory_mib"] for i in (1, 2, 3) for d in kept.placed(f"packed-half-{i}")["devices"]}


def test_spread_pods_stand_on_two_nodes(kept: Demo) -> None:
    """The second goes where the first is not."""
    assert {"gpu-a", "gpu-b"} == {kept.placed(name)["node"] for name in ("spread-1", "spread-2")}


def test_a_whole_card_belongs_to_one_pod(kept: Demo) -> None:
    """All of its cores, all of its memory, and nobody else on it."""
    (card,) = kept.placed("whole-card")["devices"]
    holders = Counter(device["id"] for pod in kept.report["placed"] for device in pod["devices"])

    assert (100, 46068) == (card["cores"], card["memory_mib"])
    assert 1 == holders[card["id"]]


def test_each_container_sees_its_own_slice(kept: Demo) -> None:
    """Two containers, two limits, and each sees the card that it was given."""
    pod = kept.placed("trainer-and-server")
    given = {device["container"]: device["id"] for device in pod["devices"]}
    limits = {container: env["CUDA_DEVICE_MEMORY_LIMIT_0"] for container, env in pod["env"].items()}

    assert {"trainer": "8000m", "server": "2000m"} == limits
    assert given == {container: env["NVIDIA_VISIBLE_DEVICES"] for container, env in pod["env"].items()}


def test_two_cards_of_half_their_memory(kept: Demo) -> None:
    """The example of HAMi's own repository."""
    devices = kept.placed("gpu-test3-01")["devices"]
    env = kept.placed("gpu-test3-01")["env"]["gpu-test"]

    assert 2 == len({device["id"] for device in devices})
    assert [(20480, 30)] * 2 == [(device["memory_mib"], device["cores"]) for device in devices]
    assert [device["id"] for device in devices] == env["NVIDIA_VISIBLE_DEVICES"].split(",")
    assert "20480m" == env["CUDA_DEVICE_MEMORY_LIMIT_0"] == env["CUDA_DEVICE_MEMORY_LIMIT_1"]


def test_cards_are_chosen_by_model_and_by_uuid(kept: Demo) -> None:
    """gpu-a has A40 cards, gpu-b has A100."""
    assert "gpu-a" == kept.placed("only-a40")["node"]
    assert "gpu-b" == kept.placed("anything-but-a40")["node"]
    assert ["GPU-2e240d3e-69be-8cec-3ffc-d9da5cc7b8c3"] == kept.cards("this-very-card")
    assert ["GPU-cfca7d85-be74-7c22-4385-6fd15d698cb4"] != kept.cards("not-that-card")


def test_the_pod_that_never_fits_is_refused_card_by_card(kept: Demo) -> None:
    """Each card says what was wanted and what it had; nodes without such cards say so."""
    (refused,) = kept.report["refused"]
    of_gpus = [reason for node in ("gpu-a", "gpu-b") for reason in refused["nodes"][node].values()]

    assert "never-fits" == refused["name"]
    assert {"gpu-a", "gpu-b", "ascend-910", "ascend-310p", "mlu-a"} == set(refused["nodes"])
    assert 8 == len(of_gpus)
    assert all(r.startswith("CardInsufficientMemory: wanted 200000 MiB, had ") for r in of_gpus), of_gpus
    assert {"*": "NodeInsufficientDevice"} == refused["nodes"]["mlu-a"]


def test_ascend_chips_are_cut_by_template(kept: Demo) -> None:
    """16 GiB is a template of its own; 4 GiB is rounded up to the next; a whole card has none."""
    assert "vir05_1c_16g" == kept.placed("ascend-inference")["env"]["mindspore-app"]["ASCEND_VNPU_SPECS"]
    assert "vir02" == kept.placed("ascend-edge-inference")["env"]["edge-app"]["ASCEND_VNPU_SPECS"]
    assert [6144] == [device["memory_mib"] for device in kept.placed("ascend-edge-inference")["devices"]]
    assert ["ascend-910", "ascend-910", "ascend-310p"] == [kept.placed(f"pod{i}")["node"] for i in (1, 2, 3)]


def test_an_mlu_is_sliced(kept: Demo) -> None:
    """16 units of 256 MiB."""
    (card,) = kept.placed("mlu-inference")["devices"]

    assert (4096, 50) == (card["memory_mib"], card["cores"])


# the kept demo answers


def command(kept: Demo, *arguments: str, text: str = "") -> str:
    done = subprocess.run(
        arguments, cwd=kept.cwd, env=kept.env, input=text, capture_output=True, text=True, timeout=30, check=False
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def hamictl(kept: Demo, *arguments: str) -> str:
    return command(kept, str(BIN / "hamictl"), *arguments)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nodes"], "GPU-2e240d3e-69be-8cec-3ffc-d9da5cc7b8c3"),
        (["pods"], "trainer-and-server"),
        (["explain", "never-fits"], "CardInsufficientMemory"),
        (["trace", "whole-card"], "Allocate"),
        (["events"], "default/whole-card"),
    ],
    ids=lambda v: v[0] if isinstance(v, list) else "",
)
def test_hamictl_answers_people_and_programs(kept: Demo, arguments: list[str], word: str) -> None:
    """A table for the one, JSON for the other; both name what was asked for."""
    as_json = hamictl(kept, *arguments, "-o", "json")
    documents = as_json.splitlines() if arguments == ["events"] else [as_json]

    assert word in hamictl(kept, *arguments)
    assert all(json.loads(document) for document in documents)
    assert word in as_json


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed; the API itself is tested over HTTP"
)
def test_kubectl_gets_creates_and_deletes(kept: Demo) -> None:
    """The kept cluster is a cluster."""
    kubectl = ("kubectl", f"--cache-dir={kept.cwd}")
    limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "100"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "by-kubectl"},
        "spec": {"containers": [{"name": "main", "image": "app", "resources": {"limits": limits}}]},
    }

    assert "whole-card" in command(kept, *kubectl, "get", "pods", "-o", "wide")
    command(kept, *kubectl, "create", "--validate=false", "-f", "-", text=json.dumps(pod))
    command(kept, *kubectl, "wait", "--for=jsonpath={.status.phase}=Running", "pod/by-kubectl", "--timeout=20s")
    assert "by-kubectl" in hamictl(kept, "pods")
    command(kept, *kubectl, "delete", "pod", "by-kubectl", "--wait=true")
    assert "by-kubectl" not in command(kept, *kubectl, "get", "pods")


def test_a_second_demo_is_not_kept_beside_the_first(kept: Demo) -> None:
    """Else nothing would know how to stop the first."""
    assert 1 == kept.run("--keep")
    assert "a demo already runs" in kept.said


# and leaves nothing behind


def test_a_demo_stops_all_that_it_started(tmp_path: Path) -> None:
    """No process, no folder; and it says how long it took."""
    demo = Demo(tmp_path)
    code = demo.run("--report", str(demo.report_file))

    assert 0 == code, demo.said
    assert "stopped everything; the whole took" in demo.said
    assert [] == demo.still_running()
    assert not demo.folder().exists()
    assert ["report.json"] == [file.name for file in demo.cwd.iterdir()]


def test_an_interrupted_demo_stops_all_that_it_started(tmp_path: Path) -> None:
    """Told to stop in the middle."""
    demo = Demo(tmp_path)
    process = subprocess.Popen(
        [str(BIN / "hami-demo")], cwd=demo.cwd, env={**demo.env, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"started ")
        process.send_signal(signal.SIGTERM)
        said = process.stdout.read().decode()

    assert 130 == process.returncode, said
    assert "interrupted; stopped everything" in said
    assert [] == demo.still_running()
