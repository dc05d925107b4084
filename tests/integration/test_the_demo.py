"""``hami-demo`` as a person runs it: what its report promises is so, and however it ends, nothing is left."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
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

FROM_OUTSIDE = {
    "KUBECONFIG": "/nowhere/kubeconfig", "HAMI_NATS_URL": "nats://nowhere.invalid:1", "HAMI_SCHEDULER_NAME": "another",
    "HAMI_NODE_SCHEDULER_POLICY": "spread", "OTEL_SDK_DISABLED": "true", "HTTP_PROXY": "http://127.0.0.1:1",
    "http_proxy": "http://127.0.0.1:1", "COLUMNS": "80",
}  # fmt: skip
"""What a person may have set for other things: none of it reaches the demo's services."""

NODES = "{apiVersion: v1, kind: NodeList, items: [{metadata: {name: gpu-a}}]}"
CARDS = (
    "[{vendor: NVIDIA, id: GPU-0, count: 10, devmem: 40000, devcore: 100, type: A40, mode: hami-core, health: true}]"
)


class Demo:
    """One demo, in a folder that is not the repository."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.tmp = folder / "t"
        self.cwd = folder / "elsewhere"
        self.home = folder / "home"
        for made in (self.tmp, self.cwd, self.home):
            made.mkdir()
        self.options = options
        self.report_file = self.cwd / "report.json"
        self.mark = f"{MARK}={uuid.uuid4()}"
        self.env = {
            **os.environ,
            **FROM_OUTSIDE,
            "TMPDIR": str(self.tmp),
            "HOME": str(self.home),
            MARK: self.mark.partition("=")[2],
        }
        self.said = ""

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start the program."""
        command = [str(BIN / "hami-demo"), *self.options, *options]
        return subprocess.Popen(
            command, cwd=self.cwd, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *options: str) -> int:
        """Run the program to its end."""
        with self.start(*options) as process:
            self.said = process.communicate(timeout=DEADLINE)[0]
        return process.returncode

    @property
    def report(self) -> Json:
        return json.loads(self.report_file.read_text())

    def placed(self, name: str) -> Json:
        return next(pod for pod in self.report["placed"] if pod["name"] == name)

    def cards(self, name: str) -> list[str]:
        return [device["id"] for device in self.placed(name)["devices"]]

    def assert_nothing_is_left(self) -> None:
        """Look for processes that this demo started, for its folder, and for files at home."""
        deadline = time.monotonic() + 5  # the last one's parent may still have to take note of its end
        while left := [line for pid, line in _processes() if self.mark in _environment_of(pid)]:
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
        assert [] == [*self.tmp.iterdir(), *self.home.iterdir()]


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
def demo() -> Iterator[Demo]:
    """The demo with all its examples, run to its end."""
    with tempfile.TemporaryDirectory(prefix="d-", dir="/tmp") as folder:
        demo = Demo(Path(folder))
        code = demo.run("--report", "report.json")
        assert 0 == code, demo.said
        yield demo


@pytest.fixture
def small() -> Iterator[Demo]:
    """A demo of one node with one card, and of one pod."""
    with tempfile.TemporaryDirectory(prefix="d-", dir="/tmp") as name:
        examples = Path(name) / "examples"
        (examples / "nvidia" / "cards").mkdir(parents=True)
        (examples / "nvidia" / "nodes.yaml").write_text(NODES)
        (examples / "nvidia" / "cards" / "gpu-a.yaml").write_text(CARDS)
        (examples / "nvidia" / "p1.yaml").write_text(json.dumps(a_pod("p1")))
        yield Demo(Path(name), "--examples", str(examples))


def a_pod(name: str) -> Json:
    limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "100"}
    container = {"name": "main", "image": "app", "resources": {"limits": limits}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}


# what the report promises


