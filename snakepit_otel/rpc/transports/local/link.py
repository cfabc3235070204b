"""Socket of one connection: reads frames, writes them fairly, and notices a peer that is gone."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final

from snakepit_otel.rpc.transports.local import frames
from snakepit_otel.rpc.transports.local.arriving import ArrivingBodies, Receiver
from snakepit_otel.rpc.transports.local.frames import HEADER, MAX_BODY, MORE, PART_BYTES, MalformedFrame
from snakepit_otel.rpc.transports.local.liveness import is_stopped

_HEAD: Final = HEADER.size
_READ_BYTES: Final = 64 << 10  # larger buffers are mapped and unmapped by malloc for every read
_READ_MORE_BYTES: Final = 1 << 20  # while a large message arrives
_MAX_ANCILLARY: Final = socket.CMSG_SPACE(4 * 64)
_HIGH_BYTES: Final = 256 << 10  # unsent, from which on streams wait
_LOW_BYTES: Final = 64 << 10
_MAX_UNSENT_BYTES: Final = 4 << 20  # from which on a server reads no more of the peer
_SEND_AT_ONCE: Final = 1  # calls in flight up to which a frame does not wait for others of its turn
_PING_INTERVAL_S: Final = 10.0
_PING_TIMEOUT_S: Final = 20.0
_FIRST_TIMEOUT_S: Final = 20.0  # until a caller has sent anything


class Link:
    """One connected socket in an event loop, for a `Receiver`.

    Small frames are sent before the parts of large bodies, of which each stream gets one in turn. With
    `stops_reading`, nothing is read from a peer that leaves 4 MiB unread. `unread_timeout` is how many seconds a peer
    may take nothing of what waits for it. `on_first` is called with the first bytes, and returns whether they were for
    somebody else, who has the socket then. `on_fault` is called with the reason for which a connection was ended here.
    """

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        *,
        stops_reading: bool = False,
        unread_timeout: float = 60.0,
        on_first: Callable[[bytes], bool] | None = None,
        on_fault: Callable[[str], None] | None = None,
    ) -> None:
        self.sock = sock
        self._fd = sock.fileno()
        self._loop = loop
        self._receiver: Receiver | None = None
        self._stops_reading = stops_reading
        self._unread_timeout = unread_timeout
        self._on_first = on_first
        self._on_fault = on_fault
        self._chunks: list[bytes] = []
        self._held = 0
        self._needed = _HEAD
        self._read_bytes = _READ_BYTES
        self._arriving = ArrivingBodies()
        self._out: list[bytes] = []
        self._rest: bytes | memoryview = b""  # of what the socket has taken a part of
        self._bulk: dict[int, deque[tuple[int, int, bytes | memoryview]]] = {}
        self.unsent = 0
        # Whether the peer has the extensions; one without them gets ttrpc's own frames, each whole.
        self.is_extended = False
        self._reads = False
        self._corked = self._scheduled = self._writes = False
        self._drained: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._read_at = self._sent = monotonic()
        self._pinged: float | None = None
        self.lost: str | None = None
        # Nothing that runs here belongs to whoever has made the connection.
        self.context = contextvars.Context()

    def start(self, receiver: Receiver, *, keepalive: bool = True) -> None:
        """Read, and pass frames to `receiver`."""
        self._receiver = receiver
        self._resume()
        if keepalive:
            self._timer = self.context.run(self._loop.call_later, _PING_INTERVAL_S, self._look)

    def send(self, kind: int, stream: int, flags: int, body: bytes) -> None:
        """Send a frame, in parts if it is large."""
        if self.lost is not None:
            return
        size = len(body)
        if (size > PART_BYTES and self.is_extended) or stream in self._bulk:
            self._send_parts(kind, stream, flags, body)
        else:
            self._out.append(HEADER.pack(size, stream, kind, flags) + body)
            self.unsent += size + _HEAD
        if self._corked or self._scheduled or self._writes:
            return
        receiver = self._receiver
        if receiver is not None and receiver.in_flight > _SEND_AT_ONCE:
            self._scheduled = True
            self._loop.call_soon(self._flush_scheduled, context=self.context)
        else:
            self._flush()

    def takes(self, size: int) -> bool:
        """Return whether the peer takes a body of so many bytes."""
        return size <= MAX_BODY or self.is_extended

    async def drain(self) -> None:
        """Wait while too much waits for the peer. Raises `ConnectionError` once the connection has ended."""
        while self.unsent > _HIGH_BYTES:
            if self.lost is not None:
                raise ConnectionError(self.lost)
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._drained.append(waiter)
            await waiter

    async def flushed(self, timeout: float = 1.0) -> None:
        """Wait until all is sent, for at most so many seconds."""
        self._flush_scheduled()
        left = self._loop.time() + timeout
        while self.lost is None and (self._rest or self._out or self._bulk) and self._loop.time() < left:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._drained.append(waiter)
            with suppress(TimeoutError):
                async with asyncio.timeout(left - self._loop.time()):
                    await waiter

    def has_parts(self, stream: int) -> bool:
        """Return whether a part of a large body of a stream is unsent."""
        return stream in self._bulk

    def drop_stream(self, stream: int) -> None:
        """Send no more of a stream's large bodies, and keep none of them: the call has ended."""
        parts = self._bulk.pop(stream, None)
        if parts is not None:
            self.unsent -= sum(len(body) for _, _, body in parts)
        self._arriving.drop(stream)

    def close(self, why: str = "the connection is closed") -> None:
        """End the connection; what is unsent is lost."""
        if self.lost is not None:
            return
        self.lost = why
        self.detach()
        self.sock.close()
        self._chunks.clear()
        self._arriving.clear()
        self._out.clear()
        self._bulk.clear()
        self._wake_writers()
        if self._receiver is not None:
            self._receiver.on_lost(why)

    def detach(self) -> None:
        """Leave the socket to somebody else."""
        if self._reads:
            self._loop.remove_reader(self._fd)
            self._reads = False
        if self._writes:
            self._loop.remove_writer(self._fd)
            self._writes = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def fail(self, reason: str, why: str) -> None:
        """End the connection by a fault of the peer."""
        if self.lost is None:
            if self._on_fault is not None:
                self._on_fault(reason)
            self.close(why)

    # Reading.

    def _resume(self) -> None:
        if not self._reads and self.lost is None:
            self._reads = True
            self.context.copy().run(self._loop.add_reader, self._fd, self._on_readable)

    def _on_readable(self) -> None:
        try:
            data, ancillary, _, _ = self.sock.recvmsg(self._read_bytes, _MAX_ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close(f"the connection broke: {error.strerror}")
            return
        if ancillary:
            _close_descriptors(ancillary)
        if not data:
            self.close("the peer has closed the connection")
            return
        self._read_at = monotonic()
        self._pinged = None
        if self._on_first is not None:
            on_first, self._on_first = self._on_first, None
            if on_first(data):
                return
        self._read_bytes = _READ_MORE_BYTES if len(data) == self._read_bytes and self._arriving.bodies else _READ_BYTES
        self._corked = True
        try:
            self._take(data)
        except MalformedFrame as error:
            self._corked = False
            self.fail("malformed", f"what the peer sent is no frame: {error}")
            return
        finally:
            self._corked = False
        if (self._out or self._bulk) and not self._writes and not self._scheduled:
            self._flush()

    def _take(self, data: bytes) -> None:
        if self._chunks:
            self._chunks.append(data)
            self._held += len(data)
            if self._held < self._needed:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
        at, end, receiver = 0, len(data), self._receiver
        unpack, arriving = HEADER.unpack_from, self._arriving.bodies
        assert receiver is not None
        while end - at >= _HEAD:
            size, stream, kind, flags = unpack(data, at)
            if size > MAX_BODY:
                raise MalformedFrame(f"a body of {size} bytes, of at most {MAX_BODY}")
            start = at + _HEAD
            stop = start + size
            if stop > end:
                break
            at = stop
            if kind == frames.PING:
                self._on_ping(flags, data[start:stop])
            elif kind < frames.HELLO and (flags & MORE or (arriving and stream in arriving)):
                self._arriving.take(kind, stream, flags, data[start:stop], receiver)
            else:
                receiver.on_frame(kind, stream, flags, data[start:stop])
            if self.lost is not None:
                return
        if at < end:
            rest = data[at:] if at else data
            self._chunks.append(rest)
            self._held = len(rest)
            self._needed = _HEAD if self._held < _HEAD else _HEAD + unpack(rest, 0)[0]

    def _on_ping(self, flags: int, body: bytes) -> None:
        if not flags & frames.ANSWER:
            self.send(frames.PING, 0, frames.ANSWER, body[:64])

    # Writing.

    def _send_parts(self, kind: int, stream: int, flags: int, body: bytes) -> None:
        queue = self._bulk.setdefault(stream, deque())
        view, size = memoryview(body), len(body)
        for start in range(0, size or 1, PART_BYTES):
            last = start + PART_BYTES >= size
            queue.append((kind, flags if last else flags | MORE, view[start : start + PART_BYTES]))
        self.unsent += size

    def _flush_scheduled(self) -> None:
        self._scheduled = False
        if self.lost is None and not self._writes:
            self._flush()

    def _flush(self) -> None:
        """Send what there is, as far as the socket takes it; then once it takes more."""
        if self.lost is not None:
            return
        try:
            while True:
                if self._rest:
                    sent = self.sock.send(self._rest)
                    self._count(sent)
                    self._rest = memoryview(self._rest)[sent:] if sent < len(self._rest) else b""
                    if self._rest:
                        continue
                if self._out:
                    data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
                    self._out.clear()
                    self._rest = data
                elif self._bulk:
                    self._rest = self._next_part()
                else:
                    break
        except OSError as error:
            self._on_unsent(error)
            return
        self._write_no_more()

    def _on_unsent(self, error: OSError) -> None:
        if isinstance(error, BlockingIOError | InterruptedError):
            if not self._writes:
                self._writes, self._sent = True, monotonic()
                self.context.copy().run(self._loop.add_writer, self._fd, self._flush)
            if self._stops_reading and self.unsent > _MAX_UNSENT_BYTES and self._reads:
                self._loop.remove_reader(self._fd)
                self._reads = False
        elif isinstance(error, BrokenPipeError) and self._reads:
            # What the peer sent before it left is read first; its end closes the connection.
            self._discard_unsent()
        else:
            self.close(f"the connection broke: {error.strerror}")

    def _write_no_more(self) -> None:
        if self._writes:
            self._loop.remove_writer(self._fd)
            self._writes = False

    def _discard_unsent(self) -> None:
        self._rest = b""
        self._out.clear()
        self._bulk.clear()
        self.unsent = 0
        self._write_no_more()
        self._wake_writers()

    def _next_part(self) -> bytes:
        stream, queue = next(iter(self._bulk.items()))
        kind, flags, body = queue.popleft()
        # The next turn is another stream's.
        del self._bulk[stream]
        if queue:
            self._bulk[stream] = queue
        self.unsent += _HEAD
        return HEADER.pack(len(body), stream, kind, flags) + body

    def _count(self, sent: int) -> None:
        self.unsent -= sent
        if self._writes:
            self._sent = monotonic()
        if self._drained and self.unsent <= _LOW_BYTES:
            self._wake_writers()
        if not self._reads and self.unsent <= _LOW_BYTES and self._receiver is not None:
            self._resume()

    def _wake_writers(self) -> None:
        waiting, self._drained = self._drained, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    # The peer's life.

    def _look(self) -> None:
        """Ping a silent peer; end the connection of one that reads nothing, or whose process does not run."""
        self._timer = self._loop.call_later(_PING_INTERVAL_S, self._look)
        now = monotonic()
        if self._writes and now - self._sent > self._unread_timeout:
            self.fail("unread", f"the peer has taken nothing for {self._unread_timeout:g} s")
            return
        if now - self._read_at < _PING_INTERVAL_S:
            return
        if self._on_first is not None and now - self._read_at > _FIRST_TIMEOUT_S:
            self.fail("silent", f"the peer has sent nothing for {_FIRST_TIMEOUT_S:g} s")
        elif self._pinged is None:
            self._pinged = now
            if self.is_extended:
                self.send(frames.PING, 0, 0, b"")
        elif now - self._pinged > _PING_TIMEOUT_S and is_stopped(self.sock):
            # One that is merely busy answers later.
            self.fail("silent", "the process of the peer is stopped, or gone")


def _close_descriptors(ancillary: list[tuple[int, int, bytes]]) -> None:
    """Close descriptors that came with bytes: nobody here takes any."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            for start in range(0, len(data) - len(data) % 4, 4):
                os.close(int.from_bytes(data[start : start + 4], "little"))
