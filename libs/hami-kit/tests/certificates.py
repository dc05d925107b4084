"""Certificates for tests, made with the openssl command."""

import subprocess
from pathlib import Path

from msgspec import Struct


class Chain(Struct, frozen=True):
    """A certificate for 127.0.0.1 with its key, and the authority that signed it."""

    ca: Path
    cert: Path
    key: Path


def an_authority(folder: Path, name: str) -> tuple[Path, Path]:
    """Make an authority; return its certificate and key."""
    cert, key = folder / f"{name}-ca.crt", folder / f"{name}-ca.key"
    _openssl("req", "-x509", *_NEW_KEY, "-keyout", key, "-out", cert, "-days", "2", "-subj", f"/CN={name}-ca")
    return cert, key


def a_certificate(folder: Path, name: str, *, authority: tuple[Path, Path] | None = None) -> Chain:
    """Make a certificate named ``name``, signed by an authority, its own where none is given."""
    ca, ca_key = authority or an_authority(folder, name)
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    _openssl(
        "req", "-x509", *_NEW_KEY, "-keyout", key, "-out", cert, "-days", "2", "-subj", f"/CN={name}",
        "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
        "-CA", ca, "-CAkey", ca_key,
    )  # fmt: skip
    return Chain(ca, cert, key)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=20)
