"""What the extender refuses to start with, and in which words."""

import pytest
from hami_extender.settings import ExtenderSettings
from hami_kit.errors import SettingsError
from hami_kit.settings import load

TLS = {"HAMI_TLS_CERT": "/c.pem", "HAMI_TLS_KEY": "/k.pem"}


def settings(**environ: str) -> ExtenderSettings:
    """Read the settings from an environment."""
    return load(ExtenderSettings, [], environ)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.9.9.9:80", "localhost:8080", "[::1]:8080"])
def test_the_loopback_needs_no_certificate(address: str) -> None:
    """kube-scheduler runs beside it."""
    assert settings(HAMI_LISTEN=address).tls_client_ca is None


def test_by_default_it_listens_on_the_loopback() -> None:
    """Nobody else can book devices unless somebody opens it."""
    assert "127.0.0.1:8080" == str(settings().listen)


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "10.0.0.1:8080", "[::]:8080", "scheduler.kube-system:8080"])
def test_other_addresses_demand_client_certificates(address: str) -> None:
    """Whoever reaches it can book devices; a server certificate alone keeps nobody out."""
    for environ in ({}, TLS):
        with pytest.raises(SettingsError) as refused:
            settings(HAMI_LISTEN=address, **environ)

        assert str(refused.value).startswith(f'HAMI_LISTEN: "{address}" is no loopback address')
        assert str(refused.value).endswith("listen on 127.0.0.1, or demand client certificates with HAMI_TLS_CLIENT_CA")
    assert address == str(settings(HAMI_LISTEN=address, HAMI_TLS_CLIENT_CA="/ca.pem", **TLS).listen)


@pytest.mark.parametrize(("given", "missing"), [("CERT", "KEY"), ("KEY", "CERT")])
def test_a_certificate_and_its_key_are_set_together(given: str, missing: str) -> None:
    """One without the other never falls back to plain HTTP in silence."""
    with pytest.raises(SettingsError) as refused:
        settings(**{f"HAMI_TLS_{given}": "/x.pem"})

    expected = f"HAMI_TLS_{missing}: is absent; HAMI_TLS_CERT and HAMI_TLS_KEY are set together or not at all"
    assert expected == str(refused.value)


def test_client_certificates_need_a_server_certificate() -> None:
    """Plain HTTP can ask nobody for a certificate."""
    with pytest.raises(SettingsError, match=r"^HAMI_TLS_CERT: is absent; HAMI_TLS_CLIENT_CA needs HAMI_TLS_CERT"):
        settings(HAMI_LISTEN="0.0.0.0:8080", HAMI_TLS_CLIENT_CA="/ca.pem")
