"""``hamictl``: what the system knows, for people and (``-o json``) for programs.

One rule: it only reads. Whatever goes wrong leaves here as one sentence on stderr and an exit code.
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from cyclopts import CycloptsError, UnusedCliTokensError
from hami_kit.errors import BoundaryError, SettingsError

from hamictl.commands import app
from hamictl.errors import FAILED, INTERRUPTED, MISUSED, Problem


def main() -> None:
    """Run one command and exit."""
    signal.signal(signal.SIGINT, _interrupted)
    # why there is no connection is part of the sentence; the libraries' own words would only repeat it
    logging.basicConfig(format="hamictl: %(message)s", level=logging.CRITICAL)
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    code: int | None = 0
    try:
        code = app(argv, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as e:
        return _say(f"{_misuse(e)}; see hamictl --help", MISUSED)
    except Problem as e:
        return _say(str(e), e.code)
    except SettingsError as e:
        return _say(str(e), MISUSED)
    except BoundaryError as e:
        return _say(str(e), FAILED)
    except BrokenPipeError:
        # whoever read on has seen enough (``| head``): nothing may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code or 0


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    """End at once: nothing is held that would have to be given back, and a task may swallow its cancellation."""
    os._exit(INTERRUPTED)


def _misuse(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        return f"nothing is known to do with {' '.join(error.unused_tokens or ())}"
    return str(error).strip().rstrip(".")


def _say(sentence: str, code: int) -> int:
    sys.stderr.write(f"hamictl: {' '.join(sentence.split())}\n")
    return code


if __name__ == "__main__":
    main()
