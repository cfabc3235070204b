"""Calls that this side makes over one connection."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from google.protobuf.message import DecodeError

from snakepit_otel.rpc.services import RpcMethod
from snakepit_otel.rpc.status import RpcError, StatusCode
from snakepit_otel.rpc.transports.base import EOF
from snakepit_otel.rpc.transports.local import frames
from snakepit_otel.rpc.transports.local.frames import MalformedFrame
from snakepit_otel.rpc.transports.local.link import Link

_LATE = "Deadline Exceeded"
STOPPING = "the server is stopping; the call did not run"
_MAX_UNREAD_BYTES = 8 << 20  # of a stream of a peer without windows


class NotRun(RpcError):
    """A call that the peer has refused before any of it ran."""

    @property
    def was_sent(self) -> bool:
        """See `RpcError`."""
        return False


class CallingLink:
    """Connection to a server; the receiver of its frames."""

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop, max_message_bytes: int) -> None:
        self.link = link
        self.loop = loop
        self._max_message_bytes = max_message_bytes
        self._calls: dict[int, asyncio.Future[bytes] | StreamCall] = {}
        self._next = 1
        self._ready: asyncio.Future[None] = loop.create_future()
        self.window: int | None = None
        self.is_leaving = False
        self._last_taken: int | None = None  # stream of the last call that the peer has taken, once it is leaving

    @property
    def in_flight(self) -> int:
        """See `Receiver`."""
        return len(self._calls)

    @property
    def is_usable(self) -> bool:
        """Whether calls can be made."""
        return not self.is_leaving and self.link.lost is None

    async def greet(self) -> None:
        """Exchange hellos. Raises `RpcError`."""
        self.link.send(frames.HELLO, 0, 0, frames.hello_body())
        await asyncio.shield(self._ready)

    def on_frame(self, kind: int, stream: int, flags: int, body: bytes) -> None:
        """See `Receiver`."""
        if kind == frames.RESPONSE:
            self._on_response(stream, flags, body)
        elif kind in (frames.DATA, frames.WINDOW):
            call = self._calls.get(stream)
            if isinstance(call, StreamCall):
                call.on_frame(kind, flags, body)
            elif call is not None:
                raise MalformedFrame("data on a call that has none")
        elif kind == frames.HELLO:
            if self.window is not None:
                raise MalformedFrame("a second hello")
            self.window = frames.window_in_hello(body)
            self.link.is_extended = True
            if not self._ready.done():
                self._ready.set_result(None)
        elif kind == frames.LEAVING:
            self._on_leaving(frames.count_in(body))
        elif kind < frames.HELLO:
            raise MalformedFrame(f"a frame of type {kind} to a client")

    def _on_leaving(self, last_taken: int) -> None:
        """Make no more calls; those above the last that was taken have not run."""
        self.is_leaving = True
        for stream in [stream for stream in self._calls if stream > last_taken]:
            self.link.drop_stream(stream)
            _fail(self._calls.pop(stream), NotRun(StatusCode.UNAVAILABLE, STOPPING))
        self._close_if_idle()

    def _on_response(self, stream: int, flags: int, body: bytes) -> None:
        call = self._calls.get(stream)
        if call is None:
            if not stream and not self._ready.done():
                # How those answer a hello who have no extensions.
                self._ready.set_result(None)
            return
        if self.link.has_parts(stream):
            # It was refused before it came whole; the peer is to forget the rest.
            self.link.drop_stream(stream)
            self.link.send(frames.CANCEL, stream, 0, b"")
        if isinstance(call, StreamCall):
            call.on_response(flags, body)
        elif flags & frames.NOT_RUN:
            _fail(call, refusal_in(body))
        elif not call.done():
            call.set_result(body)
        self._calls.pop(stream, None)
        if self.is_leaving:
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not self._calls:
            self.link.close("the peer has stopped")

    def on_part(self, kind: int, stream: int, size: int) -> bool:
        """See `Receiver`."""
        call = self._calls.get(stream)
        if call is None:
            return False
        if size <= self._max_message_bytes + frames.PART_BYTES:
            return True
        why = f"Received message larger than max (over {size} vs. {self._max_message_bytes})"
        self.cancel(stream)
        _fail(call, RpcError(StatusCode.RESOURCE_EXHAUSTED, why))
        return False

    def on_lost(self, why: str) -> None:
        """See `Receiver`."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            _fail(call, RpcError(StatusCode.UNAVAILABLE, why))
        if not self._ready.done():
            self._ready.set_exception(RpcError(StatusCode.UNAVAILABLE, f"failed to connect: {why}"))
            self._ready.exception()

    def cancel(self, stream: int, flags: int = 0) -> None:
        """End a call at the peer, too; `flags` are those of the cancel."""
        if self._calls.pop(stream, None) is not None:
            self.link.drop_stream(stream)
            self.link.send(frames.CANCEL, stream, flags, b"")
            if self.is_leaving:
                self._close_if_idle()

    def close(self) -> None:
        """End the connection; who awaits a call is cancelled, as by a closed channel of gRPC's."""
        calls, self._calls = self._calls, {}
        for stream, call in calls.items():
            self.link.send(frames.CANCEL, stream, 0, b"")
            if isinstance(call, StreamCall):
                call.on_end(asyncio.CancelledError())
            else:
                call.cancel()
        self.link.close()

    async def call(self, names: bytes, payload: bytes, timeout: float | None, metadata: Any) -> bytes:
        """Make a call with one message each way, and return the answer. Raises `RpcError`."""
        self._check(payload)
        body = frames.request_body(names, payload, timeout, metadata)
        self._check_frame(body)
        future: asyncio.Future[bytes] = self.loop.create_future()
        stream = self._next
        self._next = stream + 2
        self._calls[stream] = future
        self.link.send(frames.REQUEST, stream, 0, body)
        timer = None
        if timeout is not None:
            timer = self.loop.call_later(timeout, self._on_late, stream, context=self.link.context)
        try:
            return frames.payload_in(await future)
        except asyncio.CancelledError:
            self.cancel(stream)
            raise
        except MalformedFrame as error:
            self.link.fail("malformed", str(error))
            raise RpcError(StatusCode.INTERNAL, str(error)) from None
        finally:
            if timer is not None:
                timer.cancel()

    def begin(
        self, method: RpcMethod, names: bytes, payload: bytes | None, timeout: float | None, metadata: Any
    ) -> StreamCall:
        """Begin a call that streams; without a payload this side streams, too."""
        if payload is not None:
            self._check(payload)
        body = frames.request_body(names, payload, timeout, metadata)
        self._check_frame(body)
        stream = self._next
        self._next = stream + 2
        call = self._calls[stream] = StreamCall(self, stream, method, timeout)
        flags = frames.REMOTE_OPEN if payload is None else frames.REMOTE_CLOSED
        self.link.send(frames.REQUEST, stream, flags, body)
        return call

    def _check(self, payload: bytes) -> None:
        if len(payload) > self._max_message_bytes:
            why = f"Sent message larger than max ({len(payload)} vs. {self._max_message_bytes})"
            raise RpcError(StatusCode.RESOURCE_EXHAUSTED, why)
        if self._next >= 0xFFFF_FFF0:
            # Streams are numbered with 32 bits; another connection takes over.
            self.is_leaving = True

    def _check_frame(self, body: bytes) -> None:
        if not self.link.takes(len(body)):
            why = f"Sent message larger than max ({len(body)} vs. {frames.MAX_BODY} of a peer without extensions)"
            raise RpcError(StatusCode.RESOURCE_EXHAUSTED, why)

    def _on_late(self, stream: int) -> None:
        call = self._calls.get(stream)
        if call is not None:
            self.cancel(stream, frames.LATE)
            _fail(call, RpcError(StatusCode.DEADLINE_EXCEEDED, _LATE))


