"""A collector on this machine gets its telemetry without the proxies that the environment names."""

from __future__ import annotations

import pytest
import requests
from requests.adapters import HTTPAdapter

from snakepit_otel.telemetry.export.otlp_grpc import proxy_options
from snakepit_otel.telemetry.export.otlp_http import bypass_proxy
from tests.telemetry.difficult_sink import DifficultSink
from tests.telemetry.otlp_exporters import exporter_of_environment


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_exports_go_straight(monkeypatch: pytest.MonkeyPatch, protocol: str, host: str) -> None:
    """With every proxy variable set, an export reaches it."""
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with DifficultSink(protocol=protocol) as sink:
        for name, value in sink.environ.items():
            monkeypatch.setenv(name, value.replace("127.0.0.1", host))
        exporter = exporter_of_environment(protocol)
        try:
            assert exporter.export_bytes(b"").accepted
        finally:
            exporter.abort()


def test_others_are_exported_to_as_the_environment_says() -> None:
    """Another machine may be behind a proxy, and a session with means of its own for this one keeps them."""
    session = requests.Session()
    usual = session.get_adapter("http://example.invalid/")
    bypass_proxy(session, "http://example.invalid:4318/v1/traces")
    assert session.get_adapter("http://example.invalid/") is usual
    assert proxy_options("example.invalid:4317") == ()

    class Special(HTTPAdapter):
        pass

    session.mount("http://", special := Special())
    bypass_proxy(session, "http://localhost:4318/v1/traces")
    assert session.get_adapter("http://localhost/") is special
