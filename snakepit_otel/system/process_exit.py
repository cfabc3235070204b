"""The end of a process that was asked to end: in good order where that can be, by force where it takes too long.

Code of users can hold an event loop, or the end of the interpreter, for good: a coroutine that does not wait, a task
that swallows its cancellation, a thread that is no daemon. A thread of ours ends the process in spite of them. Only
code that keeps the interpreter's lock cannot be ended from within.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from snakepit_otel.system import standard_streams

FORCED = 1
"""The exit status of a process that did not end in good order."""
_TIME_FOR_THE_INTERPRETER = 0.7
"""Seconds between the orderly end of what a process does and that of the process."""


class Ending:
    """Ends this process at the earliest time that it was given, if that has not ended by then."""

    def __init__(self) -> None:
        # Its `put` may be called in a signal handler, whatever that has interrupted.
        self._orders: SimpleQueue[tuple[float, int | None]] = SimpleQueue()
        self._pid = os.getpid()
        threading.Thread(target=self._watch, name="ending", daemon=True).start()

    def within(self, seconds: float) -> None:
        """End the process by then, with the status `FORCED` unless `done` gives another."""
        self._orders.put((time.monotonic() + seconds, None))

    def done(self, status: int = 0) -> None:
        """Let the interpreter end, as everything is done in good order; what still holds it up is not waited for."""
        self._orders.put((time.monotonic() + _TIME_FOR_THE_INTERPRETER, status))

    def _watch(self) -> None:
        at, status, orderly = float("inf"), FORCED, False
        while (left := at - time.monotonic()) > 0:
            with suppress(Empty):
                new, known = self._orders.get(timeout=min(left, threading.TIMEOUT_MAX))
                at = min(at, new)
                if known is not None:
                    status, orderly = known, True
        if not orderly:
            with suppress(Exception):
                sys.stderr.write("what tools or adapters were doing did not end in time, so the process was ended\n")
        standard_streams.drain()
        os._exit(status)


def on_stop_signals(tell: Callable[[], Any], ending: Ending, seconds: float) -> None:
    """Have SIGTERM and SIGINT call `tell` in the running event loop, and end the process within so many seconds.

    Also while something keeps the loop from turning, which is why these are no handlers of the loop's.
    """
    loop, pid = asyncio.get_running_loop(), os.getpid()

    def handle(number: int, _frame: object) -> None:
        if os.getpid() != pid:
            # The child of a fork: its signals are its own.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        ending.within(seconds)
        with suppress(RuntimeError):  # the loop has been closed: the end is near
            loop.call_soon_threadsafe(tell)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    wake_for_signals()


def wake_for_signals() -> None:
    """Have the running event loop wake for every signal, whichever thread it interrupts, so that its handler runs."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    asyncio.get_running_loop().add_reader(reading, reading.recv, 4096)