class StreamCall:
    """Call that streams at least one way; see `Dialogue`. Messages are read as the method's parser returns them."""

    def __init__(self, owner: CallingLink, stream: int, method: RpcMethod, timeout: float | None) -> None:
        self._owner = owner
        self._link = owner.link
        self._stream = stream
        self._method = method
        self._inbox: deque[bytes] = deque()
        self._read_waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self._credit = owner.window
        self._unread = self._owed = 0  # bytes that wait here, and that have been read and are not given back yet
        self._is_over = False
        self._error: RpcError | asyncio.CancelledError | None = None
        self._answer: bytes | None = None
        self._timer: asyncio.TimerHandle | None = None
        if timeout is not None:
            self._timer = owner.loop.call_later(timeout, owner._on_late, stream, context=self._link.context)

    async def read(self) -> Any:
        """See `Dialogue`."""
        while not self._inbox:
            if self._is_over:
                if self._error is not None:
                    raise self._error
                return EOF
            self._read_waiter = self._owner.loop.create_future()
            await self._read_waiter
        raw = self._inbox.popleft()
        cost = len(raw) + frames.MESSAGE_COST
        self._unread -= cost
        self._owed += cost
        if self._owed >= frames.GIVEN_BACK_BYTES and self._owner.window is not None and not self._is_over:
            self._link.send(frames.WINDOW, self._stream, 0, frames.count_body(self._owed))
            self._owed = 0
        return read_answer(self._method, raw)

    async def write(self, message: Any) -> None:
        """See `Dialogue`."""
        raw = self._method.write_request(message)
        self._owner._check(raw)
        self._owner._check_frame(raw)
        while self._credit is not None and self._credit <= 0 and not self._is_over:
            self._write_waiter = self._owner.loop.create_future()
            await self._write_waiter
        if self._is_over:
            raise self._error or RpcError(StatusCode.CANCELLED, "the call has ended")
        if self._credit is not None:
            self._credit -= len(raw) + frames.MESSAGE_COST
        self._link.send(frames.DATA, self._stream, 0, raw)
        try:
            await self._link.drain()
        except ConnectionError as error:
            raise self._error or RpcError(StatusCode.UNAVAILABLE, str(error)) from None

    async def done_writing(self) -> None:
        """See `Dialogue`."""
        if not self._is_over:
            self._link.send(frames.DATA, self._stream, frames.REMOTE_CLOSED | frames.NO_DATA, b"")

    async def answer(self) -> Any:
        """Return the one message with which the peer ends the call. Raises `RpcError`."""
        while not self._is_over:
            self._read_waiter = self._owner.loop.create_future()
            await self._read_waiter
        if self._error is not None:
            raise self._error
        return read_answer(self._method, self._answer or b"")

    def cancel(self) -> None:
        """See `Dialogue`."""
        if not self._is_over:
            self._owner.cancel(self._stream)
            self.on_end(RpcError(StatusCode.CANCELLED, "the call was cancelled here"))

    def done(self) -> bool:
        """See `Dialogue`."""
        return self._is_over

    def on_frame(self, kind: int, flags: int, body: bytes) -> None:
        """Take a message, the end, or bytes that the peer has read."""
        if kind == frames.WINDOW:
            self._add_credit(frames.count_in(body))
            return
        if not flags & frames.NO_DATA:
            before = self._unread + (0 if self._owner.window is None else self._owed)
            limit = _MAX_UNREAD_BYTES if self._owner.window is None else frames.WINDOW_BYTES
            if before > limit:
                self._owner.cancel(self._stream)
                self.on_end(
                    RpcError(StatusCode.RESOURCE_EXHAUSTED, f"more than {limit} bytes of the stream are unread")
                )
                return
            self._inbox.append(body)
            self._unread += len(body) + frames.MESSAGE_COST
        if flags & frames.REMOTE_CLOSED:
            self._owner._calls.pop(self._stream, None)
            self.on_end(None)
        else:
            self._wake()

    def on_response(self, flags: int, body: bytes) -> None:
        """Take the answer, or the status, that ends the call."""
        try:
            self._answer = frames.payload_in(body)
            self.on_end(None)
        except RpcError as error:
            self.on_end(NotRun(error.code, error.details) if flags & frames.NOT_RUN else error)

    def _add_credit(self, count: int) -> None:
        if self._credit is not None:
            self._credit += count
            if self._credit > 0 and self._write_waiter is not None and not self._write_waiter.done():
                self._write_waiter.set_result(None)

    def on_end(self, error: RpcError | asyncio.CancelledError | None) -> None:
        """End the call."""
        if self._is_over:
            return
        self._is_over, self._error = True, error
        if self._timer is not None:
            self._timer.cancel()
        self._wake()
        if self._write_waiter is not None and not self._write_waiter.done():
            self._write_waiter.set_result(None)

    def _wake(self) -> None:
        if self._read_waiter is not None and not self._read_waiter.done():
            self._read_waiter.set_result(None)


def read_answer(method: RpcMethod, payload: bytes) -> Any:
    """Return the message of an answer. Raises `RpcError` for one that is no such message."""
    try:
        return method.read_response(payload)
    except DecodeError as error:
        raise RpcError(StatusCode.INTERNAL, f"the answer cannot be read: {error}") from None


def _fail(call: asyncio.Future[bytes] | StreamCall, error: RpcError) -> None:
    if isinstance(call, StreamCall):
        call.on_end(error)
    elif not call.done():
        call.set_exception(error)


def refusal_in(body: bytes) -> NotRun:
    """Return the error of a response that says that its call has not run. Raises `MalformedFrame`."""
    try:
        frames.payload_in(body)
    except RpcError as error:
        return NotRun(error.code, error.details)
    return NotRun(StatusCode.UNKNOWN, "")