def test_the_demo_stops_all_that_it_started(demo: Demo) -> None:
    """No process and no folder; the report is the only file it wrote; and it told all the time what it did."""
    said = demo.said.splitlines()

    demo.assert_nothing_is_left()
    assert ["report.json"] == [file.name for file in demo.cwd.iterdir()]
    assert said[0].startswith("starting NATS")
    assert "The checker read every node, pod and lock, and found nothing wrong." in said
    assert said[-1].startswith("stopped everything; the whole took")


def test_the_report_has_the_promised_shape(demo: Demo) -> None:
    """Placed pods with devices, environment and trace; refused ones with a reason for each card; nothing else."""
    report = demo.report

    msgspec.convert(report, Report, strict=True)
    assert {"placed", "refused", "seconds"} == set(report)
    assert 0 < report["seconds"]
    for pod in report["placed"]:
        assert {"name", "namespace", "node", "devices", "env", "trace"} == set(pod)
        assert "default" == pod["namespace"]
        assert pod["devices"]
        assert {device["container"] for device in pod["devices"]} == set(pod["env"])
        assert all({"container", "id", "memory_mib", "cores"} == set(device) for device in pod["devices"])
        assert all({"name", "ms", "children"} == set(span) for span in spans(pod["trace"]))
    assert all({"name", "nodes"} == set(pod) for pod in report["refused"])


def spans(tree: Json) -> list[Json]:
    return [tree, *(span for child in tree["children"] for span in spans(child))]


def test_every_pod_has_its_whole_trace(demo: Demo) -> None:
    """Webhook, then filter and bind below it, and below bind an Allocate for each container that our agent served."""
    for pod in demo.report["placed"]:
        steps = {span["name"]: span for span in pod["trace"]["children"]}
        served = [span["name"] for span in spans(steps["bind"])].count("Allocate")
        ours = pod["node"].startswith("gpu-")

        assert "webhook" == pod["trace"]["name"]
        assert {"filter", "bind", "confirm"} <= set(steps), pod["name"]
        assert (len(pod["env"]) if ours else 0) == served, pod["name"]


def test_two_halves_share_a_card_and_the_third_goes_elsewhere(demo: Demo) -> None:
    """Packing fills one card before it opens another."""
    halves = [demo.cards(f"packed-half-{i}") for i in (1, 2, 3)]

    assert halves[0] == halves[1]
    assert halves[0] != halves[2]
    assert {20480} == {d["memory_mib"] for i in (1, 2, 3) for d in demo.placed(f"packed-half-{i}")["devices"]}


def test_spread_pods_stand_on_two_nodes(demo: Demo) -> None:
    """The second goes where the first is not."""
    assert {"gpu-a", "gpu-b"} == {demo.placed(name)["node"] for name in ("spread-1", "spread-2")}


def test_a_whole_card_belongs_to_one_pod(demo: Demo) -> None:
    """All of its cores, all of its memory, and nobody else on it."""
    (card,) = demo.placed("whole-card")["devices"]
    holders = Counter(device["id"] for pod in demo.report["placed"] for device in pod["devices"])

    assert (100, 46068) == (card["cores"], card["memory_mib"])
    assert 1 == holders[card["id"]]


def test_each_container_sees_its_own_slice(demo: Demo) -> None:
    """Two containers, two limits, and each sees the card that it was given; the sidecar sees none."""
    pod = demo.placed("trainer-and-server")
    given = {device["container"]: device["id"] for device in pod["devices"]}
    limits = {container: env["CUDA_DEVICE_MEMORY_LIMIT_0"] for container, env in pod["env"].items()}

    assert {"trainer": "8000m", "server": "2000m"} == limits
    assert given == {container: env["NVIDIA_VISIBLE_DEVICES"] for container, env in pod["env"].items()}


def test_two_cards_of_half_their_memory(demo: Demo) -> None:
    """The example of HAMi's own repository."""
    devices = demo.placed("gpu-test3-01")["devices"]
    env = demo.placed("gpu-test3-01")["env"]["gpu-test"]

    assert 2 == len({device["id"] for device in devices})
    assert [(20480, 30)] * 2 == [(device["memory_mib"], device["cores"]) for device in devices]
    assert [device["id"] for device in devices] == env["NVIDIA_VISIBLE_DEVICES"].split(",")
    assert "20480m" == env["CUDA_DEVICE_MEMORY_LIMIT_0"] == env["CUDA_DEVICE_MEMORY_LIMIT_1"]


