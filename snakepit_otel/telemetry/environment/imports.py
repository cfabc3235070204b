"""Import of OpenTelemetry, whose modules read variables as they are imported, and raise for some values."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module

from snakepit_otel.telemetry.environment.sdk_variables import applied
from snakepit_otel.telemetry.environment.values import Environment, removed
from snakepit_otel.telemetry.environment.variables import PROVIDERS, SIGNALS

_READERS = (
    "opentelemetry.context",
    "opentelemetry.propagate",
    "opentelemetry.trace",
    "opentelemetry.metrics",
    "opentelemetry._logs",
)
_READERS_OF_THE_SDK = ("opentelemetry.sdk.trace", "opentelemetry.sdk.metrics", "opentelemetry.sdk._logs")
# These get a meter and a logger, and with them the provider that a variable may name.
_PROVIDER_USERS = ("snakepit_otel.telemetry._instruments", "snakepit_otel.telemetry._events")


def _import_all() -> None:
    read = Environment()
    for name in PROVIDERS.values():
        # The API reads these whenever code gets a tracer, meter or logger, and raises each time, even for an empty
        # one; by then it may be the user's code.
        if name in os.environ and read.given(name) is None:
            removed[name] = os.environ.pop(name)
    texts = read.texts()
    imported = False
    # The API logs a propagator or context that it cannot load, and raises.
    with suppress(Exception), applied(texts):
        _import(_READERS)
        imported = True
    if not imported:
        for name in ("OTEL_PROPAGATORS", "OTEL_PYTHON_CONTEXT"):
            texts.pop(name, None)
        with applied(texts):
            _import(_READERS)
    with applied(texts):
        # The SDK takes longer to load than all the rest of a worker, and is needed for exports only.
        if any(read.exporters(signal) for signal in SIGNALS):
            _import(_READERS_OF_THE_SDK)
        _import(_PROVIDER_USERS)


def _import(modules: tuple[str, ...]) -> None:
    for module in modules:
        import_module(module)


_import_all()
