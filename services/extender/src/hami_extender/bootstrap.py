"""How the extender is wired; read top to bottom, it is its architecture."""

import asyncio

from hami_kit import bus as buses
from hami_kit import telemetry as telemetries
from hami_kit import web
from hami_kit.bus import BusSettings
from hami_kit.settings import load_device_config
from hami_model import vendors

from hami_extender.app import Extender, routes
from hami_extender.settings import ExtenderSettings


async def serve(settings: ExtenderSettings, stop: asyncio.Event) -> None:
    """Serve kube-scheduler until told to stop."""
    telemetry = telemetries.setup("hami-extender", settings)
    catalog = vendors.build(
        load_device_config(settings.device_config), ascend=settings.enable_ascend, iluvatar=settings.enable_iluvatar
    )
    async with buses.connect(BusSettings.of(settings), name="hami-extender", telemetry=telemetry) as bus:
        await bus.serve("hami-extender", ())  # nothing to ask here, but ``nats micro`` and the doctor see who runs
        extender = Extender(bus=bus, catalog=catalog, bind_timeout=settings.bind_timeout, telemetry=telemetry)
        checks: dict[str, web.Check] = {"nats": lambda: bus.is_connected}
        health = web.health_routes(checks, telemetry.metrics)
        async with web.serve_service(settings, routes(extender), health):
            await stop.wait()
    telemetry.close()
