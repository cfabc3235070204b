"""One call at the side that serves it: its handler's task, its streams, its status."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from time import monotonic
from typing import Any, NoReturn, Protocol

from google.protobuf.message import DecodeError

from snakepit_otel.common.byte_charge import ByteCharge
from snakepit_otel.errors import BudgetExceeded
from snakepit_otel.rpc.local_server_call import LocalServerCall, begin_call
from snakepit_otel.rpc.services import Handler
from snakepit_otel.rpc.status import StatusCode
from snakepit_otel.rpc.transports.base import EOF, Metadata
from snakepit_otel.rpc.transports.local import frames
from snakepit_otel.rpc.transports.local.frames import MalformedFrame
from snakepit_otel.rpc.transports.local.link import Link
from snakepit_otel.telemetry import _switch
from snakepit_otel.telemetry._exception_text import log_error

_log = logging.getLogger("snakepit_otel.rpc")
CALL_BYTES = 8 << 10  # of the objects of a call, and of its frames
COPIES_HELD = 3  # of a request: as it came, decoded, and passed on
_LATE = "Deadline Exceeded"
_MAX_UNREAD_BYTES = 8 << 20  # of a stream of a peer without windows


class CallAborted(Exception):
    """A call that its handler has ended with a status."""

    def __init__(self, code: StatusCode, details: str) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details


class CallOwner(Protocol):
    """Connection of the caller, as its calls use it."""

    link: Link
    loop: asyncio.AbstractEventLoop
    trusted: bool
    window: int | None
    is_leaving: bool

    def answer(self, stream: int, body: bytes) -> None:
        """End a call of the peer's by a response."""

    def release(self, stream: int) -> None:
        """Give back what the parts of a body were charged with."""

    def end(self, stream: int) -> None:
        """Forget a call that has ended."""


class ServedMethod:
    """Handler of one method, and what its calls share."""

    __slots__ = ("handler", "max_bytes", "name", "reads", "streams")

    def __init__(self, handler: Handler, max_bytes: int) -> None:
        self.handler = handler
        self.name = handler.method.name
        self.reads = handler.method.client_streams
        self.streams = handler.method.server_streams
        self.max_bytes = max_bytes


