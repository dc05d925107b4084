"""Whatever is wrong is one sentence on stderr, nothing on stdout, and an exit code that tells whose fault it is."""

import asyncio
import signal
from pathlib import Path

import pytest
from hami_kit.bus import Bus, Endpoint
from hami_model.bus import subjects
from hami_model.bus.messages import AskSnapshot, Refused
from hami_testkit.nats import NatsServer, nats_running
from hami_testkit.processes import free_port

from .conftest import Allocator, Prompt

COMMANDS = [["nodes"], ["pods"], ["explain", "p"], ["events"], ["events", "-f"]]


@pytest.mark.parametrize(("words", "sentence"), [
    (["nodse"], 'Unknown command "nodse"'),
    (["nodes", "--all"], "Unknown option: --all"),
    (["nodes", "-o", "yaml"], 'Invalid value "yaml" for -o. Choose from: "table", "json"'),
    (["nodes", "gpu-a"], "nothing is known to do with gpu-a"),
    (["explain"], "POD requires an argument"),
    (["trace", "-n"], "requires an argument"),
    (["pods", "-o"], "requires an argument"),
])  # fmt: skip
async def test_a_wrong_flag(prompt: Prompt, words: list[str], sentence: str) -> None:
    """What was written, and where to look."""
    said = await prompt.hamictl(*words)

    assert 2 == said.code
    assert sentence in said.sentence
    assert said.sentence.endswith("see hamictl --help")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
async def test_nats_is_unreachable(prompt: Prompt, words: list[str]) -> None:
    """The address that was tried, and why it failed."""
    url = f"nats://127.0.0.1:{free_port()}"
    prompt.hurry()
    prompt.export("HAMI_NATS_URL", url)
    said = await prompt.hamictl(*words)

    assert 1 == said.code
    assert f"cannot connect to NATS at HAMI_NATS_URL={url} (ConnectionRefusedError" in said.sentence
    assert "check the address" in said.sentence


async def test_a_password_in_the_url_is_not_repeated(prompt: Prompt) -> None:
    """The sentence may end in a ticket."""
    address = f"127.0.0.1:{free_port()}"
    prompt.hurry()
    prompt.export("HAMI_NATS_URL", f"nats://me:secret@{address}")
    said = await prompt.hamictl("nodes")

    assert f"cannot connect to NATS at HAMI_NATS_URL=nats://{address} (" in said.sentence


async def test_nats_asks_for_credentials(prompt: Prompt) -> None:
    """Somebody answers; what is missing are the rights."""
    prompt.hurry(4)
    async with nats_running(more="authorization { user: a, password: b }") as server:
        prompt.export("HAMI_NATS_URL", server.url)
        said = await prompt.hamictl("nodes")

    assert 1 == said.code
    assert "Authorization" in said.sentence
    assert "HAMI_NATS_CREDS" in said.sentence


async def test_no_allocator(prompt: Prompt, nats: NatsServer) -> None:
    """NATS is there, and nobody answers."""
    said = await prompt.hamictl("nodes")

    assert 1 == said.code
    assert said.sentence.startswith("the allocator does not answer: hami.v1.allocator.snapshot: nobody serves it")


async def test_an_allocator_that_is_stuck(prompt: Prompt, bus: Bus) -> None:
    """It has a deadline to answer in."""

    async def never(_question: AskSnapshot) -> Refused:
        await asyncio.Event().wait()
        raise AssertionError

    await bus.serve("allocator", [Endpoint("snapshot", subjects.SNAPSHOT, AskSnapshot, never)])
    prompt.hurry()
    said = await prompt.hamictl("pods")

    assert 1 == said.code
    assert said.sentence.startswith("the allocator does not answer: hami.v1.allocator.snapshot: no answer within")


@pytest.mark.parametrize("url", [":", "http://nats:4222", " "])
async def test_an_address_that_is_none(prompt: Prompt, url: str) -> None:
    """Before anything is tried."""
    prompt.export("HAMI_NATS_URL", url)
    said = await prompt.hamictl("nodes")

    assert (2, f'HAMI_NATS_URL: "{url}" is no NATS server; write one such as nats://nats:4222') == (
        said.code, said.sentence,
    )  # fmt: skip


@pytest.mark.parametrize("variable", ["HAMI_NATS_CREDS", "HAMI_NATS_CA"])
async def test_a_file_that_is_not_there(prompt: Prompt, tmp_path: Path, variable: str) -> None:
    """The variable, the file, and what it should be."""
    prompt.export(variable, tmp_path / "missing")
    said = await prompt.hamictl("nodes")

    assert 2 == said.code
    assert said.sentence.startswith(f'{variable}: "{tmp_path / "missing"}"')
    assert "; name a " in said.sentence


async def test_a_flag_wins_and_an_empty_variable_is_none(
    prompt: Prompt, allocator: Allocator, nats: NatsServer
) -> None:
    """As with our services."""
    prompt.export("HAMI_NATS_URL", "nats://elsewhere:1")
    prompt.export("HAMI_NATS_CREDS", "")
    prompt.export("HAMI_NATS_CA", "")

    assert 0 == (await prompt.hamictl("nodes", "--nats-url", nats.url)).code


async def test_help_says_what_the_exit_codes_mean(prompt: Prompt) -> None:
    """On stdout, with 0."""
    said = await prompt.hamictl("--help")

    assert 0 == said.code
    assert "Exit codes: 0 answered, 1 no answer or no such pod, 2" in " ".join(said.out.split())


async def test_a_command_that_waits_is_interrupted_without_a_word(prompt: Prompt) -> None:
    """Ctrl-C while nobody answers."""
    async with nats_running() as server:
        prompt.export("HAMI_NATS_URL", server.url)
        async with prompt.process("events", "-f") as process:
            while not (await server.monitor("connz"))["num_connections"]:  # noqa: ASYNC110  asked, it tells nobody
                await asyncio.sleep(0.02)
            process.send_signal(signal.SIGINT)
            out, err = await process.communicate()

    assert (130, b"", b"") == (process.returncode, out, err)


async def test_the_console_command_ends_with_the_code(prompt: Prompt) -> None:
    """The program itself, as a shell sees it."""
    prompt.export("HAMI_NATS_URL", "nats://:x")
    async with prompt.process("pods") as process:
        out, err = await process.communicate()

    assert (2, b"") == (process.returncode, out)
    assert err.startswith(b"hamictl: HAMI_NATS_URL")
    assert 1 == err.count(b"\n")
