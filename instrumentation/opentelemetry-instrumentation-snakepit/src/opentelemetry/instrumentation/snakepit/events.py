"""Events that adapters emit for Elixir, recorded by OpenTelemetry as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.instrumentation.snakepit.patches import Patches
from opentelemetry.instrumentation.snakepit.program_calls import guarded

from snakepit_otel.telemetry._foreign_events import ForeignEventRecorder


def observe(patches: Patches, module: Any) -> None:
    """Record what `snakepit_bridge.telemetry` emits; Elixir gets it as before.

    Elixir's controls apply to its own stream, and OpenTelemetry's settings to what is recorded here.
    """
    recorder = ForeignEventRecorder()

    def around(wrapped: Callable[..., Any], _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        guarded("recording an event", _record, recorder, *args, **kwargs)
        return wrapped(*args, **kwargs)

    patches.wrap(module, "emit", around)


def _record(
    recorder: ForeignEventRecorder,
    event: str,
    measurements: Any,
    metadata: Any = None,
    correlation_id: str | None = None,
) -> None:
    recorder.record(event, measurements, metadata, correlation_id)
