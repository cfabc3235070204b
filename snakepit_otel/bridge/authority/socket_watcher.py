"""Watching of sockets, which are made again after their removal, as by a cleaner of /tmp."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from snakepit_otel.common.printable import printable, printable_error
from snakepit_otel.errors import SnakepitError
from snakepit_otel.system.socket_files import SocketFile

_log = logging.getLogger("snakepit_otel.authority")
_INTERVAL_S = 0.25  # each check costs a few system calls, ten microseconds in all


class WatchedSocket:
    """A socket that `listen` has made, and makes again when it has been gone for `delay` seconds.

    Whoever is connected notices nothing of that.
    """

    def __init__(self, made: SocketFile, listen: Callable[[], Awaitable[SocketFile]], *, delay: float = 0.0) -> None:
        self._made = made
        self._listen = listen
        self._delay = delay
        self._missing_since: float | None = None
        self._failure = ""
        self._is_abandoned = False

    def abandon(self) -> None:
        """Leave the path to another server."""
        self._is_abandoned = True

    async def check(self) -> None:
        """Make it again if it is time for that; what keeps it from being made is logged once, and tried again."""
        if self._made.exists or self._is_abandoned:
            self._missing_since = None
            return
        if self._missing_since is None:
            self._missing_since = time.monotonic()
        if time.monotonic() - self._missing_since < self._delay:
            return
        before = self._made.path
        try:
            self._made = await self._listen()
        except (SnakepitError, OSError) as error:
            if str(error) != self._failure:
                _log.error("%s is gone, and cannot be made again: %s", printable(before), printable_error(error))
            self._failure = str(error)
            return
        self._missing_since, self._failure = None, ""
        _log.warning("%s was gone, and was made again as %s", printable(before), printable(self._made.path))


class SocketWatcher:
    """Checks sockets four times a second, each time after `ensure` has checked their directory.

    `on_turn` is called each time, too.
    """

    def __init__(
        self, sockets: Sequence[WatchedSocket], ensure: Callable[[], None], on_turn: Callable[[], None] | None = None
    ) -> None:
        self._sockets = sockets
        self._on_turn = on_turn
        self._ensure = ensure
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="keeps sockets")

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL_S)
            # If the directory cannot be made, making its socket fails with the reason.
            with suppress(SnakepitError, OSError):
                self._ensure()
            for watched in self._sockets:
                await watched.check()
            if self._on_turn is not None:
                self._on_turn()
