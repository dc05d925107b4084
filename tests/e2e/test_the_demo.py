"""``make demo CLUSTER=real``: the demo on Kubernetes' own control plane, as a person runs it."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from hami_testkit.processes import BIN

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


async def test_the_demo_shows_who_got_what_on_the_real_control_plane(binaries: Path, tmp_path: Path) -> None:
    """The same pods run as on the stand-in, one waits, and nothing is wrong or left behind."""
    report, scratch = tmp_path / "report.json", tmp_path / "scratch"
    scratch.mkdir()
    options = ["--cluster", "real", "--binaries", str(binaries), "--vendor", "nvidia", "--report", str(report)]
    process = await asyncio.create_subprocess_exec(
        str(BIN / "hami-demo"), *options, env={**os.environ, "TMPDIR": str(scratch)}, stdout=asyncio.subprocess.PIPE
    )
    said = (await process.communicate())[0].decode()

    assert 0 == process.returncode, said
    assert "found nothing wrong" in said
    told = json.loads(report.read_text())
    assert ["never-fits"] == [pod["name"] for pod in told["refused"]]
    assert {"spread-1", "whole-card", "trainer-and-server"} <= {pod["name"] for pod in told["placed"]}
    assert all(pod["devices"] for pod in told["placed"])
    assert [] == list(scratch.iterdir())
