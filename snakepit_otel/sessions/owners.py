"""Sessions bound to an owner: they end when it does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from snakepit_otel.errors import InvalidSession

End = Callable[[str], Awaitable[Any]]


class Bindings:
    """Which sessions end with which task or process."""

    def __init__(self, end: End) -> None:
        self._end = end
        self._watches: dict[str, list[Callable[[], object]]] = {}
        self._ending: set[asyncio.Future[Any]] = set()

    def bind_to_task(self, session_id: str, task: asyncio.Task[Any]) -> None:
        """End the session when `task` is done, however it ends."""

        def done(_: asyncio.Task[Any]) -> None:
            self._owner_gone(session_id)

        task.add_done_callback(done)
        self._watch(session_id, lambda: task.remove_done_callback(done))

    def bind_to_process(self, session_id: str, pid: int) -> None:
        """End the session when the process is gone, however it goes.

        Raises `InvalidSession` if there is no such process. Linux 5.3 or later.
        """
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.pidfd_open(pid)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise InvalidSession(f"cannot bind session {session_id!r} to process {pid}: {why}") from None

        def stop() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)

        loop.add_reader(descriptor, self._owner_gone, session_id)
        self._watch(session_id, stop)

    def release(self, session_id: str) -> None:
        """Stop watching the session's owners: it has ended, and its id may belong to another one soon."""
        for stop in self._watches.pop(session_id, ()):
            stop()

    async def close(self) -> None:
        """Stop watching; what is being ended is finished first."""
        for session_id in list(self._watches):
            self.release(session_id)
        if self._ending:
            await asyncio.wait(self._ending)

    def _watch(self, session_id: str, stop: Callable[[], object]) -> None:
        self._watches.setdefault(session_id, []).append(stop)

    def _owner_gone(self, session_id: str) -> None:
        self.release(session_id)
        ending = asyncio.ensure_future(self._end(session_id))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
