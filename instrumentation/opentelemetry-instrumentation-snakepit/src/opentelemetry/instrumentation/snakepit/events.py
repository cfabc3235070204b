"""Events that adapters emit for Elixir, folded into OpenTelemetry where they happen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.instrumentation.snakepit.patches import Patches
from opentelemetry.instrumentation.snakepit.seam import quietly

from snakepit_otel.telemetry._foreign_events import ForeignEventRecorder


def observe(patches: Patches, module: Any) -> None:
    """Fold what is emitted by `snakepit_bridge.telemetry`; Elixir gets it as before.

    Elixir's controls are for its own stream; what OpenTelemetry keeps is decided by its own settings.
    """
    fold = ForeignEventRecorder()

    def around(wrapped: Callable[..., Any], _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        quietly("folding an event", _tell, fold, *args, **kwargs)
        return wrapped(*args, **kwargs)

    patches.wrap(module, "emit", around)


def _tell(
    fold: ForeignEventRecorder, event: str, measurements: Any, metadata: Any = None, correlation_id: str | None = None
) -> None:
    fold.record(event, measurements, metadata, correlation_id)
