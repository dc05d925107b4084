"""Settings: one frozen Struct per service, each field an environment variable and a flag.

One rule: everything is read and checked once, before anything starts; a wrong value ends the process with a sentence
that names the variable. A field ``nats_url`` is ``HAMI_NATS_URL`` and ``--nats-url``; ``Annotated[…, Setting(env=…)]``
names another variable. A flag wins over the variable; an empty variable counts as absent.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import msgspec
from hami_model import config
from hami_model.config import DeviceConfig
from msgspec import Struct

from hami_kit.device_config import VARIABLE, read_device_config
from hami_kit.errors import SettingsError
from hami_kit.setting_values import Address, Duration, ObjectName, Timeout, read_value, written

__all__ = [
    "Address",
    "CommonSettings",
    "Duration",
    "Help",
    "ObjectName",
    "ServerSettings",
    "Setting",
    "Timeout",
    "load",
    "load_device_config",
]

S = TypeVar("S", bound=Struct)

log = logging.getLogger(__name__)


class Setting(Struct, frozen=True):
    """What a field's annotation may add: its sentence in ``--help``, and a variable of another name."""

    help: str = ""
    env: str = ""


class CommonSettings(Struct, frozen=True, kw_only=True):
    """What every service reads."""

    nats_url: Annotated[str, Setting("NATS servers, comma-separated")] = "nats://127.0.0.1:4222"
    nats_creds: Annotated[Path | None, Setting("file with the NATS credentials")] = None
    nats_ca: Annotated[Path | None, Setting("CA that signed the NATS server's certificate")] = None
    log_level: Annotated[str, Setting("debug, info, warning or error")] = "info"
    otel_endpoint: Annotated[
        str, Setting("where traces go (OTLP over HTTP); empty: nowhere", env="OTEL_EXPORTER_OTLP_ENDPOINT")
    ] = ""
    otel_traces_endpoint: Annotated[
        str, Setting("the same, for traces alone", env="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    ] = ""
    otel_traces_exporter: Annotated[Literal["otlp", "none"], Setting("otlp or none", env="OTEL_TRACES_EXPORTER")] = (
        "otlp"
    )
    otel_disabled: Annotated[bool, Setting("true: no traces at all", env="OTEL_SDK_DISABLED")] = False
    otel_service_name: Annotated[str, Setting("name in the traces", env="OTEL_SERVICE_NAME")] = ""


class ServerSettings(CommonSettings, frozen=True, kw_only=True):
    """What a service with an HTTP listener reads besides; a service narrows ``listen`` to its own default."""

    listen: Annotated[Address, Setting("host:port to serve on")] = Address("0.0.0.0", 8080)
    tls_cert: Annotated[Path | None, Setting("certificate; plain HTTP where it and the key are absent")] = None
    tls_key: Annotated[Path | None, Setting("its private key; both are read again when they change")] = None
    tls_client_ca: Annotated[Path | None, Setting("clients must show a certificate signed by this CA")] = None
    health_listen: Annotated[Address | None, Setting("host:port of /healthz, /readyz and /metrics")] = None

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "HAMI_TLS_KEY" if self.tls_key is None else "HAMI_TLS_CERT"
            raise SettingsError(missing, "is absent; HAMI_TLS_CERT and HAMI_TLS_KEY are set together or not at all")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise SettingsError("HAMI_TLS_CERT", "is absent; HAMI_TLS_CLIENT_CA needs HAMI_TLS_CERT and HAMI_TLS_KEY")


class Help(Exception):
    """Someone asked for ``--help``; its text is the answer."""


class _Field(Struct, frozen=True):
    name: str
    type: Any
    default: Any
    setting: Setting

    @property
    def variable(self) -> str:
        return self.setting.env or f"HAMI_{self.name.upper()}"

    @property
    def flag(self) -> str:
        return "--" + self.variable.removeprefix("HAMI_").lower().replace("_", "-")


def load(settings: type[S], argv: Sequence[str], environ: Mapping[str, str]) -> S:
    """Read the settings from flags and environment; raise SettingsError for the first that cannot be used."""
    fields = _fields(settings)
    given = _read_flags(argv, fields, title=(settings.__doc__ or "").split("\n")[0])
    values: dict[str, Any] = {}
    for field in fields:
        text, where = given.get(field.name), f"{field.variable} ({field.flag})"
        if text is None:
            text, where = environ.get(field.variable, ""), field.variable
        if text:
            values[field.name] = read_value(field.type, text, where)
        elif field.default is msgspec.NODEFAULT:
            raise SettingsError(field.variable, f"is not set; set it, or pass {field.flag} ({field.setting.help})")
    return settings(**values)


def _fields(settings: type[Struct]) -> list[_Field]:
    hints = get_type_hints(settings, include_extras=True)
    fields = []
    for info in msgspec.structs.fields(settings):
        hint = hints[info.name]
        marks = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Setting)]
        kind = hint.__origin__ if hasattr(hint, "__metadata__") else hint
        default = info.default if info.default_factory is msgspec.NODEFAULT else info.default_factory()
        fields.append(_Field(info.name, kind, default, marks[0] if marks else Setting()))
    return fields


def _read_flags(argv: Sequence[str], fields: Sequence[_Field], *, title: str) -> dict[str, str]:
    by_flag = {field.flag: field for field in fields}
    given: dict[str, str] = {}
    rest = list(argv)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag in ("-h", "--help"):
            raise Help(_help(title, fields))
        field = by_flag.get(flag)
        if field is None:
            raise SettingsError(flag, "is no flag of this service; --help lists them")
        if not equals:
            value = _next_value(field, rest)
        given[field.name] = value
    return given


def _next_value(field: _Field, rest: list[str]) -> str:
    if field.type is bool and (not rest or rest[0].startswith("--")):
        return "true"
    if not rest:
        raise SettingsError(field.variable, f"{field.flag} needs a value; write {field.flag}=…")
    return rest.pop(0)


def _help(title: str, fields: Sequence[_Field]) -> str:
    lines = [title, "", "Each flag is also an environment variable; the flag wins.", ""]
    for field in sorted(fields, key=lambda f: f.flag):
        absent = field.default in (msgspec.NODEFAULT, None, "")
        default = "" if absent else f" (default {written(field.type, field.default)})"
        lines.append(f"  {field.flag:<38} {field.variable:<38} {field.setting.help}{default}")
    return "\n".join(lines)


def load_device_config(path: Path | None) -> DeviceConfig:
    """Read HAMi's device-config.yaml; without a path the chart's defaults hold.

    Keys that nobody reads are warned of; raise ``SettingsError`` for all that cannot be used.
    """
    if path is None:
        return config.DEFAULTS
    file = read_device_config(path)
    for remark in file.reading.unread:  # HAMi ignores such keys, and what it takes must not keep us from starting
        log.warning('%s: "%s" line %d: %s', VARIABLE, path, file.line(remark), remark.sentence)
    if file.reading.wrong:
        told = "; ".join(f"line {file.line(remark)}: {remark.sentence}" for remark in file.reading.wrong)
        raise SettingsError(VARIABLE, f'"{path}" {told}')
    return config.usable(file.reading)
