"""The one backend that events go to."""

from __future__ import annotations

from .backends.base import TelemetryBackend

_backend: TelemetryBackend | None = None


def set_backend(backend: TelemetryBackend | None) -> None:
    global _backend
    _backend = backend


def get_backend() -> TelemetryBackend | None:
    return _backend


def is_enabled() -> bool:
    return _backend is not None
