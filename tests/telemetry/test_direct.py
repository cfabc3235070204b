"""A collector on this machine gets its telemetry without the proxies that the environment names."""

from __future__ import annotations

import pytest
import requests
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from requests.adapters import HTTPAdapter

from snakepit_otel.telemetry.export.direct import direct_options, go_direct
from snakepit_otel.telemetry.export.peer import Peer
from tests.telemetry.difficult_sink import DifficultSink


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
        exporter = GrpcExporter() if protocol == "grpc" else HttpExporter()
        peer = Peer(exporter, "traces")
        try:
            assert peer.export_bytes(b"").accepted
        finally:
            peer.abort()


def test_others_are_exported_to_as_the_environment_says() -> None:
    """Another machine may be behind a proxy, and a session with means of its own for this one keeps them."""
    session = requests.Session()
    usual = session.get_adapter("http://example.invalid/")
    go_direct(session, "http://example.invalid:4318/v1/traces")
    assert session.get_adapter("http://example.invalid/") is usual
    assert direct_options("example.invalid:4317") == ()

    class Special(HTTPAdapter):
        pass

    session.mount("http://", special := Special())
    go_direct(session, "http://localhost:4318/v1/traces")
    assert session.get_adapter("http://localhost/") is special