def test_cards_are_chosen_by_model_and_by_uuid(demo: Demo) -> None:
    """gpu-a has A40 cards, gpu-b has A100."""
    assert "gpu-a" == demo.placed("only-a40")["node"]
    assert "gpu-b" == demo.placed("anything-but-a40")["node"]
    assert ["GPU-2e240d3e-69be-8cec-3ffc-d9da5cc7b8c3"] == demo.cards("this-very-card")
    assert ["GPU-cfca7d85-be74-7c22-4385-6fd15d698cb4"] != demo.cards("not-that-card")


def test_the_pod_that_never_fits_is_refused_card_by_card(demo: Demo) -> None:
    """Each card says what was wanted and what it had; nodes without such cards say so."""
    (refused,) = demo.report["refused"]
    of_gpus = [reason for node in ("gpu-a", "gpu-b") for reason in refused["nodes"][node].values()]

    assert "never-fits" == refused["name"]
    assert {"gpu-a", "gpu-b", "ascend-910", "ascend-310p", "mlu-a"} == set(refused["nodes"])
    assert 8 == len(of_gpus)
    assert all(r.startswith("CardInsufficientMemory: wanted 200000 MiB, had ") for r in of_gpus), of_gpus
    assert [{"*": "NodeInsufficientDevice"}] * 3 == [
        refused["nodes"][n] for n in ("ascend-910", "ascend-310p", "mlu-a")
    ]


def test_ascend_chips_are_cut_by_template(demo: Demo) -> None:
    """16 GiB is a template of its own; 4 GiB is rounded up to the next; a whole card has none."""
    assert "vir05_1c_16g" == demo.placed("ascend-inference")["env"]["mindspore-app"]["ASCEND_VNPU_SPECS"]
    assert "vir02" == demo.placed("ascend-edge-inference")["env"]["edge-app"]["ASCEND_VNPU_SPECS"]
    assert [6144] == [device["memory_mib"] for device in demo.placed("ascend-edge-inference")["devices"]]
    assert ["ascend-910", "ascend-910", "ascend-310p"] == [demo.placed(f"pod{i}")["node"] for i in (1, 2, 3)]


def test_an_mlu_is_sliced(demo: Demo) -> None:
    """16 units of 256 MiB."""
    (card,) = demo.placed("mlu-inference")["devices"]

    assert (4096, 50) == (card["memory_mib"], card["cores"])


# one vendor


def test_one_vendors_demo_is_its_fleet_and_its_pods(small: Demo) -> None:
    """The nodes of its folder alone, and each of its manifests placed."""
    examples = Path(__file__).parents[2] / "examples"
    code = small.run("--examples", str(examples), "--vendor", "ascend", "--report", "report.json")

    assert 0 == code, small.said
    assert {"ascend-inference", "ascend-edge-inference", "pod1", "pod2", "pod3"} == {
        pod["name"] for pod in small.report["placed"]
    }
    assert {"ascend-910", "ascend-310p"} == {pod["node"] for pod in small.report["placed"]}
    assert [] == small.report["refused"]
    small.assert_nothing_is_left()


def test_a_vendor_without_examples_is_one_sentence(small: Demo) -> None:
    """It names those that there are."""
    assert 2 == small.run("--vendor", "voodoo")
    assert small.said.rstrip().endswith("--vendor voodoo: there are no such examples; write one of nvidia, all")


# several allocators


