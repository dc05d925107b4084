"""How the webhook is wired; read top to bottom, it is its architecture."""

import asyncio

from hami_kit import bus as buses
from hami_kit import telemetry as telemetries
from hami_kit import web
from hami_kit.bus import BusSettings
from hami_kit.settings import load_device_config
from hami_model import vendors

from hami_webhook.app import Rules, Webhook, routes
from hami_webhook.settings import WebhookSettings


async def serve(settings: WebhookSettings, stop: asyncio.Event) -> None:
    """Serve admission until told to stop."""
    telemetry = telemetries.setup("hami-webhook", settings)
    catalog = vendors.build(
        load_device_config(settings.device_config), ascend=settings.enable_ascend, iluvatar=settings.enable_iluvatar
    )
    rules = Rules(scheduler_name=settings.scheduler_name, force_overwrite=settings.force_overwrite_default_scheduler)
    async with buses.connect(BusSettings.of(settings), name="hami-webhook", telemetry=telemetry) as bus:
        await bus.serve("hami-webhook", ())  # nothing to ask here, but ``nats micro`` and the doctor see who runs
        webhook = Webhook(bus=bus, catalog=catalog, rules=rules, telemetry=telemetry)
        checks: dict[str, web.Check] = {"nats": lambda: bus.is_connected}
        health = web.health_routes(checks, telemetry.metrics)
        async with web.serve_service(settings, routes(webhook), health):
            await stop.wait()
    telemetry.close()
