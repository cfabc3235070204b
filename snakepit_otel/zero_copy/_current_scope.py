"""Current scope of new references: that of the request that is served, or the one of references without a request."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic

from snakepit_otel.zero_copy import _metrics as metrics
from snakepit_otel.zero_copy._descriptor import Owner
from snakepit_otel.zero_copy._limits import check_limit
from snakepit_otel.zero_copy._scope import Scope


class PendingScope(Scope):
    """References of a request to come. Only their creators hold them, so the scope has weak references to them."""

    is_pending = True

    def __init__(self) -> None:
        super().__init__(Owner.ELIXIR)
        self._references = weakref.WeakValueDictionary()

    def sweep(self, now: float) -> None:
        """Release references older than `unused_ttl`; `now` is the monotonic time in seconds."""
        for reference in list(self._references.values()):
            if now - reference.created > self.settings.unused_ttl / 1000:
                self.release(reference, metrics.EXPIRED)

    def _check_limits(self, size: int) -> None:
        self.sweep(monotonic())
        limits = self.settings
        check_limit(limits, "max_bytes", size, "bytes in one reference")
        check_limit(limits, "max_host_bytes", self._bytes + size, "bytes that wait for a request")
        check_limit(limits, "max_host_references", len(self._references) + 1, "references that wait for a request")


pending_scope = PendingScope()
_current: ContextVar[Scope | None] = ContextVar("snakepit_zero_copy_scope", default=None)


def current() -> Scope:
    """Return the scope of the request that the calling code serves, or `pending_scope`."""
    return _current.get() or pending_scope


def set_current(scope: Scope) -> None:
    """Make `scope` the current one of this task, and of the tasks that it starts."""
    _current.set(scope)


@contextmanager
def within(scope: Scope) -> Iterator[None]:
    token = _current.set(scope)
    try:
        yield
    finally:
        _current.reset(token)
