"""Contract of a backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class TelemetryBackend(ABC):
    """Takes events."""

    @abstractmethod
    def emit(
        self,
        event_name: str,
        measurements: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        correlation_id: str | None = None,
    ) -> None:
        """Take one event."""

    def close(self) -> None:  # noqa: B027
        """Let go of what it holds."""
