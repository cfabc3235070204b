"""What signals tell a running authority."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from snakepit_otel.app import Snakepit
from snakepit_otel.bridge.wire.restart_report import Replacement
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.errors import SnakepitError
from snakepit_otel.system.process_exit import ProcessExit, wake_for_signals

_log = logging.getLogger("snakepit_otel.authority")


TIME_BEYOND_GRACE = 2.9
"""Seconds that a server which was told to stop has beyond its grace."""


class Signals:
    """SIGTERM and SIGINT: stop, and the second time at once. SIGHUP: replace all workers, one after the other.

    They are obeyed from the first moment on, whatever the event loop does. Until `serves` is called, there is nothing
    to be finished, and the process has `TIME_BEYOND_GRACE` to be gone.
    """

    def __init__(self, ending: ProcessExit) -> None:
        self._ending = ending
        self._pit: Snakepit | None = None
        self._pid = os.getpid()
        self._grace = 0.0
        self._times = 0
        self.grace_ends: float | None = None
        """When requests that run have had their time, on the monotonic clock; None before the first signal to stop."""
        self._importing = False
        self.told_to_stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self._rolling: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._handle)
        wake_for_signals()

    @contextmanager
    def importing(self) -> Iterator[None]:
        """Run code of users that is not awaited, and that a signal ends with `SystemExit`."""
        self._importing = True
        try:
            if self._times:
                raise SystemExit(0)
            yield
        finally:
            self._importing = False

    def serves(self, pit: Snakepit) -> None:
        """Have requests end within the grace of this one from here on, and SIGHUP replace its workers."""
        self._pit, self._grace = pit, pit.longest_grace

    async def drain(self) -> None:
        """Return when the requests that run have ended, or have had their time, or when told again to stop."""
        assert self._pit is not None
        waits = [asyncio.ensure_future(self._pit.drain()), asyncio.ensure_future(self._stop_at_once.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self._rolling is not None:
            self._rolling.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    def _handle(self, number: int, _frame: object) -> None:
        """Take a signal, in the main thread, and between any two of its instructions."""
        if os.getpid() != self._pid:
            # The child of a fork: its signals are its own.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGHUP:
            self._schedule(self._roll)
            return
        self._times += 1
        grace = self._grace if self._times == 1 else 0.0
        if self.grace_ends is None:
            self.grace_ends = time.monotonic() + grace
        self._ending.within(grace + TIME_BEYOND_GRACE)
        self._schedule(self._stop)
        if self._importing:
            raise SystemExit(0)

    def _schedule(self, function: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has been closed: the end is near
            self._loop.call_soon_threadsafe(function)

    def _stop(self) -> None:
        if self.told_to_stop.is_set():
            self._stop_at_once.set()
        self.told_to_stop.set()

    def _roll(self) -> None:
        if self._pit is None or self.told_to_stop.is_set():
            return
        if self._rolling is not None and not self._rolling.done():
            _log.warning("told to replace the workers while they are being replaced: once is enough")
            return
        self._rolling = asyncio.get_running_loop().create_task(self._replace_all())

    async def _replace_all(self) -> None:
        def note(replacement: Replacement) -> None:
            _log.info(
                "worker %s: %s; %d to go",
                printable(replacement.worker),
                printable(replacement.failure or f"replaced by {replacement.replacement}", MAX_MESSAGE_CHARACTERS),
                replacement.remaining,
            )

        assert self._pit is not None
        try:
            report = await self._pit.restart_workers(None, note)
        except SnakepitError as error:
            _log.error("the workers were not replaced: %s", printable(error, MAX_MESSAGE_CHARACTERS))
            return
        _log.info("%d workers were replaced, %d were not", len(report.replacements), len(report.failures))
