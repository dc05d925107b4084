"""Running one service: settings, logging, signals, and an end that is waited for.

One rule: the first SIGTERM or SIGINT asks for a clean stop and waits for it; after ``GRACE``, or at a second signal,
the work is cancelled, and what survives even that is left behind.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

import uvloop

from hami_kit.clock import rfc3339
from hami_kit.errors import SettingsError
from hami_kit.settings import CommonSettings, Help, load
from hami_kit.telemetry import EXPORTER

S = TypeVar("S", bound=CommonSettings)
Serve = Callable[[S, asyncio.Event], Coroutine[Any, Any, None]]
"""A service: it runs until the event is set."""

GRACE = 10.0
"""Seconds for a clean stop."""

LAST_GRACE = 5.0
"""Seconds for cancelled work to end."""

SELDOM = 300.0
"""Seconds between two lines about a trace collector that is gone."""

BAD_SETTINGS = 2
FAILED = 1

log = logging.getLogger(__name__)


def run(serve: Serve[S], settings_type: type[S]) -> None:
    """Run a service from the command line and environment until it is told to stop; exits the process."""
    try:
        settings = load(settings_type, sys.argv[1:], os.environ)
    except Help as e:
        sys.stdout.write(f"{e}\n")
        sys.exit(0)
    except SettingsError as e:
        _end(str(e), BAD_SETTINGS)
    _log_to_stderr(settings.log_level)
    try:
        uvloop.run(_until_told(serve, settings))
    except Exception as error:  # not except*: up to Python 3.11.3 an exit from there is wrapped in a group
        wrong = [str(e) for e in _leaves(error) if isinstance(e, SettingsError)]
        if wrong:
            _end("; ".join(wrong), BAD_SETTINGS)
        log.critical("the service failed", exc_info=error)
        sys.exit(FAILED)


async def _until_told(serve: Serve[S], settings: S) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def hear() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, hear)
    work = asyncio.create_task(serve(settings, stop), name="serve")
    await _first(work, stop, timeout=None)
    await _first(work, hurry, timeout=GRACE)
    if work.done():
        return work.result()
    log.warning("not stopped within %g s, or told twice: cancelling what is left", GRACE)
    work.cancel()
    await asyncio.wait([work], timeout=LAST_GRACE)
    if not work.done():
        log.critical("not stopped within %g s more: leaving it behind", LAST_GRACE)
        os._exit(FAILED)  # asyncio would wait for it again, for ever
    return None


async def _first(work: asyncio.Task[None], event: asyncio.Event, *, timeout: float | None) -> None:
    """Return when the work is done or the event is set, whichever is first."""
    told = asyncio.create_task(event.wait())
    await asyncio.wait([work, told], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


class _OneLine(logging.Formatter):
    """One line for each record, a traceback included, so that a log collector keeps it together."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return rfc3339(record.created)

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\r", "").replace("\n", " | ")


class _Seldom(logging.Filter):
    """Lets one record pass, then none for a while: for what is tried again and again by somebody else."""

    _next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.created < self._next:
            return False
        self._next = record.created + SELDOM
        record.msg, record.args = f"{record.getMessage()} (not told again for {SELDOM:g} s)", ()
        return True


def _log_to_stderr(level: str) -> None:
    names = logging.getLevelNamesMapping()
    if level.upper() not in names:
        _end(f'HAMI_LOG_LEVEL: "{level}" is no level; write debug, info, warning or error', BAD_SETTINGS)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=names[level.upper()], handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "nats", "uvicorn", "opentelemetry"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger(EXPORTER).addFilter(_Seldom())


def _end(sentence: str, code: int) -> NoReturn:
    sys.stderr.write(f"{sentence}\n")
    sys.exit(code)
