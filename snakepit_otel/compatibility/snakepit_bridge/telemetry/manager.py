"""Backend of events."""

from __future__ import annotations

from typing import Any

__snakepit_otel__ = True

_backends: list[Any] = []


def set_backend(backend: Any) -> None:
    """Have events go to `backend`, which has `emit` and `close`; to nobody, if it is None."""
    _backends[:] = [] if backend is None else [backend]


def get_backend() -> Any:
    """Return where events go, or None."""
    return _backends[0] if _backends else None


def is_enabled() -> bool:
    """Say whether events go anywhere."""
    return bool(_backends)
