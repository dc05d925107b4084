"""The tutorial "Your first pod on a cluster" word by word: its commands, in order, print what it shows."""

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from hami_testkit.demo import plan
from hami_testkit.processes import BIN
from hami_testkit.stack import Stack, stack
from msgspec import Struct

from tests.e2e.fleet import ROOT, a_fleet
from tests.e2e.kubectl import Said

PAGE = (ROOT / "docs" / "tutorials" / "first-pod.md").read_text()
CARDS = ROOT / "examples" / "nvidia" / "cards" / "gpu-a.yaml"
NOT_RUN = {
    "helm install": "tests/chart installs with Helm's engine",
    "helm uninstall": "likewise",
    "kubectl -n kube-system get pods": "our services run as processes here, not as pods",
    "kubectl exec": "no card",
}
"""How commands begin that are not run, and why; the page says so in its last section."""
NAMED = " from default namespace"
LOOKS = ("kubectl get", "kubectl describe", "hamictl")
DEADLINE = 120.0


class Step(Struct, frozen=True):
    """A command of the page, and the lines that it prints there."""

    command: str
    prints: list[str]


def steps() -> list[Step]:
    """Return the commands of the numbered steps, and those before them."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.partition("## On kind")[0], re.DOTALL)
    parts = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE) if part]
    # kubectl names the namespace from 1.34 on
    return [Step(lines[0], lines[1:]) for lines in (p.replace(NAMED, "…").splitlines() for p in parts)]


def is_run(step: Step) -> bool:
    return not step.command.startswith(tuple(NOT_RUN))


def manifests() -> dict[str, str]:
    """Return the files that the reader saves."""
    return dict(re.findall(r"Save this as `([^`]+)`:\n\n```yaml\n(.*?)```", PAGE, re.DOTALL))


class Reader:
    """Somebody who follows the page: one shell whose variables last, in a folder with the files."""

    def __init__(self, system: Stack, binaries: Path, folder: Path) -> None:
        self._folder = folder
        self._kept = folder / "variables"
        self._kept.touch()
        self._env = {**system.environment(), "PATH": f"{binaries}:{BIN}:{os.environ['PATH']}", "HOME": str(folder)}
        for name, text in manifests().items():
            (folder / name).write_text(text)

    async def type(self, command: str) -> Said:
        """Run a command to its end, and return what it printed."""
        script = f"set -a; . {self._kept}; {command}\ncode=$?; declare -p NODE CARD > {self._kept} 2>&-; exit $code"
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", script, cwd=self._folder, env=self._env,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        text = (await process.communicate())[0].decode()
        assert process.returncode == 0, f"$ {command}\n{text}"
        return Said(process.returncode, text)

    async def follow(self, step: Step) -> None:
        """Run a command; one that only looks again and again, until it prints what the page shows."""
        said = await self.type(step.command)
        try:
            async with asyncio.timeout(DEADLINE if step.command.startswith(LOOKS) else 0):
                while said.missing(*step.prints):
                    said = await self.type(step.command)
        except TimeoutError as e:
            raise AssertionError("\n".join([f"$ {step.command}", said.text, "and not", *step.prints])) from e


def one_node(folder: Path) -> Path:
    """Write the page's cluster, as a folder of examples: one node of four cards, not labelled yet."""
    (folder / "cards").mkdir(parents=True)
    shutil.copy(CARDS, folder / "cards")
    node = {"metadata": {"name": "gpu-a"}}
    (folder / "nodes.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "NodeList", "items": [node]}))
    return folder


@asynccontextmanager
async def a_system(kind: str, binaries: Path, folder: Path) -> AsyncIterator[Stack]:
    """Run that node and our services until the block is left."""
    examples = [one_node(folder / "example")]
    if kind == "stand-in":
        async with stack(plan(folder / "system", examples)) as system:
            yield system
    else:
        async with a_fleet(binaries, examples) as fleet:
            yield fleet.system


def test_the_page_names_what_is_not_run() -> None:
    """Each command that is left out stands on the page, and its last section says why."""
    commands = [step.command for step in steps()]
    reasons = PAGE.partition("## What of this is tested")[2]

    assert [1] * len(NOT_RUN) == [sum(command.startswith(left) for command in commands) for left in NOT_RUN]
    for word in ("`helm install`", "`helm uninstall`", "the list\nof our own pods", "`kubectl exec`", "kind"):
        assert word in reasons
    assert {"first.yaml", "second.yaml"} == set(manifests())


@pytest.mark.e2e
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["stand-in", "kube-apiserver"])
async def test_the_commands_of_the_page_print_what_it_shows(kind: str, binaries: Path) -> None:
    """From the label of the node to its removal."""
    # short on purpose: the kubelet's sockets stand below it, and a socket's path ends at 108 bytes
    with tempfile.TemporaryDirectory(prefix="fp-") as name:
        folder = Path(name)
        async with a_system(kind, binaries, folder) as system:
            reader = Reader(system, binaries, folder)
            for step in filter(is_run, steps()):
                await reader.follow(step)
