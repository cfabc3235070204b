"""The backend that gives events to Elixir's telemetry stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import TelemetryBackend

if TYPE_CHECKING:
    from ..stream import TelemetryStream


class GrpcBackend(TelemetryBackend):
    """Hands everything on to a stream."""

    def __init__(self, stream: TelemetryStream) -> None:
        self._to = stream

    def emit(
        self,
        event_name: str,
        measurements: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        correlation_id: str | None = None,
    ) -> None:
        self._to.emit(event_name, measurements, metadata, correlation_id)

    def close(self) -> None:
        self._to.close()

    @property
    def stream(self) -> TelemetryStream:
        return self._to
