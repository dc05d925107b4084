"""Asking everybody on the bus who they are, as ``nats micro ls`` does.

One rule: whoever answers too late is not there; whoever answers what cannot be read is left out.
"""

import asyncio
import contextlib

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from hami_kit.bus.seam import Serving

SUBJECT = "$SRV.PING"


async def ask(client: Client, seconds: float) -> list[Serving]:
    """Return who answers within so long."""
    found: list[Serving] = []

    async def hear(msg: Msg) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            found.append(msgspec.json.decode(msg.data, type=Serving))

    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=hear)
    try:
        await client.publish(SUBJECT, b"", reply=inbox)
        await asyncio.sleep(seconds)
    finally:
        await subscription.unsubscribe()
    return found
