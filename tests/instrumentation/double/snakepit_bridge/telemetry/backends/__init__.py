"""Where events can go."""

from .base import TelemetryBackend

__all__ = ["TelemetryBackend"]
