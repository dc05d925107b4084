"""TLS as its files say: what a server shows and whom it believes, read again when the files change.

One rule: files in the middle of a change are left until they fit; a server never stops serving for them.
"""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Protocol, Self

from msgspec import Struct

from hami_kit.errors import SettingsError

log = logging.getLogger(__name__)

CERTIFICATES_EVERY = 1.0
"""Seconds between two looks at the certificate's files."""


class TlsSettings(Protocol):
    """The part of ``ServerSettings`` that TLS reads."""

    @property
    def tls_cert(self) -> Path | None:
        """Return HAMI_TLS_CERT."""
        ...

    @property
    def tls_key(self) -> Path | None:
        """Return HAMI_TLS_KEY."""
        ...

    @property
    def tls_client_ca(self) -> Path | None:
        """Return HAMI_TLS_CLIENT_CA."""
        ...


class TlsFiles(Struct, frozen=True, kw_only=True):
    """A certificate with its key, and who may call."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    @classmethod
    def of(cls, settings: TlsSettings) -> Self | None:
        """Return the files that the settings name, or None for plain HTTP."""
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        return cls(cert=settings.tls_cert, key=settings.tls_key, client_ca=settings.tls_client_ca)

    def stamps(self) -> tuple[tuple[int, int], ...]:
        """Return what changes when a file does, or what a link leads to, as in a mounted Secret."""
        found = (path.stat() for path in (self.cert, self.key, self.client_ca) if path is not None)
        return tuple((stat.st_ino, stat.st_mtime_ns) for stat in found)


class Certificates:
    """What a TLS server shows and whom it believes, as of its files; each new connection gets the present state."""

    def __init__(self, tls: TlsFiles) -> None:
        self._tls = tls
        self._seen = tls.stamps()
        self._current = _context(tls)
        self.front = _context(tls)
        self.front.sni_callback = self._pick

    def _pick(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    async def follow(self) -> None:
        """Read the files again when they change. Files in the middle of a change are left until they fit."""
        while True:
            await asyncio.sleep(CERTIFICATES_EVERY)
            try:
                stamps = self._tls.stamps()
                if stamps != self._seen:
                    self._current, self._seen = _context(self._tls), stamps
                    log.info("read the certificate %s again", self._tls.cert)
            except (OSError, SettingsError) as e:
                log.debug("the certificate %s is kept: %s", self._tls.cert, e)


def certificates(tls: TlsFiles | None) -> Certificates | None:
    """Read the files for the first time; raise SettingsError naming the one that cannot be used."""
    if tls is None:
        return None
    try:
        return Certificates(tls)
    except OSError as e:
        raise SettingsError("HAMI_TLS_CERT", f'"{e.filename}" cannot be read ({e.strerror}); name a PEM file') from e


def _context(tls: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as e:
        raise SettingsError("HAMI_TLS_CERT", f'"{tls.cert}" with its key cannot be used ({e}); name a PEM pair') from e
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except (OSError, ssl.SSLError) as e:
            raise SettingsError("HAMI_TLS_CLIENT_CA", f'"{tls.client_ca}" is no PEM certificate ({e})') from e
        context.verify_mode = ssl.CERT_REQUIRED
    return context
