"""Daemon thread for deferred work: freeing memory, and what a finaliser must not do itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from snakepit_otel.common.guard import guard

_log = logging.getLogger("snakepit_otel.zero_copy")


class Reaper:
    """Calls functions in a daemon thread, in order.

    Closing the last descriptor of a large memfd frees its pages, which takes milliseconds that no request should
    wait for. Finalisers run wherever the garbage collector does, also where a lock is held; a simple queue is all that
    they may use.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, function: Callable[[], object]) -> None:
        self._queue.put(function)
        if self._thread is None and self._lock.acquire(blocking=False):
            # Without the lock, another thread is starting the daemon.
            try:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="zero-copy reaper", daemon=True)
                    self._thread.start()
            finally:
                self._lock.release()

    def drain(self) -> None:
        done = threading.Event()
        self.submit(done.set)
        done.wait()

    def _run(self) -> None:
        while True:
            function = self._queue.get()
            with guard("freeing memory", _log):
                function()
            del function


reaper = Reaper()
