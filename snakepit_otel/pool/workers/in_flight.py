"""Calls in flight of a worker, ended when the worker ends."""

from __future__ import annotations

import asyncio
from types import TracebackType


class WorkerGone(Exception):
    """The worker ended while it had the request."""


class CallsInFlight:
    """Tasks that wait for a worker's responses; `end_all` works even if another process holds the socket open."""

    def __init__(self) -> None:
        self.calls: set[_Call] = set()
        self.has_ended = False

    def until_end(self) -> _Call:
        """Have the block raise `WorkerGone` when the worker ends, whatever the block is waiting for."""
        return _Call(self)

    def end_all(self) -> None:
        """End the calls in flight, and all later ones."""
        self.has_ended = True
        for call in list(self.calls):
            call.end()


class _Call:
    __slots__ = ("_cancelled_before", "_has_ended", "_of", "_task")

    def __init__(self, of: CallsInFlight) -> None:
        self._of = of

    def __enter__(self) -> None:
        if self._of.has_ended:
            raise WorkerGone
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelled_before = task.cancelling()
        self._has_ended = False
        self._of.calls.add(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._of.calls.discard(self)
        # As in asyncio's own timeouts: a cancellation by others must not be swallowed.
        if (
            self._has_ended
            and isinstance(error, asyncio.CancelledError)
            and self._task.uncancel() <= self._cancelled_before
        ):
            raise WorkerGone from None

    def end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._task.cancel()
