"""Running one service: settings, logging, signals, and an end that is waited for.

One rule: the first SIGTERM or SIGINT asks for a clean stop and waits for it; after ``GRACE`` the work is cancelled.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from hami_kit.errors import SettingsError
from hami_kit.settings import CommonSettings, Help, load

S = TypeVar("S", bound=CommonSettings)
Serve = Callable[[S, asyncio.Event], Coroutine[Any, Any, None]]
"""A service: it runs until the event is set."""

GRACE = 10.0
"""Seconds for a clean stop."""

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
        asyncio.run(_until_told(serve, settings))
    except* SettingsError as group:
        _end("; ".join(str(e) for e in _leaves(group)), BAD_SETTINGS)
    except* Exception as group:
        log.critical("the service failed", exc_info=group)
        sys.exit(FAILED)


async def _until_told(serve: Serve[S], settings: S) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    work = asyncio.create_task(serve(settings, stop), name="serve")
    told = asyncio.create_task(stop.wait(), name="stop signal")
    await asyncio.wait([work, told], return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not work.done():
        await asyncio.wait([work], timeout=GRACE)
    if not work.done():
        log.warning("not stopped within %g s: cancelling what is left", GRACE)
        work.cancel()
        await asyncio.wait([work])
        return
    work.result()


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


def _log_to_stderr(level: str) -> None:
    names = logging.getLevelNamesMapping()
    if level.upper() not in names:
        _end(f'HAMI_LOG_LEVEL: "{level}" is no level; write debug, info, warning or error', BAD_SETTINGS)
    logging.basicConfig(
        level=names[level.upper()], stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for chatty in ("httpx", "httpcore", "nats", "uvicorn", "opentelemetry"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _end(sentence: str, code: int) -> NoReturn:
    sys.stderr.write(f"{sentence}\n")
    sys.exit(code)
