"""Admission of calls: what each has the authority hold is charged to its peer, from its arrival to its end."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from snakepit_otel.bridge.authority.byte_budget import COPIES_HELD, Budget
from snakepit_otel.bridge.authority.partial_messages import IncomingCall, PartialMessages
from snakepit_otel.bridge.wire.peers import peer_of
from snakepit_otel.errors import BudgetExceeded, DeadlineExceeded
from snakepit_otel.rpc.transports.base import EOF
from snakepit_otel.system.heap import HeapTrimmer
from snakepit_otel.system.tcp_connections import Connections

_COPIES_SENT = 2
_CALL_BYTES = 64 << 10  # of gRPC's buffers for a message that is not read yet, and of the call's own objects
_PROGRESS_BYTES = 64 << 10  # that a peer acknowledges within `unread_timeout`, if it reads at all


class AdmissionInterceptor(aio.ServerInterceptor):
    """Admits the calls of one listener, as far as there is room for them; the innermost interceptor.

    A call is charged from when its headers are there until its answer is sent; a message once its size is known,
    before it is decoded. `connections` are those of a listener on TCP: there, what is on its way is charged, too, a
    request must arrive within `arrival_timeout`, and a connection whose peer takes nothing of its answers for
    `unread_timeout` is ended. Times are in seconds.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        arrival_timeout: float = 60.0,
        unread_timeout: float = 60.0,
        connections: Connections | None = None,
    ) -> None:
        self.budget = budget
        self.arrival_timeout = arrival_timeout
        self.unread_timeout = unread_timeout
        self.connections = connections
        self.freed = HeapTrimmer()
        self.partial_messages = PartialMessages(budget, connections, self.freed) if connections is not None else None
        self._methods: dict[str, _Method] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Put what admits a method's calls in place of its handler; see `grpc.aio.ServerInterceptor`."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        path = handler_call_details.method
        method = self._methods.get(path)
        if method is None or method.handler is not handler:
            method = self._methods[path] = _Method(handler, self)
        return method.admitting

    def close(self) -> None:
        """Watch over connections no more."""
        if self.partial_messages is not None:
            self.partial_messages.close()
        self.freed.close()


class _Method:
    """The handler of one method, and what admits its calls.

    That is a handler of streamed requests in any case: gRPC runs it before there is a message, and keeps none.
    """

    def __init__(self, handler: Any, admission: AdmissionInterceptor) -> None:
        self.handler = handler
        self.admitting = handler
        self._admission = admission
        self._reads: bool = handler.request_streaming
        self._streams: bool = handler.response_streaming
        kind = f"{'stream' if self._reads else 'unary'}_{'stream' if self._streams else 'unary'}"
        self._behaviour: Any = getattr(handler, kind)
        if inspect.iscoroutinefunction(self._behaviour):
            build = grpc.stream_stream_rpc_method_handler if self._streams else grpc.stream_unary_rpc_method_handler
            self.admitting = build(self._admit)

    async def _admit(self, _requests: Any, context: Any) -> bytes | None:
        call = _Call(self._admission, self.handler, context)
        try:
            return await self._serve(call)
        except BudgetExceeded as error:
            code, details = grpc.StatusCode.RESOURCE_EXHAUSTED, f"{error.reason}: {error}"
        except DeadlineExceeded as error:
            code, details = grpc.StatusCode.DEADLINE_EXCEEDED, str(error)
        except aio.AbortError as error:
            # The call and this error hold each other: the request, in one of its frames, would be held, too.
            error.__context__ = error.__traceback__ = None
            raise
        await call.abort(code, details)
        return None

    async def _serve(self, call: _Call) -> bytes | None:
        call.begin()
        if self._reads:
            # One that answers once takes an upload; a dialogue may be silent for as long as it likes.
            request = call.messages(None if self._streams else self._admission.arrival_timeout)
        else:
            request = await call.request(self._admission.arrival_timeout)
        response = await self._behaviour(request, call)
        if self._streams or response is None:
            return None
        del request
        return call.answer(response)


