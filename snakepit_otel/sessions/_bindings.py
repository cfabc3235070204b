"""Sessions bound to an owner: they end when it does."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from snakepit_otel.errors import InvalidSession

_log = logging.getLogger("snakepit_otel.sessions")

End = Callable[[str], Awaitable[Any]]


class Binding:
    """A session's tie to one owner.

    It `stands` until the session has ended or the owner lets go of it; it never passes to a later session
    of the same id.
    """

    __slots__ = ("ending", "lost", "session_id", "stands", "stop")

    def __init__(self, session_id: str, stop: Callable[[], object], lost: Callable[[], object]) -> None:
        self.session_id = session_id
        self.stop = stop
        self.lost = lost
        self.stands = True
        self.ending = False


class Bindings:
    """Which sessions end with which owner."""

    def __init__(self, end: End) -> None:
        self._end = end
        self._standing: dict[str, list[Binding]] = {}
        self._ending: set[asyncio.Future[Any]] = set()

    def bind(self, session_id: str, *, stop: Callable[[], object] = bool, lost: Callable[[], object] = bool) -> Binding:
        """Tie the session to an owner, whose end is to be told by `end`.

        `stop` is called once, when there is nothing to watch the owner for any more; `lost` if that is because
        the session has ended without it.
        """
        binding = Binding(session_id, stop, lost)
        self._standing.setdefault(session_id, []).append(binding)
        return binding

    def bind_to_task(self, session_id: str, task: asyncio.Task[Any]) -> None:
        """End the session when `task` is done, however it ends."""

        def done(_: asyncio.Task[Any]) -> None:
            self.end(binding)

        binding = self.bind(session_id, stop=lambda: task.remove_done_callback(done))
        task.add_done_callback(done)

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

        binding = self.bind(session_id, stop=stop)
        loop.add_reader(descriptor, self.end, binding)

    def end(self, binding: Binding) -> asyncio.Future[bool]:
        """End the session of an owner that is gone; the result says whether it was there to be ended.

        It goes on whether or not anybody waits for it.
        """
        if binding.stands and not binding.ending:
            binding.ending = True
            binding.stop()
        ending = asyncio.ensure_future(self._end_if_it_stands(binding))
        self._ending.add(ending)
        ending.add_done_callback(self._ended)
        return ending

    def untie(self, binding: Binding) -> None:
        """Let the owner go without its session."""
        if not binding.stands:
            return
        self._drop(binding)
        if not binding.ending:
            binding.stop()

    def release(self, session_id: str) -> None:
        """Stop watching the session's owners: it has ended, and its id may belong to another one soon."""
        for binding in self._standing.pop(session_id, ()):
            binding.stands = False
            if not binding.ending:
                binding.stop()
                binding.lost()

    async def close(self) -> None:
        """Stop watching; what is being ended is finished first."""
        for bindings in list(self._standing.values()):
            for binding in list(bindings):
                if not binding.ending:
                    self.untie(binding)
        while self._ending:
            await asyncio.wait(self._ending)
            # Those that are done leave the set in the loop's next turn.
            await asyncio.sleep(0)

    async def _end_if_it_stands(self, binding: Binding) -> bool:
        # Since the owner went, the session may have been deleted, and its id taken by somebody else's.
        if not binding.stands:
            return False
        try:
            return bool(await self._end(binding.session_id))
        finally:
            if binding.stands:
                self._drop(binding)

    def _drop(self, binding: Binding) -> None:
        binding.stands = False
        bindings = self._standing[binding.session_id]
        bindings.remove(binding)
        if not bindings:
            del self._standing[binding.session_id]

    def _ended(self, ending: asyncio.Future[bool]) -> None:
        self._ending.discard(ending)
        if not ending.cancelled() and (error := ending.exception()) is not None:
            _log.error("a session could not be ended with its owner, and stays for its TTL", exc_info=error)
