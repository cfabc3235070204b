"""OTLP exporters of tests."""

from __future__ import annotations

from typing import Any

from snakepit_otel.telemetry.environment import Environment
from snakepit_otel.telemetry.environment.endpoints import GRPC, HTTP
from snakepit_otel.telemetry.export.exporters import OtlpExporter
from snakepit_otel.telemetry.export.otlp_settings import OtlpSettings
from snakepit_otel.telemetry.export.providers import otlp_exporter


def grpc_exporter(endpoint: str, signal: str = "traces", **settings: Any) -> OtlpExporter:
    """An exporter over gRPC."""
    return otlp_exporter(OtlpSettings(signal, endpoint, **settings), GRPC)


def http_exporter(endpoint: str, signal: str = "traces", **settings: Any) -> OtlpExporter:
    """An exporter over HTTP."""
    return otlp_exporter(OtlpSettings(signal, endpoint, **settings), HTTP)


def exporter_of_environment(protocol: str, signal: str = "traces") -> OtlpExporter:
    """The exporter that the environment's variables make."""
    return otlp_exporter(OtlpSettings.from_environment(signal, protocol, Environment()), protocol)
