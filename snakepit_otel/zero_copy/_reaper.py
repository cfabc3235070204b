"""What is done afterwards, in a thread: giving back memory, and whatever a finaliser must not do itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

_log = logging.getLogger("snakepit_otel.zero_copy")


class Reaper:
    """Calls functions in a daemon thread, in order.

    Closing the last descriptor of a large memfd gives its pages back, which takes milliseconds that no request should
    wait for. And finalisers run wherever the garbage collector happens to, also where a lock is held; a simple queue
    is the one thing that they may use.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def later(self, function: Callable[[], object]) -> None:
        """Call a function soon."""
        self._queue.put(function)
        if self._thread is None and self._lock.acquire(blocking=False):
            # Who does not get the lock need not: somebody is starting the thread.
            try:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="zero-copy reaper", daemon=True)
                    self._thread.start()
            finally:
                self._lock.release()

    def settle(self) -> None:
        """Return once all that was asked for has been done."""
        done = threading.Event()
        self.later(done.set)
        done.wait()

    def _run(self) -> None:
        while True:
            function = self._queue.get()
            try:
                function()
            except Exception:  # noqa: BLE001 - it is logged
                _log.exception("memory could not be given back")
            del function


reaper = Reaper()
