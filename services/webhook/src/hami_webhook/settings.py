"""The webhook's settings: checked once, at start."""

from pathlib import Path
from typing import Annotated

from hami_kit.settings import Address, ServerSettings, Setting


class WebhookSettings(ServerSettings, frozen=True, kw_only=True):
    """hami-webhook: admission of pods that ask for devices."""

    listen: Annotated[Address, Setting("host:port of /webhook, /healthz, /readyz and /metrics")] = Address(
        "0.0.0.0", 8443
    )
    device_config: Annotated[Path | None, Setting("HAMi's device-config.yaml; absent: the chart's defaults")] = None
    scheduler_name: Annotated[str, Setting("written into pods that ask for devices")] = "hami-scheduler"
    force_overwrite_default_scheduler: Annotated[bool, Setting("whether default-scheduler may be replaced")] = True
    enable_ascend: Annotated[bool, Setting("whether Ascend takes part")] = True
    enable_iluvatar: Annotated[bool, Setting("whether Iluvatar takes part")] = True
