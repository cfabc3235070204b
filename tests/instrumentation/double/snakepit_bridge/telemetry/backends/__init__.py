"""Destinations of events."""

from .base import TelemetryBackend

__all__ = ["TelemetryBackend"]
