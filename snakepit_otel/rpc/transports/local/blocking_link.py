"""Connected socket of threads: one of those that wait for an answer reads for all of them.

When its own answer has come, another one takes over. So there is no thread of the connection's, and a lone caller makes
no change of threads.
"""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from snakepit_otel.rpc.status import RpcError, StatusCode
from snakepit_otel.rpc.transports.local import frames
from snakepit_otel.rpc.transports.local.blocking_writer import BlockingWriter
from snakepit_otel.rpc.transports.local.calling import STOPPING, NotRun, refusal_in
from snakepit_otel.rpc.transports.local.frames import HEADER, MAX_BODY, MORE, PART_BYTES, MalformedFrame

_READ_BYTES = 64 << 10
_LATE = "Deadline Exceeded"
_STOPPED = "the peer has stopped"


class _Waiting:
    """A call for whose answer a thread waits; `wake` is locked until it has one, or is to read for all."""

    __slots__ = ("answer", "error", "is_leader", "is_sent", "wake")

    def __init__(self) -> None:
        self.answer: bytes | None = None
        self.error: RpcError | None = None
        self.is_leader = self.is_sent = False
        self.wake = threading.Lock()
        self.wake.acquire()


class BlockingLink:
    """Calls over one socket, from any thread."""

    def __init__(self, sock: socket.socket, max_message_bytes: int, on_fault: Callable[[str], None]) -> None:
        self._sock = sock
        # Waits are by poll: a timeout of the socket would be for sending and reading threads alike.
        sock.setblocking(False)
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._max_message_bytes = max_message_bytes
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self._output = BlockingWriter(sock)
        self._users = 0  # threads that may use the socket
        self._waiting: dict[int, _Waiting] = {}
        self._has_leader = False
        self._next = 1
        self._unread = bytearray()
        self._parts: dict[int, list[bytes]] = {}
        self._lost: RpcError | None = None
        self.is_leaving = False

    @property
    def is_lost(self) -> bool:
        """Whether the connection has ended."""
        return self._lost is not None

    @property
    def is_usable(self) -> bool:
        """Whether calls can be made."""
        return self._lost is None and not self.is_leaving

    def call(self, body: bytes, due: float | None) -> bytes:
        """Send a request, and return the payload of the response. Raises `RpcError`."""
        mine = _Waiting()
        with self._lock:
            if self._lost is not None:
                raise NotRun(StatusCode.UNAVAILABLE, self._lost.details)
            stream = self._next
            self._next += 2
            if self._next >= 0xFFFF_FFF0:
                self.is_leaving = True
            if not self._waiting and self._has_ended():
                raise NotRun(StatusCode.UNAVAILABLE, "the peer has closed the connection")
            self._waiting[stream] = mine
            self._users += 1
        try:
            self._send(stream, mine, body, due)
            with self._lock:
                # Not before: a peer whose answers nobody reads may read no request.
                mine.is_sent = True
                if not self._has_leader and mine.error is None:
                    self._has_leader = mine.is_leader = True
            while mine.answer is None and mine.error is None:
                if mine.is_leader:
                    self._read(stream, mine, due)
                elif not mine.wake.acquire(timeout=-1 if due is None else max(due - time.monotonic(), 0)):
                    self._give_up(stream, mine)
        except BaseException:
            # A signal's: the socket may be inside a frame, and nobody waits for the answer.
            self._lose("a call was interrupted")
            raise
        finally:
            self._leave(stream, mine)
        if mine.error is not None:
            raise mine.error
        assert mine.answer is not None
        try:
            return frames.payload_in(mine.answer)
        except MalformedFrame as error:
            self._fail("malformed", str(error))
            raise RpcError(StatusCode.INTERNAL, str(error)) from None

    def close(self, error: RpcError) -> None:
        """End the connection; its calls raise `error`."""
        with self._lock:
            if self._lost is None:
                self._lost = error
            waiting, self._waiting = self._waiting, {}
            for one in waiting.values():
                one.error = one.error or error
                _wake(one)
            # Ends the waits of threads, which closing alone would not; the last of them closes it.
            _shut_down(self._sock)
            if not self._users:
                self._sock.close()

    def _send(self, stream: int, mine: _Waiting, body: bytes, due: float | None) -> None:
        """Send a request, in parts if it is large."""
        size, is_begun = len(body), False
        try:
            for start in range(0, size, PART_BYTES):
                part = body[start : start + PART_BYTES] if size > PART_BYTES else body
                more = MORE if start + PART_BYTES < size else 0
                if not self._output.write(HEADER.pack(len(part), stream, frames.REQUEST, more) + part, due):
                    mine.error = RpcError(StatusCode.DEADLINE_EXCEEDED, _LATE)
                    if is_begun:
                        self._cancel(stream, frames.LATE)
                    return
                is_begun = True
                if mine.answer is not None or mine.error is not None:
                    if more:
                        # Refused before it came whole; the peer is to forget the rest.
                        self._cancel(stream)
                    return
        except OSError as error:
            if not is_begun:
                # None of it has reached the peer.
                mine.error = NotRun(StatusCode.UNAVAILABLE, f"the connection broke: {error.strerror}")
            self._lose(f"the connection broke: {error.strerror}")

    def _cancel(self, stream: int, flags: int = 0) -> None:
        with suppress(OSError):
            self._output.write_later(HEADER.pack(0, stream, frames.CANCEL, flags))

    def _give_up(self, stream: int, mine: _Waiting) -> None:
        with self._lock:
            if mine.answer is not None or mine.error is not None or mine.is_leader:
                return
            self._waiting.pop(stream, None)
            mine.error = RpcError(StatusCode.DEADLINE_EXCEEDED, _LATE)
        self._cancel(stream, frames.LATE)

    def _leave(self, stream: int, mine: _Waiting) -> None:
        """Let another thread read, if this one did."""
        with self._lock:
            self._waiting.pop(stream, None)
            self._parts.pop(stream, None)
            self._users -= 1
            if not self._users and not self.is_usable:
                self._lost = self._lost or RpcError(StatusCode.UNAVAILABLE, _STOPPED)
                self._sock.close()
            if not mine.is_leader:
                return
            mine.is_leader = False
            follower = next((one for one in self._waiting.values() if one.is_sent), None)
            self._has_leader = follower is not None
            if follower is not None:
                follower.is_leader = True
                _wake(follower)

    def _has_ended(self) -> bool:
        """Return whether the peer has left while nobody read; if so, another connection is to be made."""
        try:
            if self._sock.recv(1, socket.MSG_PEEK):
                return False
        except BlockingIOError:
            return False
        except OSError:
            pass
        self._lost = RpcError(StatusCode.UNAVAILABLE, "the peer has closed the connection")
        if not self._users:
            self._sock.close()
        return True

    def _read(self, stream: int, mine: _Waiting, due: float | None) -> None:
        """Read what there is, for whomever it is."""
        left = None if due is None else due - time.monotonic()
        if left is not None and left <= 0:
            mine.error = RpcError(StatusCode.DEADLINE_EXCEEDED, _LATE)
            self._cancel(stream, frames.LATE)
            return
        try:
            if not self._readable.poll(None if left is None else math.ceil(left * 1000)):
                return
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(f"the connection broke: {error.strerror}")
            return
        if not data:
            self._lose("the peer has closed the connection")
            return
        self._unread += data
        try:
            self._take()
        except MalformedFrame as error:
            self._fail("malformed", f"what the peer sent is no frame: {error}")

    def _take(self) -> None:
        at, end = 0, len(self._unread)
        while end - at >= HEADER.size:
            size, stream, kind, flags = HEADER.unpack_from(self._unread, at)
            if size > MAX_BODY:
                raise MalformedFrame(f"a body of {size} bytes, of at most {MAX_BODY}")
            stop = at + HEADER.size + size
            if stop > end:
                break
            self._on_frame(kind, stream, flags, bytes(self._unread[at + HEADER.size : stop]))
            at = stop
        del self._unread[:at]

    def _on_frame(self, kind: int, stream: int, flags: int, body: bytes) -> None:
        if kind == frames.PING:
            if not flags & frames.ANSWER:
                answer = body[:64]
                with suppress(OSError):
                    self._output.write_later(HEADER.pack(len(answer), 0, frames.PING, frames.ANSWER) + answer)
        elif kind == frames.LEAVING:
            self._on_leaving(frames.count_in(body))
        elif kind == frames.RESPONSE:
            with self._lock:
                one = self._waiting.get(stream)
                if one is None:
                    return
                parts = self._parts.setdefault(stream, [])
                parts.append(body)
                size = sum(map(len, parts))
                if size > self._max_message_bytes + PART_BYTES:
                    why = f"Received message larger than max (over {size} vs. {self._max_message_bytes})"
                    one.error = RpcError(StatusCode.RESOURCE_EXHAUSTED, why)
                elif flags & MORE:
                    return
                elif flags & frames.NOT_RUN:
                    one.error = refusal_in(b"".join(parts))
                else:
                    one.answer = b"".join(parts)
                self._parts.pop(stream, None)
                self._waiting.pop(stream, None)
                _wake(one)
        elif kind < frames.HELLO:
            raise MalformedFrame(f"a frame of type {kind} to a client of threads")

    def _on_leaving(self, last_taken: int) -> None:
        """Make no more calls; those above the last that was taken have not run."""
        with self._lock:
            self.is_leaving = True
            for stream in [stream for stream in self._waiting if stream > last_taken]:
                one = self._waiting.pop(stream)
                one.error = NotRun(StatusCode.UNAVAILABLE, STOPPING)
                _wake(one)

    def _fail(self, reason: str, why: str) -> None:
        self._on_fault(reason)
        self._lose(why)

    def _lose(self, why: str) -> None:
        self.close(RpcError(StatusCode.UNAVAILABLE, why))


def _wake(one: _Waiting) -> None:
    if one.wake.locked():
        one.wake.release()


def _shut_down(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
