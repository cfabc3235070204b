"""Interceptors for servers: a server span for every call, to its end, in its caller's trace."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import grpc
from grpc import aio
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from snakepit_otel.rpc.grpc_server_call import (
    AioServerCall,
    BlockingServerCall,
    StatusRecorder,
    ThreadServerCall,
)
from snakepit_otel.rpc.method import MAX_NAME_CHARACTERS, OTHER_METHOD, method_of
from snakepit_otel.rpc.server_call import ServerCall, caller_of
from snakepit_otel.rpc.status import StatusCode
from snakepit_otel.telemetry import _guard, _switch, incoming

_KINDS = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}
_ROOT = Context()
_MAX_HANDLERS = 1_000
# The call of the current task, where `_coroutine_in_task` serves it.
_call: ContextVar[AioServerCall] = ContextVar("call")
_Links = tuple[SpanContext, ...]


class _Handler:
    """Handler of one method, with what observes it; made once for all calls."""

    def __init__(self, path: str, handler: Any, *, in_aio: bool) -> None:
        self.handler = handler
        self.method = method_of(path)
        streams = bool(handler.response_streaming)
        self._reads = bool(handler.request_streaming)
        attribute, self._build = _KINDS[self._reads, streams]
        self._behaviour: Any = getattr(handler, attribute)
        self._call: type[ServerCall] = AioServerCall
        # Serves every call whose task has begun before the handler is chosen, as in aio; the same for all of them.
        self.in_task: Any = None
        # gRPC runs a handler by its kind, so each is replaced by one of its own kind.
        if in_aio and inspect.iscoroutinefunction(self._behaviour):
            self._observed: Callable[..., Any] = self._coroutine
            self.in_task = self._build(
                self._coroutine_in_task, handler.request_deserializer, handler.response_serializer
            )
        elif in_aio and inspect.isasyncgenfunction(self._behaviour):
            self._observed = self._async_generator
        else:
            self._call = ThreadServerCall if in_aio else BlockingServerCall
            self._observed = self._iterator if streams else self._function

    def for_call(self, parent: Context, links: _Links) -> Any:
        handler = self.handler
        return self._build(
            partial(self._observed, parent, links), handler.request_deserializer, handler.response_serializer
        )

    async def _coroutine(self, parent: Context, links: _Links, request: Any, context: Any) -> Any:
        call = AioServerCall(self.method, parent, links, context)
        with call:
            response = await self._behaviour(request, context)
            if self._reads:
                await call.yield_to_cancellation()
            return response

    async def _coroutine_in_task(self, request: Any, context: Any) -> Any:
        call = _call.get()
        call.context = context
        try:
            response = await self._behaviour(request, context)
            if self._reads:
                await call.yield_to_cancellation()
        except aio.AbortError as error:
            call.settle(error)
            # gRPC keeps it with the call, in a cycle that waits for the collector. Its frames have the message.
            error.__context__ = request = None
            raise error.with_traceback(None) from None
        except BaseException as error:
            call.settle(error)
            raise
        call.settle()
        return response

    async def _async_generator(self, parent: Context, links: _Links, request: Any, context: Any) -> AsyncIterator[Any]:
        call = AioServerCall(self.method, parent, links, context)
        raised: BaseException | None = None
        responses = self._behaviour(request, context)
        try:
            while True:
                # Current for each step, and not while gRPC sends what was yielded.
                with call.current():
                    try:
                        response = await anext(responses)
                    except StopAsyncIteration:
                        break
                yield response
            if self._reads:
                await call.yield_to_cancellation()
        except BaseException as error:
            raised = error
            raise
        finally:
            try:
                with call.current():
                    await responses.aclose()
            finally:
                call.settle(raised)

    def _function(self, parent: Context, links: _Links, request: Any, context: Any) -> Any:
        if self._call is ThreadServerCall:
            context = StatusRecorder(context)
        with self._call(self.method, parent, links, context):
            return self._behaviour(request, context)

    def _iterator(self, parent: Context, links: _Links, request: Any, context: Any) -> Iterator[Any]:
        if self._call is ThreadServerCall:
            context = StatusRecorder(context)
        call = self._call(self.method, parent, links, context)
        try:
            with call.current():
                return _Responses(call, iter(self._behaviour(request, context)))
        except BaseException as error:
            call.settle(error)
            raise


class _Responses:
    """The responses of a handler that gives an iterator; the call ends with them, also if they are dropped."""

    def __init__(self, call: ServerCall, responses: Iterator[Any]) -> None:
        self._call: ServerCall | None = call
        self._responses = responses

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._call is None:
            raise StopIteration
        try:
            with self._call.current():
                try:
                    return next(self._responses)
                except StopIteration:
                    pass
        except BaseException as error:
            self._end(error)
            raise
        self._end(None)
        raise StopIteration

    def close(self) -> None:
        """End a call without a reader, as a generator's own `close` does."""
        call = self._call
        if call is None:
            return
        try:
            with call.current():
                getattr(self._responses, "close", bool)()
        finally:
            self._end(GeneratorExit())

    __del__ = close

    def _end(self, error: BaseException | None) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.settle(error)


