"""The requests that a worker has, and their end when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class WorkerGone(Exception):
    """The worker's process ended while it had the request."""


class InFlight:
    """The tasks that wait for a worker's answers.

    A connection tells of a worker's death late where somebody else holds it open, such as a process that the
    adapter forked; `end_all` does not depend on it.
    """

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
            # As asyncio's own timeouts do: somebody else's cancellation is not ours to swallow.
            if call.ended and call.task.uncancel() <= call.cancelled_before:
                raise WorkerGone from None
            raise
        finally:
            self._calls.discard(call)

    def end_all(self) -> None:
        """End what is waited for, and what will be."""
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