class Call:
    """One call at the side that serves it; see `CallContext`."""

    __slots__ = (
        "_charge",
        "_closed",
        "_credit",
        "_due",
        "_inbox",
        "_is_begun",
        "_is_late",
        "_link",
        "_metadata",
        "_method",
        "_owed",
        "_owner",
        "_read_waiter",
        "_refusal",
        "_stream",
        "_timer",
        "_unread",
        "_write_waiter",
        "caller_has_gone",
        "task",
    )

    def __init__(
        self,
        owner: CallOwner,
        stream: int,
        method: ServedMethod,
        metadata: frames.Metadata,
        timeout: float | None,
        charge: ByteCharge | None,
    ) -> None:
        self._owner = owner
        self._link = owner.link
        self._stream = stream
        self._method = method
        self._metadata = metadata
        self._charge = charge
        self._due = None if timeout is None else monotonic() + timeout
        self.task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_begun = self._is_late = False
        self.caller_has_gone = False  # set before the task is cancelled, which a handler may do by itself
        self._refusal: tuple[StatusCode, str] | None = None
        if method.reads or method.streams:
            self._inbox: deque[bytes] = deque()
            self._read_waiter: asyncio.Future[None] | None = None
            self._closed = False
            self._unread = self._owed = 0  # bytes that wait here, and that have been read and are not given back yet
            self._credit = owner.window
            self._write_waiter: asyncio.Future[None] | None = None

    # What services use.

    def invocation_metadata(self) -> Metadata:
        """See `CallContext`."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """See `CallContext`."""
        return None if self._due is None else max(0.0, self._due - monotonic())

    def peer(self) -> str:
        """See `CallContext`."""
        return "unix:"

    def peer_identities(self) -> None:
        """See `CallContext`."""

    def auth_context(self) -> dict[str, list[bytes]]:
        """Return what a certificate of the caller's says: nothing."""
        return {}

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Do nothing: calls here have none."""

    async def abort(self, code: StatusCode, details: str = "", _trailing: Any = ()) -> NoReturn:
        """See `CallContext`."""
        raise CallAborted(code, details)

    async def read(self) -> Any:
        """See `CallContext`."""
        raw = await self._next()
        return EOF if raw is None else self._message(raw)

    def __aiter__(self) -> Call:
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is EOF:
            raise StopAsyncIteration
        return message

    async def write(self, message: Any) -> None:
        """See `CallContext`."""
        raw = self._method.handler.method.write_response(message)
        while self._credit is not None and self._credit <= 0:
            self._write_waiter = self._owner.loop.create_future()
            await self._write_waiter
        if self._link.lost is not None:
            raise ConnectionError(self._link.lost)
        if len(raw) > self._method.max_bytes:
            await self._end_too_large(_too_large(raw, self._method.max_bytes))
        if not self._link.takes(len(raw)):
            await self._end_too_large(_too_large(raw))
        if self._credit is not None:
            self._credit -= len(raw) + frames.MESSAGE_COST
        self._link.send(frames.DATA, self._stream, 0, raw)
        await self._link.drain()

    async def _end_too_large(self, why: str) -> NoReturn:
        # The handler is cancelled, as by a caller who leaves; an error would be taken for the tool's.
        self.fail(StatusCode.RESOURCE_EXHAUSTED, why)
        await self._owner.loop.create_future()
        raise AssertionError("the task has been cancelled")

    # What the connection does.

    def start(self, run: Any) -> None:
        """Run the call in a task."""
        loop = self._owner.loop
        task = self.task = loop.create_task(run, context=self._link.context.copy())
        if self._due is not None and not task.done():
            self._timer = loop.call_later(self._due - monotonic(), self._on_due, context=self._link.context)

    def cancel(self) -> None:
        """End the call: its caller no longer waits."""
        self.caller_has_gone = True
        if self.task is not None and self._is_begun:
            # One that is cancelled before its first step would never run, and so never answer.
            self.task.cancel()

    def end_by_caller(self, flags: int) -> None:
        """End the call by the caller's cancel; a caller whose deadline has passed says so by a flag."""
        if flags & frames.LATE:
            self._is_late = True
        self.cancel()

    def fail(self, code: StatusCode, why: str) -> None:
        """End the call with a status of the connection's."""
        self._refusal = code, why
        self.cancel()

    def on_data(self, flags: int, body: bytes) -> None:
        """Take a message of a stream of requests, or its end."""
        if not self._method.reads or self._closed:
            raise MalformedFrame("data on a stream that has none, or no more")
        if not flags & frames.NO_DATA:
            if self._charge is not None:
                try:
                    self._charge.resize(CALL_BYTES + COPIES_HELD * (self._unread + len(body)))
                except BudgetExceeded as error:
                    self.fail(StatusCode.RESOURCE_EXHAUSTED, f"{error.reason}: {error}")
                    return
            self._owner.release(self._stream)
            self._inbox.append(body)
            cost = len(body) + frames.MESSAGE_COST
            self._unread += cost
            limit = _MAX_UNREAD_BYTES if self._owner.window is None else frames.WINDOW_BYTES
            if self._unread + self._owed - cost > limit:
                self.fail(StatusCode.RESOURCE_EXHAUSTED, f"more than {limit} bytes of the stream are unread")
                return
        if flags & frames.REMOTE_CLOSED:
            self._closed = True
        if self._read_waiter is not None and not self._read_waiter.done():
            self._read_waiter.set_result(None)

    def on_window(self, count: int) -> None:
        """Take back bytes that the peer has read."""
        if self._method.streams and self._credit is not None:
            self._credit += count
            if self._credit > 0 and self._write_waiter is not None and not self._write_waiter.done():
                self._write_waiter.set_result(None)

    def _message(self, raw: bytes) -> Any:
        try:
            return self._method.handler.method.read_request(raw)
        except DecodeError as error:
            raise CallAborted(StatusCode.INTERNAL, f"the request cannot be read: {error}") from None

    async def _next(self) -> bytes | None:
        while not self._inbox:
            if self._closed:
                return None
            self._read_waiter = self._owner.loop.create_future()
            await self._read_waiter
        raw = self._inbox.popleft()
        cost = len(raw) + frames.MESSAGE_COST
        self._unread -= cost
        if self._owner.window is None:
            return raw
        self._owed += cost
        if self._owed >= frames.GIVEN_BACK_BYTES:
            self._link.send(frames.WINDOW, self._stream, 0, frames.count_body(self._owed))
            self._owed = 0
        return raw

    async def serve(self, payload: bytes | None) -> None:
        """Run the handler, and answer."""
        self._is_begun = True
        span: LocalServerCall | None = None
        if _switch.enabled:
            span = begin_call(self._method.name, self._metadata, trusted=self._owner.trusted)
        answer = b""
        raised: BaseException | None = None
        code, details = StatusCode.OK, ""
        try:
            if self.caller_has_gone:
                raise asyncio.CancelledError
            answer = await self._run(payload)
            if len(answer) > self._method.max_bytes:
                code, details = StatusCode.RESOURCE_EXHAUSTED, _too_large(answer, self._method.max_bytes)
            elif not self._link.takes(len(answer) + frames.RESPONSE_HEAD_BYTES):
                code, details = StatusCode.RESOURCE_EXHAUSTED, _too_large(answer)
        except BaseException as error:
            raised = error
            code, details = self._status_of(error)
            if not isinstance(error, Exception | asyncio.CancelledError) and not self._is_thrown_in(error):
                raise
        if self._is_late and code is StatusCode.OK:
            code, details = StatusCode.DEADLINE_EXCEEDED, _LATE
        if span is not None:
            span.code, span.details_text = code, details
            span.settle(raised)
        if self._timer is not None:
            self._timer.cancel()
        self._answer(code, details, answer)

    async def _run(self, payload: bytes | None) -> bytes:
        handler = self._method.handler
        if payload is None:
            response = await handler.serve(self, self)
        else:
            serving = handler.serve(self._message(payload), self)
            payload = None  # not held while the handler runs
            response = await serving
        return b"" if response is None else handler.method.write_response(response)

    def _status_of(self, error: BaseException) -> tuple[StatusCode, str]:
        if isinstance(error, CallAborted):
            # Its frames have the message.
            error.__traceback__ = error.__context__ = None
            return error.code, error.details
        if isinstance(error, asyncio.CancelledError):
            if self._refusal is not None:
                return self._refusal
            if self._is_late:
                return StatusCode.DEADLINE_EXCEEDED, _LATE
            if self._owner.is_leaving and self._link.lost is None:
                return StatusCode.UNAVAILABLE, "the server has stopped; the call may have run"
            return StatusCode.CANCELLED, "the caller no longer waits"
        if self._link.lost is None:
            log_error(_log, f"{self._method.name} failed by an error of the server's own", error)
        return StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}"

    def _is_thrown_in(self, error: BaseException) -> bool:
        """Return whether it is what a task or a future ended with that the handler waited for.

        A `GeneratorExit` of these closes every coroutine down to this one; that of a loop that closes has no task.
        """
        return isinstance(error, GeneratorExit) and asyncio.current_task(self._owner.loop) is self.task

    def _answer(self, code: StatusCode, details: str, answer: bytes) -> None:
        if self._link.lost is None:
            if code is not StatusCode.OK:
                self._link.drop_stream(self._stream)
                self._owner.answer(self._stream, frames.failure_body(code, details))
            elif self._method.streams:
                self._link.send(frames.DATA, self._stream, frames.REMOTE_CLOSED | frames.NO_DATA, b"")
            else:
                self._owner.answer(self._stream, frames.response_body(answer))
        if self._charge is not None:
            self._charge.resize(0)
            self._charge = None
        self._owner.end(self._stream)

    def _on_due(self) -> None:
        self._is_late = True
        self.cancel()


def _too_large(body: bytes, limit: int = 0) -> str:
    largest = str(limit) if limit else f"{frames.MAX_BODY} of a peer without extensions"
    return f"Sent message larger than max ({len(body)} vs. {largest})"
