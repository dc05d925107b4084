"""``hamictl config check`` and ``hamictl vendors``: what a device-config.yaml says, before a service reads it."""

from pathlib import Path

import yaml
from hami_model.defaults import DEVICE_CONFIG
from hami_testkit.builders import a_catalog

from .conftest import Prompt


async def test_a_good_file_is_told_with_its_vendors(prompt: Prompt, tmp_path: Path) -> None:
    """Each vendor that it names, with the resources by which pods ask for it."""
    file = tmp_path / "device-config.yaml"
    file.write_text("nvidia:\n  resourceCountName: example.com/gpu\n  resourceCoreName: example.com/share\n")
    said = await prompt.hamictl("config", "check", str(file))

    assert 0 == said.code
    assert f"{file}: nothing is wrong" == said.out.splitlines()[0]
    assert ["NVIDIA", "example.com/gpu", "example.com/share"] in said.rows


async def test_every_problem_is_told_with_its_line(prompt: Prompt, tmp_path: Path) -> None:
    """What our services refuse and what they only warn of; programs can tell the two apart."""
    file = tmp_path / "device-config.yaml"
    file.write_text("nvidia:\n  resourceCountNames: x\n  deviceSplitCount: ten\n")
    said = await prompt.hamictl("config", "check", str(file))
    told = (await prompt.hamictl("config", "check", str(file), "-o", "json")).json

    assert 1 == said.code
    assert [
        f"{file}:2: unknown key nvidia.resourceCountNames; did you mean resourceCountName?",
        f'{file}:3: nvidia.deviceSplitCount: "ten" is no whole number; write one such as 10',
    ] == said.out.splitlines()
    assert [(2, False), (3, True)] == [(problem["line"], problem["refused"]) for problem in told["problems"]]
    assert [] == told["vendors"]


async def test_two_vendors_of_one_resource_are_a_problem(prompt: Prompt, tmp_path: Path) -> None:
    """Each section is in order, and yet no service would start."""
    file = tmp_path / "device-config.yaml"
    file.write_text("nvidia: {resourceCountName: x.io/card}\ncambricon: {resourceCountName: x.io/card}\n")
    said = await prompt.hamictl("config", "check", str(file))

    assert (1, True) == (said.code, "gives count resource x.io/card to two vendors" in said.out)


async def test_a_file_that_cannot_be_read_is_a_sentence(prompt: Prompt, tmp_path: Path) -> None:
    """It is no answer about the file."""
    said = await prompt.hamictl("config", "check", str(tmp_path / "absent"))

    assert (2, True) == (said.code, "cannot be read (No such file or directory)" in said.sentence)


async def test_the_vendors_are_those_of_the_file(prompt: Prompt, tmp_path: Path) -> None:
    """All that the chart brings without one, and what each can do."""
    file = tmp_path / "device-config.yaml"
    file.write_text(yaml.safe_dump({"cambricon": DEVICE_CONFIG["cambricon"]}))
    every = (await prompt.hamictl("vendors", "-o", "json")).json
    prompt.export("HAMI_DEVICE_CONFIG", file)
    one = await prompt.hamictl("vendors")

    assert list(a_catalog().words) == [row["word"] for row in every]
    assert ("memory and cores", "pair scores", "ours") == tuple(
        every[0][fact] for fact in ("shared_by", "topology", "plugin")
    )
    assert ["MLU"] == [row[0] for row in one.rows[1:]]
    assert "256" in one.rows[1]
