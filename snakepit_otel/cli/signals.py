"""Signal handling of `serve`: stop, and replace the workers or the server."""

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
from snakepit_otel.cli.successor import Successor
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.errors import SnakepitError
from snakepit_otel.system import service_manager
from snakepit_otel.system.process_exit import ProcessExit, wake_for_signals

_log = logging.getLogger("snakepit_otel.authority")


EXIT_MARGIN_S = 2.9  # beyond the grace


class Signals:
    """Handler of signals: SIGTERM and SIGINT stop, the second time at once; SIGHUP replaces all workers.

    SIGUSR2 starts the same command again, to take over from this server.

    The handler does not wait for the event loop. Before `on_started`, there is no grace: the process exits within
    `EXIT_MARGIN_S`. `grace_ends` is on the monotonic clock; None before the first signal to stop.
    """

    def __init__(self, process_exit: ProcessExit) -> None:
        self._process_exit = process_exit
        self._pit: Snakepit | None = None
        self._pid = os.getpid()
        self._grace = 0.0
        self._stop_signals = 0
        self.grace_ends: float | None = None
        self.successor: int | None = None  # the pid of the server for which this one stops
        self._importing = False
        self.stop_requested = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self._replacement: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._new_server = Successor(on_failed=self._on_reloaded)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, self._handle)
        wake_for_signals()

    @contextmanager
    def importing(self) -> Iterator[None]:
        """Run synchronous code of users, which a signal ends with `SystemExit`."""
        self._importing = True
        try:
            if self._stop_signals:
                raise SystemExit(0)
            yield
        finally:
            self._importing = False

    def on_started(self, pit: Snakepit) -> None:
        """Use the server's grace from here on, and have SIGHUP replace its workers."""
        self._pit, self._grace = pit, pit.longest_grace

    def on_handed_over(self, successor: int) -> None:
        """Stop within the grace, as after a first signal: another server has the addresses."""
        self.successor = successor
        self._begin_to_stop()

    async def drain(self) -> None:
        """Wait until running requests have ended, the grace is over, or a second signal comes."""
        assert self._pit is not None
        waits = [asyncio.ensure_future(self._pit.drain()), asyncio.ensure_future(self._stop_at_once.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self._replacement is not None:
            self._replacement.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    def _handle(self, number: int, _frame: object) -> None:
        """Handle a signal; called in the main thread between any two instructions."""
        if os.getpid() != self._pid:
            # The child of a fork: its signals are its own.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGHUP:
            self._schedule(self._start_replacement)
            return
        if number == signal.SIGUSR2:
            self._schedule(self._start_successor)
            return
        self._begin_to_stop()
        if self._importing:
            raise SystemExit(0)

    def _begin_to_stop(self) -> None:
        self._stop_signals += 1
        grace = self._grace if self._stop_signals == 1 else 0.0
        if self._pit is not None:
            grace += self._pit.stop_hook_time
        if self.grace_ends is None:
            self.grace_ends = time.monotonic() + grace
        self._process_exit.within(grace + EXIT_MARGIN_S)
        self._schedule(self._stop)

    def _schedule(self, function: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function)

    def _stop(self) -> None:
        if self.stop_requested.is_set():
            self._stop_at_once.set()
        self.stop_requested.set()

    def _start_replacement(self) -> None:
        if self._pit is None or self.stop_requested.is_set():
            return
        if self._replacement is not None and not self._replacement.done():
            _log.warning("SIGHUP ignored: the workers are already being replaced")
            return
        service_manager.reloading()
        self._replacement = asyncio.get_running_loop().create_task(self._replace_all())
        self._replacement.add_done_callback(lambda _: self._on_reloaded())

    def _on_reloaded(self) -> None:
        if not self.stop_requested.is_set():
            service_manager.ready_again()

    def _start_successor(self) -> None:
        if self._pit is None or self.stop_requested.is_set():
            return
        service_manager.reloading()
        self._new_server.start()

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
