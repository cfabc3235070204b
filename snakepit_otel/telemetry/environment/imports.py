"""Imports OpenTelemetry, whose modules read variables as they are imported, and raise for some values."""

from __future__ import annotations

import os
from importlib import import_module

from snakepit_otel.telemetry.environment.applying import applied
from snakepit_otel.telemetry.environment.reading import Environment, taken_out
from snakepit_otel.telemetry.environment.variables import PROVIDERS, SIGNALS

_READERS = (
    "opentelemetry.context",
    "opentelemetry.propagate",
    "opentelemetry.trace",
    "opentelemetry.metrics",
    "opentelemetry._logs",
)
_READERS_OF_THE_SDK = ("opentelemetry.sdk.trace", "opentelemetry.sdk.metrics", "opentelemetry.sdk._logs")
# These ask for a meter and a logger, and by that for the provider that a variable may name.
_ASKING = ("snakepit_otel.telemetry._instruments", "snakepit_otel.telemetry._events")


def _import_all() -> None:
    read = Environment()
    for name in PROVIDERS.values():
        # The API looks for these whenever a tracer, meter or logger is asked for, and raises each time, even for
        # an empty one; by then it may be the user's code that asks.
        if name in os.environ and read.given(name) is None:
            taken_out[name] = os.environ.pop(name)
    texts = read.texts()
    try:
        with applied(texts):
            _import(_READERS)
    except Exception:  # noqa: BLE001 - a propagator or context of some package that cannot be loaded, which it has logged
        for name in ("OTEL_PROPAGATORS", "OTEL_PYTHON_CONTEXT"):
            texts.pop(name, None)
        with applied(texts):
            _import(_READERS)
    with applied(texts):
        # Where nothing is exported, the SDK is not needed, and takes longer to load than all the rest of a worker.
        if any(read.exporters(signal) for signal in SIGNALS):
            _import(_READERS_OF_THE_SDK)
        _import(_ASKING)


def _import(modules: tuple[str, ...]) -> None:
    for module in modules:
        import_module(module)


_import_all()
