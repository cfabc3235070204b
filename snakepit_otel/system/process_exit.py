"""Exit of a process after a stop signal: orderly if possible, forced where it takes too long.

User code can hold the event loop, or the exit of the interpreter, for good: a coroutine that never awaits, a task that
swallows its cancellation, a non-daemon thread. A thread of this module ends the process all the same. Only code that
holds the interpreter's lock cannot be ended from within.
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

FORCED_EXIT_STATUS = 1
_INTERPRETER_EXIT_SECONDS = 0.7


class ProcessExit:
    """Ends this process at the earliest deadline that was set, unless it has ended by then."""

    def __init__(self) -> None:
        # `SimpleQueue.put` is reentrant, so a signal handler may call it.
        self._deadlines: SimpleQueue[tuple[float, int | None]] = SimpleQueue()
        self._pid = os.getpid()
        threading.Thread(target=self._watch, name="process_exit", daemon=True).start()

    def within(self, seconds: float) -> None:
        """End the process within this time, with `FORCED_EXIT_STATUS` unless `done` sets another."""
        self._deadlines.put((time.monotonic() + seconds, None))

    def done(self, status: int = 0) -> None:
        """Let the interpreter exit after an orderly stop; code that still holds it up gets 0.7 seconds."""
        self._deadlines.put((time.monotonic() + _INTERPRETER_EXIT_SECONDS, status))

    def _watch(self) -> None:
        at, status, orderly = float("inf"), FORCED_EXIT_STATUS, False
        while (left := at - time.monotonic()) > 0:
            with suppress(Empty):
                new, new_status = self._deadlines.get(timeout=min(left, threading.TIMEOUT_MAX))
                at = min(at, new)
                if new_status is not None:
                    status, orderly = new_status, True
        if not orderly:
            with suppress(Exception):
                sys.stderr.write("tools or adapters did not stop in time, so the process was ended\n")
        standard_streams.drain()
        os._exit(status)


def on_stop_signals(on_stop: Callable[[], Any], process_exit: ProcessExit, seconds: float) -> None:
    """Call `on_stop` in the running event loop at SIGTERM and SIGINT, and end the process within `seconds`.

    These are no handlers of the loop, so that they run while user code blocks it.
    """
    loop, pid = asyncio.get_running_loop(), os.getpid()

    def handle(number: int, _frame: object) -> None:
        if os.getpid() != pid:
            # The child of a fork: its signals must not end its parent.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        process_exit.within(seconds)
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(on_stop)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    wake_for_signals()


def wake_for_signals() -> None:
    """Wake the running event loop for every signal, whichever thread it interrupts, so that its handler runs."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    asyncio.get_running_loop().add_reader(reading, reading.recv, 4096)
