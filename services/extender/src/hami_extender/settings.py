"""The extender's settings: checked once, at start."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from hami_kit.errors import SettingsError
from hami_kit.settings import Address, ServerSettings, Setting, Timeout


class ExtenderSettings(ServerSettings, frozen=True, kw_only=True):
    """hami-extender: kube-scheduler's filter and bind calls."""

    listen: Annotated[Address, Setting("host:port of /filter, /bind, /healthz, /readyz and /metrics")] = Address(
        "127.0.0.1", 8080
    )
    device_config: Annotated[Path | None, Setting("HAMi's device-config.yaml; absent: the chart's defaults")] = None
    enable_ascend: Annotated[bool, Setting("whether Ascend takes part")] = True
    enable_iluvatar: Annotated[bool, Setting("whether Iluvatar takes part")] = True
    bind_timeout: Annotated[Timeout, Setting("how long one bind may take; the allocator's own")] = Timeout(28.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _is_loopback(self.listen.host) and self.tls_client_ca is None:
            raise SettingsError(
                "HAMI_LISTEN",
                f'"{self.listen}" is no loopback address, and whoever reaches it can book devices; listen on '
                "127.0.0.1, or demand client certificates with HAMI_TLS_CLIENT_CA",
            )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
