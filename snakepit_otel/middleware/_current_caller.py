"""The caller of the remote call that the current task serves."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar

from snakepit_otel.middleware._base import Caller

_THIS_PROCESS = Caller()
_current: ContextVar[Caller] = ContextVar("current_caller", default=_THIS_PROCESS)
get = _current.get


def enter(
    name: str, metadata: Iterable[tuple[str, str | bytes]], *, is_trusted: bool, tls_subject: str | None = None
) -> None:
    """Make a caller the current one, for the rest of the task."""
    headers = {key: value for key, value in metadata if isinstance(value, str)}
    _current.set(Caller(name, is_trusted, tls_subject, headers))
