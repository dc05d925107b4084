"""What goes wrong at a boundary: the bus, the Kubernetes API, the settings.

One rule: a library's error is translated once, where it enters, with its cause kept; the type says whether asking
again helps. ::

    HamiError
    ├── SettingsError                 a variable cannot be used: the process ends with code 2
    └── BoundaryError (retriable)
        ├── BusUnavailable            no connection to NATS at the moment
        ├── NoResponders              connected, but nobody serves that subject
        ├── BusTimeout                somebody may be at it, but no answer came in time
        ├── PayloadTooLarge           more bytes than the bus carries
        ├── BadMessage                what came back cannot be read
        └── KubeError (status, reason)
            ├── KubeForbidden 401/403   KubeNotFound 404   KubeConflict 409   KubeGone 410   KubeInvalid 422
            └── KubeUnavailable         429, 5xx, no connection, no answer: the outcome may be unknown
"""

from typing import ClassVar

from hami_model.errors import HamiError


class SettingsError(HamiError):
    """A setting cannot be used; names the variable, its value and the way out."""

    def __init__(self, variable: str, problem: str) -> None:
        self.variable = variable
        super().__init__(f"{variable}: {problem}")


class BoundaryError(HamiError):
    """Something beyond our process failed; ``retriable`` says whether asking again later helps."""

    retriable: ClassVar[bool] = False


class BusUnavailable(BoundaryError):
    """There is no connection to NATS at the moment."""

    retriable = True


class NoResponders(BoundaryError):
    """Nobody serves the subject at the moment; the bus says so at once."""

    retriable = True


class BusTimeout(BoundaryError):
    """No answer came in time; the request may have been carried out."""

    retriable = True


class PayloadTooLarge(BoundaryError):
    """The message has more bytes than the bus carries."""


class BadMessage(BoundaryError):
    """The answer cannot be read as what was asked for."""


class KubeError(BoundaryError):
    """The API server said no, in its own words; ``status`` is the HTTP status, 0 where there was no answer."""

    def __init__(self, message: str, *, status: int = 0, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class KubeForbidden(KubeError):
    """Our account may not do that, or is not known (403, 401)."""


class KubeNotFound(KubeError):
    """There is no such object (404)."""


class KubeConflict(KubeError):
    """The object is not as we saw it, or exists already (409)."""


class KubeGone(KubeError):
    """The resourceVersion or page token is too old (410), or a watch cannot go on from there: list again."""


class KubeInvalid(KubeError):
    """The API server takes the object for wrong (422)."""


class KubeUnavailable(KubeError):
    """No usable answer: the write may or may not have been stored."""

    retriable = True