class _Observing:
    """Common part of both interceptors: the handlers seen so far, and whether callers are trusted."""

    def __init__(self, *, trusted: bool = True) -> None:
        self._trusted = trusted
        self._handlers: dict[str, _Handler] = {}

    def _observed(self, details: Any, handler: Any, *, in_aio: bool) -> Any:
        path: str = details.method
        parent, links = incoming(details.invocation_metadata), ()
        if not self._trusted:
            # Such a caller decides neither on sampling nor on what is in the traces.
            parent, links = _ROOT, caller_of(parent)  # type: ignore[assignment]
        if handler is None:
            # No service has it, and gRPC refuses it; its name is the caller's choice, so it is no label.
            _Unserved(OTHER_METHOD, parent, links, None).settle()
            return None
        known = self._handlers.get(path)
        if known is None or known.handler is not handler:
            if len(self._handlers) >= _MAX_HANDLERS:
                self._handlers.clear()
            known = _Handler(path, handler, in_aio=in_aio)
            if len(path) <= MAX_NAME_CHARACTERS:
                self._handlers[path] = known
        return known.for_call(parent, links)


class ServerInterceptor(_Observing, aio.ServerInterceptor):
    """Makes a server span for each call of an aio server: in a `trusted` caller's trace, else in one linked to it."""

    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], handler_call_details: Any) -> Any:
        """Put the observed handler in place of the handler; see `grpc.aio.ServerInterceptor`."""
        handler = await continuation(handler_call_details)
        if not _switch.enabled:
            return handler
        known = self._handlers.get(handler_call_details.method)
        if known is None or known.handler is not handler or known.in_task is None or not self._trusted:
            return self._observed(handler_call_details, handler, in_aio=True)
        # aio chooses the handler in the task that then runs it, and that ends with the call.
        _call.set(AioServerCall.arrived(known.method, handler_call_details.invocation_metadata))
        return known.in_task


class BlockingServerInterceptor(_Observing, grpc.ServerInterceptor):
    """Makes a server span for every call of a blocking server; see `ServerInterceptor`."""

    def intercept_service(self, continuation: Callable[..., Any], handler_call_details: Any) -> Any:
        """Put the observed handler in place of the handler; see `grpc.ServerInterceptor`."""
        handler = continuation(handler_call_details)
        return self._observed(handler_call_details, handler, in_aio=False) if _switch.enabled else handler


class ObservedHandler(_Observing, grpc.GenericRpcHandler):
    """Generic handler of another package's aio server, with a server span for each call while `enabled`."""

    def __init__(self, handler: grpc.GenericRpcHandler, enabled: Callable[[], bool]) -> None:
        super().__init__()
        self._handler = handler
        self._enabled = enabled

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """See `grpc.GenericRpcHandler`."""
        handler = self._handler.service(handler_call_details)
        if handler is None or not _switch.enabled or not self._enabled():
            return handler
        try:
            return self._observed(handler_call_details, handler, in_aio=True)
        except Exception as error:  # noqa: BLE001 - telemetry never raises into the code it observes
            _guard.contain("observing calls of another's server", error)
            return handler


class _Unserved(ServerCall):
    """A call of a method that the server does not have."""

    def status(self, error: BaseException | None) -> StatusCode:
        return StatusCode.UNIMPLEMENTED

    def status_details(self) -> str:
        return "Method not found!"
