"""What an API server says of itself: its version and its time.

One rule: its time comes from the ``Date`` of an answer, a whole second at best; ours is taken around the call.
"""

from email.utils import parsedate_to_datetime

import msgspec
from msgspec import Struct

from hami_kit.clock import Clock
from hami_kit.errors import KubeError
from hami_kit.kube.client import Kube


class Version(Struct, frozen=True, rename="camel"):
    """``/version``; a provider may write ``34+`` for a minor version."""

    major: str = ""
    minor: str = ""
    git_version: str = ""

    @property
    def number(self) -> tuple[int, int]:
        """Return major and minor version as numbers; 0 for what is none."""
        major, minor = (text.rstrip("+") for text in (self.major, self.minor))
        return (int(major) if major.isdecimal() else 0, int(minor) if minor.isdecimal() else 0)


class Server(Struct, frozen=True, kw_only=True):
    """One API server at one moment. ``time`` and ``asked`` .. ``answered`` (by our clock) are seconds since 1970."""

    version: Version
    time: float
    asked: float
    answered: float

    @property
    def skew(self) -> float:
        """Return how far our clock is ahead of the server's at least, in seconds; negative: behind; 0: nobody can tell.

        Its date is a whole second that began before it was written, and the answer was on its way for a while.
        """
        if self.asked > self.time + 1:
            return self.asked - self.time - 1
        return min(0.0, self.answered - self.time)


async def about(kube: Kube, clock: Clock) -> Server:
    """Ask for version and time."""
    asked = clock.now()
    answer = await kube.transport.ask("GET", "/version")
    answered = clock.now()
    try:
        version = msgspec.json.decode(answer.body, type=Version)
        date = parsedate_to_datetime(answer.date).timestamp()
    except (msgspec.DecodeError, ValueError) as e:
        raise KubeError(f"the API server does not say its version and time in a way that can be read: {e}") from e
    return Server(version=version, time=date, asked=asked, answered=answered)
