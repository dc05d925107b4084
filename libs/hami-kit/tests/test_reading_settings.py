"""Settings: environment and flags become values, or one sentence that names the variable."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hami_kit.bus import BusSettings, connect
from hami_kit.errors import SettingsError
from hami_kit.setting_values import read_address, read_duration, written
from hami_kit.settings import (
    Address,
    CommonSettings,
    Duration,
    Help,
    ObjectName,
    ServerSettings,
    Setting,
    Timeout,
    load,
    load_device_config,
)
from hami_kit.telemetry import Telemetry, setup
from hami_model import config
from hypothesis import given
from hypothesis import strategies as st


class Settings(ServerSettings, frozen=True, kw_only=True):
    """hami-test: a service that is not there."""

    node_name: Annotated[ObjectName, Setting("its node")]
    kubeconfig: Annotated[str, Setting("absent: in-cluster", env="KUBECONFIG")] = ""
    bind_timeout: Annotated[Timeout, Setting("how long one bind may take")] = Timeout(28.0)
    lease_time: Annotated[Duration, Setting("how long")] = Duration(0.0)
    force: Annotated[bool, Setting("whether")] = True
    replicas: Annotated[int, Setting("how many")] = 1
    share: Annotated[float, Setting("how much")] = 0.5
    policy: Annotated[Literal["binpack", "spread"], Setting("which")] = "binpack"
    words: Annotated[tuple[str, ...], Setting("which ones")] = ()
    device_config: Path | None = None


NEEDED = {"HAMI_NODE_NAME": "n1"}


def read(*argv: str, **environ: str) -> Settings:
    return load(Settings, argv, NEEDED | environ)


def test_defaults_hold_where_nothing_is_said() -> None:
    """A service starts with what must be known and nothing else; an empty variable counts as absent."""
    settings = read(HAMI_BIND_TIMEOUT="", HAMI_NATS_URL="")

    assert ("n1", 28.0, "nats://127.0.0.1:4222") == (settings.node_name, settings.bind_timeout, settings.nats_url)
    assert settings.tls_cert is None


def test_every_type_is_read_from_the_environment() -> None:
    """Durations as Go writes them, addresses, booleans, numbers, choices, lists, paths."""
    settings = read(
        HAMI_BIND_TIMEOUT="1m30s", HAMI_LISTEN="[::1]:8443", HAMI_FORCE="false", HAMI_REPLICAS="3", HAMI_SHARE="0.25",
        HAMI_POLICY="spread", HAMI_WORDS="GPU, MLU,", HAMI_DEVICE_CONFIG="/etc/d.yaml", KUBECONFIG="/k",
        OTEL_SDK_DISABLED="true", OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318",
    )  # fmt: skip

    assert (90.0, Address("::1", 8443), False, 3) == (
        settings.bind_timeout,
        settings.listen,
        settings.force,
        settings.replicas,
    )
    assert (0.25, "spread", ("GPU", "MLU")) == (settings.share, settings.policy, settings.words)
    assert (Path("/etc/d.yaml"), "/k") == (settings.device_config, settings.kubeconfig)
    assert (True, "http://collector:4318") == (settings.otel_disabled, settings.otel_endpoint)


def test_a_flag_wins_over_its_variable() -> None:
    """Each variable is a flag: ``--nats-url`` for HAMI_NATS_URL, ``--kubeconfig`` for KUBECONFIG."""
    settings = read(
        "--nats-url=nats://b", "--kubeconfig", "/flag", "--force=no", "--otel-sdk-disabled",
        HAMI_NATS_URL="nats://a", KUBECONFIG="/env",
    )  # fmt: skip

    assert ("nats://b", "/flag", False, True) == (
        settings.nats_url,
        settings.kubeconfig,
        settings.force,
        settings.otel_disabled,
    )


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("HAMI_BIND_TIMEOUT", "28", 'HAMI_BIND_TIMEOUT: "28" is no duration; write it as Go does, such as 28s, 5m'),
        ("HAMI_BIND_TIMEOUT", "-1s", 'HAMI_BIND_TIMEOUT: "-1s" is no duration'),
        ("HAMI_BIND_TIMEOUT", "1s 2m", 'HAMI_BIND_TIMEOUT: "1s 2m" is no duration'),
        ("HAMI_BIND_TIMEOUT", "٣s", 'HAMI_BIND_TIMEOUT: "٣s" is no duration'),
        ("HAMI_BIND_TIMEOUT", "2562048h", 'HAMI_BIND_TIMEOUT: "2562048h" is no duration'),
        ("HAMI_BIND_TIMEOUT", "0", 'HAMI_BIND_TIMEOUT: "0" leaves no time at all; write one such as 28s'),
        ("HAMI_BIND_TIMEOUT", "0h0s", 'HAMI_BIND_TIMEOUT: "0h0s" leaves no time at all'),
        ("HAMI_LISTEN", "http://h:80", 'HAMI_LISTEN: "http://h:80" is no address; write host:port'),
        ("HAMI_LISTEN", "8080", 'HAMI_LISTEN: "8080" is no address; write host:port'),
        ("HAMI_LISTEN", "h:99999", 'HAMI_LISTEN: "h:99999" is no address'),
        ("HAMI_LISTEN", "::1:80", 'HAMI_LISTEN: "::1:80" is no address; write host:port, an IPv6 host in brackets'),
        ("HAMI_NODE_NAME", "a/b", 'HAMI_NODE_NAME: "a/b" is no name of a Kubernetes object; write one such as node-1'),
        ("OTEL_TRACES_EXPORTER", "zipkin", 'OTEL_TRACES_EXPORTER: "zipkin" is not known; write one of otlp, none'),
        ("HAMI_FORCE", "maybe", 'HAMI_FORCE: "maybe" is neither true nor false'),
        ("HAMI_REPLICAS", "two", 'HAMI_REPLICAS: "two" is no whole number'),
        ("HAMI_SHARE", "nan", 'HAMI_SHARE: "nan" is no number'),
        ("HAMI_POLICY", "best", 'HAMI_POLICY: "best" is not known; write one of binpack, spread'),
    ],
)
def test_what_cannot_be_read_is_named(variable: str, value: str, sentence: str) -> None:
    """The variable, its value and the way out, in one sentence."""
    with pytest.raises(SettingsError) as caught:
        read(**{variable: value})

    assert str(caught.value).startswith(sentence)
    assert variable == caught.value.variable


def test_a_wrong_flag_is_named_with_its_variable() -> None:
    """Whoever passed the flag finds it in the sentence."""
    with pytest.raises(SettingsError, match=r'HAMI_BIND_TIMEOUT \(--bind-timeout\): "28" is no duration'):
        read("--bind-timeout", "28")
    with pytest.raises(SettingsError, match="--bind-timeout needs a value"):
        read("--bind-timeout")
    with pytest.raises(SettingsError, match="--bindtimeout: is no flag of this service; --help lists them"):
        read("--bindtimeout=28s")


def test_what_must_be_set_is_asked_for() -> None:
    """A setting without default names both its ways."""
    with pytest.raises(SettingsError, match="HAMI_NODE_NAME: is not set; set it, or pass --node-name"):
        load(Settings, [], {})


def test_certificate_and_key_go_together() -> None:
    """Half a TLS configuration is none."""
    with pytest.raises(SettingsError, match="HAMI_TLS_KEY: is absent"):
        read(HAMI_TLS_CERT="/c")
    with pytest.raises(SettingsError, match="HAMI_TLS_CERT: is absent"):
        read(HAMI_TLS_KEY="/k")
    with pytest.raises(SettingsError, match="HAMI_TLS_CLIENT_CA needs"):
        read(HAMI_TLS_CLIENT_CA="/ca")


def test_help_lists_every_flag_with_its_variable() -> None:
    """``--help`` is an answer, not an error."""
    with pytest.raises(Help) as caught:
        read("--help")

    text = str(caught.value)
    assert text.startswith("hami-test: a service that is not there.")
    assert ("--bind-timeout" in text, "HAMI_BIND_TIMEOUT" in text, "(default 28s)" in text) == (True, True, True)
    assert ("(default true)" in text, "(default 0s)" in text) == (True, True)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_add_up(hours: int, minutes: int, seconds: int, millis: int) -> None:
    """Any mixture of units that Go prints is read as its sum."""
    read_back = read_duration(f"{hours}h{minutes}m{seconds}s{millis}ms")

    assert read_back == pytest.approx(3600 * hours + 60 * minutes + seconds + millis / 1000)


@pytest.mark.parametrize("text", ["0s", "0.25s", "28s", "1m", "1m30s", "5m", "1h", "1h0.5s", "292h1m"])
def test_a_duration_is_shown_as_it_could_have_been_written(text: str) -> None:
    """``--help`` says 1m30s, not 90.0."""
    assert text == written(Duration, read_duration(text))


@given(st.text(max_size=12))
def test_no_text_breaks_the_readers(text: str) -> None:
    """Whatever is written, it is a value or a ValueError."""
    for reader in (read_duration, read_address):
        try:
            reader(text)
        except ValueError as e:
            assert "; write " in str(e)  # noqa: PT017


@pytest.mark.parametrize("url", ["http://nats", "nats://", "nats://h:port", ",", "nats://h:1,ftp://x"])
async def test_a_bus_that_cannot_be_is_refused_at_start(url: str) -> None:
    """A wrong URL is no connection that may come back: it is said at once."""
    with pytest.raises(SettingsError, match=r"HAMI_NATS_URL: .* is no NATS server"):
        async with connect(BusSettings(url=url), name="t", telemetry=Telemetry()):
            pass


async def test_bus_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """Credentials and CA are looked at before the first connection."""
    (tmp_path / "empty").write_text("")
    for settings, sentence in (
        (BusSettings(creds=tmp_path / "absent"), "HAMI_NATS_CREDS: .* cannot be read"),
        (BusSettings(creds=tmp_path / "empty"), "HAMI_NATS_CREDS: .* holds no NATS user JWT"),
        (BusSettings(ca=tmp_path / "absent"), "HAMI_NATS_CA: .* cannot be used"),
        (BusSettings(ca=tmp_path / "empty"), "HAMI_NATS_CA: .* cannot be used"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            async with connect(settings, name="t", telemetry=Telemetry()):
                pass


def test_a_trace_endpoint_that_is_no_url_is_refused() -> None:
    """Traces that would silently go nowhere are a mistake worth a sentence."""
    with pytest.raises(SettingsError, match='OTEL_EXPORTER_OTLP_ENDPOINT: "collector:4318" is no URL'):
        setup("t", CommonSettings(otel_endpoint="collector:4318"))


def test_the_device_config_is_read_or_named(tmp_path: Path) -> None:
    """HAMi's file, or the chart's defaults without one; what cannot be read names the variable and the key."""
    file = tmp_path / "device-config.yaml"
    assert load_device_config(None) is config.DEFAULTS
    file.write_text("nvidia:\n  resourceCountName: example.com/gpu\n")
    found = load_device_config(file).nvidia

    assert found is not None
    assert "example.com/gpu" == found.resource_count_name
    for text, sentence in (
        ("nvidia: [", "is no YAML"),
        ("[" * 5000, "is no YAML"),
        ("", "all configurations are empty"),
        (
            "nvidia:\n  memoryFactor: two\n",
            'line 2: nvidia.memoryFactor: "two" is no whole number; write one such as 1',
        ),
        ("vnpus:\n  configs:\n    - chipName: A\n", r"line 3: vnpus.configs\[0\]: has no commonWord"),
        ("nvidia:\n  a: 2001-13-45\n", "is no YAML"),
    ):
        file.write_text(text)
        with pytest.raises(SettingsError, match=f"HAMI_DEVICE_CONFIG: .*{sentence}"):
            load_device_config(file)
    with pytest.raises(SettingsError, match=r"HAMI_DEVICE_CONFIG: .*absent.* cannot be read"):
        load_device_config(tmp_path / "absent")


def test_a_key_that_nobody_reads_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """HAMi takes such a file, so our services start with it, and say what they do not read."""
    file = tmp_path / "device-config.yaml"
    file.write_text("nvidia:\n  resourceCountName: example.com/gpu\n  resourceCountNames: x\n")

    assert load_device_config(file) == config.parse({"nvidia": {"resourceCountName": "example.com/gpu"}})
    assert [
        f'HAMI_DEVICE_CONFIG: "{file}" line 3: unknown key nvidia.resourceCountNames; did you mean resourceCountName?'
    ] == caplog.messages
