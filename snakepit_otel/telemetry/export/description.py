"""Description of what a process exports, and where to."""

from __future__ import annotations

from collections.abc import Collection

from snakepit_otel.common.secrets import masked_url
from snakepit_otel.telemetry.environment import Environment
from snakepit_otel.telemetry.environment.endpoints import GRPC, HTTP
from snakepit_otel.telemetry.environment.variables import SIGNALS

_PROTOCOLS = {"otlp_proto_grpc": GRPC, "otlp_proto_http": HTTP}
_DEFAULT_ENDPOINTS = {GRPC: "http://localhost:4317", HTTP: "http://localhost:4318"}


def describe_exports(read: Environment, exported: Collection[str]) -> str:
    """Return the exported signals with protocol and endpoint, without secrets: `traces, logs over grpc to http://h:1`."""
    signals: dict[str, list[str]] = {}
    for signal in SIGNALS:
        for exporter in read.exporters(signal) if signal in exported else ():
            protocol = _PROTOCOLS.get(exporter)
            if protocol is None:
                where = f"to {exporter}"
            else:
                endpoint = read.of_signal(signal, "ENDPOINT") or _DEFAULT_ENDPOINTS[protocol]
                where = f"over {protocol} to {masked_url(endpoint)}"
            signals.setdefault(where, []).append(signal)
    return "; ".join(f"{', '.join(names)} {where}" for where, names in signals.items())