@pytest.mark.timeout(180)
def test_killing_the_leader_shows_a_pause_and_nothing_else(small: Demo) -> None:
    """Every pod that came meanwhile runs, somebody else leads, and the checker finds nothing."""
    cards = small.cwd.parent / "examples" / "nvidia" / "cards" / "gpu-a.yaml"
    cards.write_text(CARDS.replace("count: 10", "count: 40"))
    code = small.run("--allocators", "2", "--report", "report.json")
    assert 0 == code, small.said
    change = small.report["leader_change"]

    assert {"allocator", "allocator-2"} == {change["before"], change["after"]}
    assert 0 < change["pause"]
    assert 8 < len(change["pods"])
    assert all(f"runs   {name} on gpu-a" in small.said for name in change["pods"])
    assert "found nothing wrong" in small.said.split("Killing the leader")[1]
    small.assert_nothing_is_left()


def test_no_allocator_is_no_demo(small: Demo) -> None:
    """One at least."""
    assert 2 == small.run("--allocators", "0")
    assert '"0" is no number of allocators' in small.said


# left running


def exports(demo: Demo) -> dict[str, str]:
    """Return what a kept demo says to export."""
    lines = [line.split()[1] for line in demo.said.splitlines() if line.startswith("  export ")]
    return dict(line.split("=", 1) for line in lines if not line.startswith("PATH="))


def command(demo: Demo, *arguments: str, text: str = "") -> str:
    done = subprocess.run(
        arguments, cwd=demo.cwd, env={**demo.env, **exports(demo)},
        input=text, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    return done.stdout


def try_kubectl(demo: Demo) -> None:
    kubectl = ("kubectl", f"--cache-dir={demo.cwd}")
    command(demo, *kubectl, "apply", "-f", "-", text=json.dumps(a_pod("p2")))
    command(demo, *kubectl, "wait", "--for=jsonpath={.status.phase}=Running", "pod/p2", "--timeout=20s")
    assert "p2" in command(demo, *kubectl, "get", "pods", "-o", "wide")
    command(demo, *kubectl, "delete", "pod", "p2", "--wait=true")


def is_open(url: str) -> bool:
    host, _, port = url.rpartition("/")[2].rpartition(":")
    with socket.socket() as trying:
        return trying.connect_ex((host, int(port))) == 0


def test_a_demo_is_kept_until_it_is_stopped(small: Demo) -> None:
    """hamictl and kubectl talk to it; a second one is not kept beside it; afterwards nothing is left."""
    kept = small.run("--keep")
    try:
        said = small.said
        assert 0 == kept, said
        urls = [exports(small)[name] for name in ("HAMI_NATS_URL", "HAMI_TRACES_URL")]
        assert "Allocate" in command(small, str(BIN / "hamictl"), "trace", "p1")
        if shutil.which("kubectl"):
            try_kubectl(small)
        assert all(map(is_open, urls))
        assert 1 == small.run("--keep")
        assert "a demo already runs" in small.said
    finally:
        stopped = small.run("--stop")

    assert 0 == stopped, small.said
    assert "stopped 7 processes\n" == small.said
    assert not any(map(is_open, urls))
    small.assert_nothing_is_left()
    assert 0 == small.run("--stop")
    assert "no demo was left running\n" == small.said


# told to stop in the middle


@pytest.mark.parametrize(
    ("number", "after"),
    [(signal.SIGTERM, "starting NATS"), (signal.SIGINT, "  runs")],
    ids=["SIGTERM while things start", "Ctrl-C among the pods"],
)
def test_an_interrupted_demo_stops_all_that_it_started(small: Demo, number: signal.Signals, after: str) -> None:
    """Also for somebody impatient, who asks more than once."""
    with small.start() as process:
        assert process.stdout is not None
        seen = next(line for line in process.stdout if line.startswith(after))
        for _ in range(3):
            process.send_signal(number)
            time.sleep(0.1)
        said = seen + process.stdout.read()

    assert 128 + number == process.returncode, said
    assert said.endswith("interrupted; stopped everything\n")
    assert "Traceback" not in said
    small.assert_nothing_is_left()


def test_a_report_that_cannot_be_written_is_told_at_once(small: Demo) -> None:
    """Not after the whole demo."""
    assert 2 == small.run("--report", "nowhere/report.json")
    assert "--report nowhere/report.json: its folder is not there" in small.said
    small.assert_nothing_is_left()
