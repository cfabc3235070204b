"""Import of what `setup` needs in the present environment, for a process that is to be forked before its set-up."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from snakepit_otel.telemetry import _controls
from snakepit_otel.telemetry.environment import Environment, applied
from snakepit_otel.telemetry.environment.variables import SIGNALS

_EXPORT = "snakepit_otel.telemetry.export"
_TRANSPORTS = {
    # gRPC imports the second one for its first channel.
    "otlp_proto_grpc": (f"{_EXPORT}.otlp_grpc", "grpc._channel"),
    "otlp_proto_http": (f"{_EXPORT}.otlp_http",),
}


def preload() -> None:
    """Import the pipelines and the transports of OTLP, where anything is exported. Raises nothing."""
    read = Environment()
    exporters = {name for signal in SIGNALS for name in read.exporters(signal)}
    if not exporters or read["OTEL_SDK_DISABLED"] or read["SNAKEPIT_TELEMETRY_LEVEL"] == _controls.Level.OFF:
        return
    modules = [f"{_EXPORT}.providers", "snakepit_otel.telemetry.spans.fast.compat"]
    for name in exporters & _TRANSPORTS.keys():
        modules += _TRANSPORTS[name]
    # What cannot be imported is reported by the set-up of each worker.
    with suppress(Exception), applied(read.texts()):
        for module in modules:
            import_module(module)
