"""Writing of frames to one socket by any thread, none of which waits beyond its deadline."""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress


class BlockingWriter:
    """Writes whole frames, one after the other; the socket does not block.

    A thread whose deadline passes inside a frame leaves the rest of it to the next one.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._lock = threading.Lock()
        self._rest = memoryview(b"")  # of a frame that is begun
        self._controls: deque[bytes] = deque()  # frames that nobody waits for

    def write(self, frame: bytes, due: float | None) -> bool:
        """Write a frame; return whether any of it was, by the time it is `due`. Raises `OSError`."""
        if not self._lock.acquire(timeout=-1 if due is None else max(due - time.monotonic(), 0)):
            return False
        try:
            if not self._flush(due):
                return False
            self._rest = memoryview(frame)
            if not self._flush(due) and len(self._rest) == len(frame):
                self._rest = memoryview(b"")
                return False
            return True
        finally:
            self._lock.release()
            if self._controls:
                with suppress(OSError):
                    self.write_later(b"")

    def write_later(self, frame: bytes) -> None:
        """Write a small frame without waiting: now, or before the next one. Raises `OSError`."""
        if frame:
            self._controls.append(frame)
        # Whoever has the lock looks again after it.
        while self._controls and self._lock.acquire(blocking=False):
            try:
                if not self._flush(0.0):
                    return
            finally:
                self._lock.release()

    def _flush(self, due: float | None) -> bool:
        """Write the rest, and what is to go first; return whether all of it was."""
        while self._rest or self._controls:
            if not self._rest:
                self._rest = memoryview(self._controls.popleft())
            try:
                self._rest = self._rest[self._sock.send(self._rest) :]
            except (BlockingIOError, InterruptedError):
                left = None if due is None else due - time.monotonic()
                if left is not None and left <= 0:
                    return False
                writable = select.poll()
                writable.register(self._fd, select.POLLOUT)
                writable.poll(None if left is None else math.ceil(left * 1000))
        return True
