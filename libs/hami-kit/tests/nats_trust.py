"""Who is who for a NATS server: an operator, an account and a user signed by it, and a TLS certificate."""

import base64
import hashlib
import json
import os
from pathlib import Path

import nkeys
from msgspec import Struct

Json = dict[str, object]


class Trust(Struct, frozen=True):
    """What the server's configuration says, and the file that a client shows."""

    config: str
    creds: Path


def a_trust(folder: Path, *, permissions: Json | None = None) -> Trust:
    """Sign an operator, one account and one user; write the user's credentials into ``folder``."""
    operator, account, user = (_keys(kind) for kind in (b"O", b"A", b"U"))
    operator_jwt = _jwt(operator, operator, "operator", {})
    account_jwt = _jwt(operator, account, "account", {"limits": _ANY, "default_permissions": {}})
    user_jwt = _jwt(account, user, "user", {"subs": -1, "data": -1, "payload": -1, **(permissions or {})})
    creds = folder / "user.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{bytes(user.seed).decode()}\n------END USER NKEY SEED------\n"
    )
    subject = bytes(account.public_key).decode()
    return Trust(f"operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {subject}: {account_jwt} }}", creds)


_ANY = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}


def _keys(kind: bytes) -> nkeys.KeyPair:
    prefix = {b"O": nkeys.PREFIX_BYTE_OPERATOR, b"A": nkeys.PREFIX_BYTE_ACCOUNT, b"U": nkeys.PREFIX_BYTE_USER}[kind]
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def _jwt(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, kind: str, nats: Json) -> str:
    claims: Json = {
        "iat": 1_700_000_000,
        "iss": bytes(issuer.public_key).decode(),
        "sub": bytes(subject.public_key).decode(),
        "name": kind,
        "nats": {**nats, "type": kind, "version": 2},
    }
    claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
    body = f"{_part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_part(claims)}"
    return f"{body}.{_b64(issuer.sign(body.encode()))}"


def _part(value: Json) -> str:
    return _b64(json.dumps(value).encode())


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
