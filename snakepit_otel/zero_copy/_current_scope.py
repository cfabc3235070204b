"""Which scope new references belong to: that of the request that is served, or the one of those that wait for one."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic

from snakepit_otel.zero_copy import _metrics as reports
from snakepit_otel.zero_copy._descriptor import Owner
from snakepit_otel.zero_copy._scope import Scope, over


class LooseScope(Scope):
    """References that wait for a request, which whoever created them holds; nobody else keeps them."""

    waits = True

    def __init__(self) -> None:
        super().__init__(Owner.ELIXIR)
        self._references = weakref.WeakValueDictionary()

    def sweep(self, now: float) -> None:
        """Release what has waited too long; `now` is the monotonic time in seconds."""
        for reference in list(self._references.values()):
            if now - reference.created > self.settings.unused_ttl / 1000:
                self.release(reference, reports.EXPIRED)

    def _admit(self, size: int) -> None:
        self.sweep(monotonic())
        limits = self.settings
        if size > limits.max_bytes:
            raise over("bytes in one reference", size, limits, "max_bytes")
        if self._bytes + size > limits.max_host_bytes:
            raise over("bytes that wait for a request", self._bytes + size, limits, "max_host_bytes")
        if len(self._references) >= limits.max_host_references:
            raise over("references that wait for a request", len(self._references) + 1, limits, "max_host_references")


loose = LooseScope()
_current: ContextVar[Scope | None] = ContextVar("snakepit_zero_copy_scope", default=None)


def current() -> Scope:
    """Return the scope of the request that the calling code serves, or the one of references that wait for one."""
    return _current.get() or loose


def enter(scope: Scope) -> None:
    """Make `scope` the current one of this task, and of what it starts."""
    _current.set(scope)


@contextmanager
def within(scope: Scope) -> Iterator[None]:
    """Make `scope` the current one for the block."""
    token = _current.set(scope)
    try:
        yield
    finally:
        _current.reset(token)
