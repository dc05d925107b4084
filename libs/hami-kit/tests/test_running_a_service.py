"""A service as a process: signals, exit codes, and what stands on stderr."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from .conftest import DEADLINE

SERVICE = '''
import asyncio, logging
from hami_kit import runner
from hami_kit.settings import CommonSettings

class Settings(CommonSettings, frozen=True, kw_only=True):
    """hami-test: a service that is not there."""

async def serve(settings, stop):
    print("up", flush=True)
BODY

runner.GRACE = runner.LAST_GRACE = 0.3
runner.run(serve, Settings)
'''

CLEAN = """
    await stop.wait()
    logging.getLogger("hami_test").warning("stopping\\nin two lines")
"""
DEAF = "    await asyncio.Event().wait()"
STUBBORN = """
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
"""
BROKEN = "    raise RuntimeError('the books\\nare open')"
LATE = """
    from hami_kit.errors import SettingsError
    async with asyncio.TaskGroup():
        raise SettingsError("HAMI_LISTEN", '"x:1" cannot be listened on; name a free one')
"""


NOISY = """
    from hami_kit import telemetry
    chatty = logging.getLogger(telemetry.EXPORTER)
    for attempt in range(3):
        chatty.warning("Transient error, retrying in %s s", attempt)
        chatty.error("Failed to export spans batch")
"""


class Process:
    """A running service."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def up(self) -> None:
        assert self._process.stdout is not None
        assert b"up\n" == await self._process.stdout.readline()

    def tell(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def end(self) -> tuple[int, list[str]]:
        """Return its exit code and the lines on stderr."""
        _, err = await self._process.communicate()
        return self._process.returncode or 0, err.decode().splitlines()


@asynccontextmanager
async def a_service(
    folder: Path, body: str, *argv: str, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    program = folder / "service.py"
    program.write_text(SERVICE.replace("BODY", body))
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), *argv,
        env=dict(environ or {}), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(DEADLINE):
            yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_is_a_clean_stop(tmp_path: Path, number: signal.Signals) -> None:
    """The service ends its work by itself, and the process ends with 0; each log record is one line."""
    async with a_service(tmp_path, CLEAN) as service:
        await service.up()
        service.tell(number)
        code, lines = await service.end()

    assert 0 == code
    assert ["WARNING hami_test: stopping | in two lines"] == [line.partition("Z ")[2] for line in lines]


async def test_a_service_that_does_not_stop_is_cancelled(tmp_path: Path) -> None:
    """The grace is over: what is left is cancelled, and the process ends."""
    async with a_service(tmp_path, DEAF) as service:
        await service.up()
        service.tell(signal.SIGTERM)
        code, lines = await service.end()

    assert 0 == code
    assert "cancelling what is left" in lines[0]


async def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    """Whoever presses Ctrl-C twice means it."""
    async with a_service(tmp_path, DEAF) as service:
        await service.up()
        service.tell(signal.SIGINT)
        service.tell(signal.SIGTERM)
        assert 0 == (await service.end())[0]


async def test_what_survives_cancelling_is_left_behind(tmp_path: Path) -> None:
    """No task keeps the process alive for ever."""
    async with a_service(tmp_path, STUBBORN) as service:
        await service.up()
        service.tell(signal.SIGTERM)
        code, lines = await service.end()

    assert 1 == code
    assert "leaving it behind" in lines[-1]


async def test_a_trace_collector_that_is_gone_is_told_of_once_in_a_while(tmp_path: Path) -> None:
    """Its exporter would tell of every attempt of every batch."""
    async with a_service(tmp_path, NOISY) as service:
        code, lines = await service.end()

    assert (0, 1) == (code, len(lines))
    assert lines[0].endswith("Transient error, retrying in 0 s (not told again for 300 s)")


async def test_a_failure_is_one_line_and_code_1(tmp_path: Path) -> None:
    """The traceback stays with its record, so that a log collector keeps it together."""
    async with a_service(tmp_path, BROKEN) as service:
        code, lines = await service.end()

    assert 1 == code
    assert 1 == len(lines)
    assert "CRITICAL hami_kit.runner: the service failed | " in lines[0]
    assert "RuntimeError: the books" in lines[0]


@pytest.mark.parametrize(
    ("argv", "environ", "sentence"),
    [
        ((), {"OTEL_SDK_DISABLED": "x"}, 'OTEL_SDK_DISABLED: "x" is neither true nor false; write one of the two'),
        ((), {"HAMI_LOG_LEVEL": "loud"}, 'HAMI_LOG_LEVEL: "loud" is no level; write debug, info, warning or error'),
        (("--nope",), {}, "--nope: is no flag of this service; --help lists them"),
    ],
)
async def test_a_wrong_setting_is_one_sentence_and_code_2(
    tmp_path: Path, argv: tuple[str, ...], environ: dict[str, str], sentence: str
) -> None:
    """No traceback: who wrote the manifest reads it."""
    async with a_service(tmp_path, CLEAN, *argv, environ=environ) as service:
        assert (2, [sentence]) == await service.end()


async def test_a_setting_found_wrong_at_start_is_the_same(tmp_path: Path) -> None:
    """A port that is taken shows only when it is listened on; out of however many task groups."""
    async with a_service(tmp_path, LATE) as service:
        assert (2, ['HAMI_LISTEN: "x:1" cannot be listened on; name a free one']) == await service.end()


async def test_help_is_an_answer(tmp_path: Path) -> None:
    """``--help`` ends with 0 and nothing on stderr."""
    async with a_service(tmp_path, CLEAN, "--help") as service:
        assert (0, []) == await service.end()