class _Call:
    """One call and its charge, in place of gRPC's context, which has the remaining methods."""

    def __init__(self, admission: AdmissionInterceptor, handler: Any, context: Any) -> None:
        self._admission = admission
        self._context = context
        self._deserialize: Callable[[bytes], Any] = handler.request_deserializer
        self._serialize: Callable[[Any], bytes] = handler.response_serializer
        self._peer = peer_of(context)
        self._name: str = context.peer()
        self._charge = admission.budget.charge(self._peer, 0, "a call")
        self._call_bytes = _CALL_BYTES
        self._incoming: IncomingCall | None = None
        self._refusal = ""
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def begin(self) -> None:
        """Charge for the call itself."""
        headers = 0
        if not self._peer.is_known:
            headers = sum(len(key) + len(value) for key, value in self._context.invocation_metadata() or ())
        self._call_bytes += headers
        self._charge.resize(self._call_bytes)
        task = asyncio.current_task()
        assert task is not None
        # It ends when the answer is sent. The context's own call-backs would hold the context, and it them.
        task.add_done_callback(self._end)

    async def request(self, timeout: float) -> Any:
        """Return the only message of a call, which has `timeout` seconds to arrive."""
        try:
            raw = await self._receive(timeout)
        finally:
            self._arrived()
        if raw is aio.EOF:
            # Where the caller has gone, gRPC cancels this task instead.
            await asyncio.sleep(0)
            await self.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call ended before its message")
        try:
            return self._deserialize(raw)
        except DecodeError as error:
            return await self.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the message cannot be decoded: {error}"[:200])

    async def read(self, timeout: float | None = None) -> Any:
        """Return the next message of a stream, or `EOF`."""
        raw = await self._receive(timeout)
        return EOF if raw is aio.EOF else self._deserialize(raw)

    async def messages(self, timeout: float | None) -> AsyncIterator[Any]:
        """Yield the messages of a stream, each of which has `timeout` seconds to arrive."""
        while (message := await self.read(timeout)) is not EOF:
            yield message
            del message

    async def write(self, message: Any) -> None:
        """Send a message of a streamed answer. Raises `DeadlineExceeded` if nothing of it is taken for too long."""
        raw = self._serialize(message)
        self._charge_bytes(_COPIES_SENT * len(raw))
        # gRPC sends no status while a message is being sent, so that goes on if we wait for it no longer.
        writing = self._writing = asyncio.ensure_future(self._context.write(raw))
        writing.add_done_callback(_retrieve_error)
        try:
            async with asyncio.timeout(None) as limit:
                self._watch_progress(lambda: limit.reschedule(0))
                await asyncio.shield(writing)
        except TimeoutError:
            if not limit.expired():
                raise
            seconds = self._admission.unread_timeout
            raise DeadlineExceeded(f"the caller has taken nothing of the stream for {seconds:g} s") from None
        finally:
            self._stop_watching()

    def answer(self, response: Any) -> bytes:
        """Return the answer as it is sent, and see to it that it is taken."""
        raw = self._serialize(response)
        self._charge_bytes(_COPIES_SENT * len(raw))
        self._end_if_not_taken()
        return raw

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> Any:
        """End the call; see `grpc.aio.ServicerContext`."""
        self._end_if_not_taken()
        if self._writing is not None and not self._writing.done():
            await asyncio.wait([self._writing])
        await self._context.abort(code, details, tuple(trailing_metadata))

    async def _receive(self, timeout: float | None) -> Any:
        partial_messages = self._admission.partial_messages
        if partial_messages is None:
            return self._charged(await self._next())
        try:
            async with asyncio.timeout(timeout) as limit:

                def refuse(why: str) -> None:
                    self._refusal = why
                    limit.reschedule(0)

                if self._incoming is None:
                    self._incoming = partial_messages.begin(self._name, self._peer, self._call_bytes - _CALL_BYTES)
                self._incoming.refuse = refuse
                raw = await self._next()
                self._incoming.refuse = None
        except TimeoutError:
            if not limit.expired():
                raise
            if self._refusal:
                raise BudgetExceeded(self._refusal) from None
            raise DeadlineExceeded(f"the message did not arrive within {timeout:g} s") from None
        if raw is not aio.EOF:
            self._incoming.add_message(len(raw))
        return self._charged(raw)

    async def _next(self) -> Any:
        # Of a read that is cancelled when the message has just come, gRPC never frees the message. It ends with the
        # call in any case, so the read goes on without a reader.
        reading = asyncio.ensure_future(self._context.read())
        reading.add_done_callback(_retrieve_error)
        return await asyncio.shield(reading)

    def _charged(self, raw: Any) -> Any:
        self._charge_bytes(0 if raw is aio.EOF else COPIES_HELD * len(raw))
        return raw

    def _arrived(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.end()

    def _end_if_not_taken(self) -> None:
        connections = self._admission.connections
        if connections is not None:
            self._stop_watching()
            self._watch_progress(lambda: connections.close(self._name))

    def _watch_progress(self, act: Callable[[], object], taken: int | None = None) -> None:
        """Call `act` when the peer has taken nothing for `unread_timeout`, which is looked at twice in that time."""
        connections = self._admission.connections

        def look() -> None:
            now = 0
            if connections is not None:
                connections.find([self._name])
                traffic = connections.traffic(self._name)
                now = traffic.acknowledged if traffic is not None else 0
            if taken is not None and now - taken < _PROGRESS_BYTES:
                act()
            else:
                self._watch_progress(act, now)

        self._timer = asyncio.get_running_loop().call_later(self._admission.unread_timeout / 2, look)

    def _stop_watching(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _charge_bytes(self, size: int) -> None:
        """Charge `size` bytes, besides those of the call itself, in place of the present charge."""
        before = self._charge.size
        self._charge.resize(self._call_bytes + size)
        if self._charge.size < before:
            self._admission.freed.add(before - self._charge.size)

    def _end(self, _task: object) -> None:
        self._stop_watching()
        self._arrived()
        self._admission.freed.add(self._charge.size)
        self._charge.release()


def _retrieve_error(ended: asyncio.Future[Any]) -> None:
    """Retrieve the error of an abandoned read or write, which asyncio would log otherwise."""
    if not ended.cancelled():
        ended.exception()
