"""Standard streams that may be closed, full, or without a reader, and must not change the behaviour of a process.

A server's log never blocks and never fails: once a backlog of unread output is full, more is dropped and counted. A
command's output is its result: where that is lost, the command has failed.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import socket
import stat
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

_BACKLOG_BYTES = 1 << 18
_ATOMIC_WRITE_BYTES = select.PIPE_BUF
_DRAIN_SECONDS = 0.3
_POLL_SECONDS = 1.0
_PAUSE_SECONDS = 0.01


def open_closed(*, output: bool) -> None:
    """Have descriptors 0 to 2 lead somewhere: or a file that is opened later gets them, and what is written to them.

    With `output`, which says that standard output is to have a result, only to where writing fails.
    """
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY if output else os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free, so this one.
            opened = os.open(os.devnull, flags)
            os.set_inheritable(opened, True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as the process


def make_output_non_blocking() -> None:
    """Make standard output and standard error never block: unread output waits in a bounded backlog."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        _replace(name, _NonBlocking(descriptor))
    atexit.register(drain)


def check_output() -> Output:
    """Watch standard output: `Output.lost` is the error by which part of it was lost."""
    output = Output(1)
    _replace("stdout", output)
    _replace("stderr", _BestEffort(2))
    return output


class OutputLost(Exception):
    """Standard output cannot be written, or its reader has gone."""


class _Descriptor(io.RawIOBase):
    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True


class Output(_Descriptor):
    """Standard output of a command. Raises `OutputLost` once; what is written after that is passed over."""

    lost: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of it."""
        view = memoryview(data).cast("B")
        if self.lost is None:
            try:
                _write_all(self._descriptor, view)
            except OSError as error:
                self.lost = error
                raise OutputLost from error
        return len(view)


class _BestEffort(_Descriptor):
    """Standard error of a command: failures to write are ignored."""

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        with suppress(OSError):
            _write_all(self._descriptor, view)
        return len(view)


class _NonBlocking(_Descriptor):
    """A stream of a server. A thread writes what cannot be written at once, from a bounded backlog."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._lock = threading.RLock()
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = self._dropped = 0
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._own = _own_description(descriptor)

    def write(self, data: Any) -> int:
        piece = bytes(data)
        if os.getpid() != self._pid:
            # The child of a fork has no thread for it, and lives by the rules of its own.
            with suppress(OSError):
                _write_all(self._descriptor, memoryview(piece))
            return len(piece)
        with self._lock:
            rest = piece if self._backlog or self._dropped else self._write_now(piece)
            if rest:
                self._enqueue(rest)
        return len(piece)

    def drain(self, seconds: float) -> None:
        """Wait until all is written, for so many seconds at most."""
        end = time.monotonic() + seconds
        while self._backlog and time.monotonic() < end:
            time.sleep(_PAUSE_SECONDS)

    def _enqueue(self, data: bytes) -> None:
        if self._dropped or self._backlog_bytes + len(data) > _BACKLOG_BYTES:
            self._dropped += len(data)
        else:
            self._backlog.append(data)
            self._backlog_bytes += len(data)
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_backlog, name=f"stream_{self._descriptor}", daemon=True)
            with suppress(RuntimeError):  # at the interpreter's end, or where there are no more threads
                self._thread.start()
        self._changed.set()

    def _write_now(self, data: bytes) -> bytes:
        """Write what can be written without waiting, and return the rest; nothing where all of it is lost."""
        while data:
            try:
                written = self._write_some(data)
            except BlockingIOError:
                return data
            except OSError:
                return b""
            if not written:
                return data
            data = data[written:]
        return b""

    def _write_some(self, data: bytes) -> int:
        kind, own = self._own
        if kind == "own":
            return os.write(own, data)
        if kind == "socket":
            with socket.socket(fileno=os.dup(self._descriptor)) as duplicate:
                return duplicate.send(data, socket.MSG_DONTWAIT)
        if kind == "file":
            return os.write(self._descriptor, data)
        return os.write(self._descriptor, data[:_ATOMIC_WRITE_BYTES]) if _is_writable(self._descriptor, 0) else 0

    def _write_backlog(self) -> None:
        while True:
            self._changed.wait()
            with self._lock:
                while self._backlog:
                    piece = self._backlog.popleft()
                    self._backlog_bytes -= len(piece)
                    rest = self._write_now(piece)
                    if rest:
                        self._backlog.appendleft(rest)
                        self._backlog_bytes += len(rest)
                        break
                else:
                    if self._dropped:
                        dropped, self._dropped = self._dropped, 0
                        note = f"\n{dropped} bytes that were printed here are lost, as nobody read them\n".encode()
                        self._backlog.append(note)
                        self._backlog_bytes += len(note)
                        continue
                    self._changed.clear()
                    continue
            _is_writable(self._descriptor, _POLL_SECONDS)
            # Where that is always so, as for some devices.
            time.sleep(_PAUSE_SECONDS)


def drain() -> None:
    """Wait 0.3 seconds at most for readers of the standard streams."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
            raw = stream.buffer
            raw = getattr(raw, "raw", raw)
            if isinstance(raw, _NonBlocking):
                raw.drain(_DRAIN_SECONDS)


def _own_description(descriptor: int) -> tuple[str, int]:
    """Return how to write without waiting, and without changing how others who have the same file write to it."""
    with suppress(OSError):
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return "file", descriptor
        if stat.S_ISSOCK(mode):
            return "socket", descriptor
        with suppress(OSError):  # another user's, or there is no /proc
            return "own", os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    return "poll", descriptor


def _is_writable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))  # an error is one that writing gives, at once


def _write_all(descriptor: int, view: memoryview) -> None:
    while view:
        try:
            written = os.write(descriptor, view)
        except BlockingIOError:
            # Somebody else has set it to that.
            _is_writable(descriptor, _POLL_SECONDS)
            continue
        view = view[written:]


def _replace(name: str, raw: io.RawIOBase) -> None:
    before = getattr(sys, name)
    with suppress(Exception):
        before.flush()
    unbuffered = name == "stderr" or bool(getattr(before, "write_through", False))
    buffer: Any = raw if unbuffered else io.BufferedWriter(raw)
    text = io.TextIOWrapper(
        buffer,
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=raw.isatty(),
        write_through=unbuffered,
    )
    setattr(sys, name, text)
    setattr(sys, f"__{name}__", text)
