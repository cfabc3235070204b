"""Calls in flight of a worker, ended when the worker ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class WorkerGone(Exception):
    """The worker ended while it had the request."""


class CallsInFlight:
    """Tasks that wait for a worker's responses; `end_all` works even if another process holds the socket open."""

    def __init__(self) -> None:
        self._calls: set[_Call] = set()
        self._ended = False

    @contextmanager
    def until_end(self) -> Iterator[None]:
        """Have the block raise `WorkerGone` when the worker ends, whatever the block is waiting for."""
        if self._ended:
            raise WorkerGone
        call = _Call()
        self._calls.add(call)
        try:
            yield
        except asyncio.CancelledError:
            # As in asyncio's own timeouts: a cancellation by others must not be swallowed.
            if call.ended and call.task.uncancel() <= call.cancelled_before:
                raise WorkerGone from None
            raise
        finally:
            self._calls.discard(call)

    def end_all(self) -> None:
        """End the calls in flight, and all later ones."""
        self._ended = True
        for call in list(self._calls):
            call.end()


class _Call:
    __slots__ = ("cancelled_before", "ended", "task")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.cancelled_before = task.cancelling()
        self.ended = False

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.task.cancel()
