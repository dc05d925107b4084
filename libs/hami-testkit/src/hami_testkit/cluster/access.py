"""The way into a cluster from its kubeconfig: URL, certificates, token.

One rule: only the current context is read; a key that stands in the file is on disk only while it is loaded.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from hami_testkit.cluster.client import ApiClient


class Access(Struct, frozen=True):
    """Where a cluster is, and as whom to ask there."""

    url: str
    tls: ssl.SSLContext | None = None
    token: str = ""


@asynccontextmanager
async def connect(kubeconfig: Path) -> AsyncIterator[ApiClient]:
    """Open a client of the cluster that a kubeconfig leads to."""
    access = read(await asyncio.to_thread(kubeconfig.read_text))
    async with ApiClient.connect(access.url, tls=access.tls, token=access.token) as client:
        yield client


def read(kubeconfig: str) -> Access:
    """Read the text of a kubeconfig."""
    config = yaml.safe_load(kubeconfig)
    context = _named(config, "contexts", config["current-context"])["context"]
    cluster = _named(config, "clusters", context["cluster"])["cluster"]
    user = _named(config, "users", context["user"])["user"]
    tls = _tls(cluster, user) if cluster["server"].startswith("https://") else None
    return Access(cluster["server"], tls, user.get("token", ""))


def _named(config: dict[str, Any], section: str, name: str) -> dict[str, Any]:
    return next(entry for entry in config[section] if entry["name"] == name)


def _tls(cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    with tempfile.TemporaryDirectory() as folder:

        def file(section: dict[str, Any], field: str) -> str | None:
            if field in section:
                return str(section[field])
            if f"{field}-data" not in section:
                return None
            path = Path(folder) / field
            path.write_bytes(base64.b64decode(section[f"{field}-data"]))
            return str(path)

        context = ssl.create_default_context(cafile=file(cluster, "certificate-authority"))
        if cluster.get("insecure-skip-tls-verify"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate := file(user, "client-certificate"):
            context.load_cert_chain(certificate, file(user, "client-key"))
        return context
