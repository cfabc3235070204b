"""Calls as telemetry sees them at the server's side: only statuses that are the server's fault are errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from time import perf_counter_ns
from typing import Any

import grpc
from grpc import aio
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from snakepit_otel.rpc.method import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    MAX_STATUS_CHARACTERS,
    OK,
    UNKNOWN,
    Method,
    error_text,
)
from snakepit_otel.telemetry import Operation, _guard, names

_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class ServerCall(Operation):
    """A call as its server sees it: only statuses that are the server's fault are errors."""

    def __init__(self, method: Method, parent: Context | None, links: Iterable[SpanContext], context: Any) -> None:
        super().__init__(names.RPC_SERVER, method.labels, span_name=method.name, parent=parent, links=links)
        self._method = method
        self.context = context

    def __exit__(self, kind: object, error: BaseException | None, trace_back: object) -> None:
        self._set_status(error)
        super().__exit__(None, None, None)

    def settle(self, error: BaseException | None = None) -> None:
        """End the operation of a call whose handler returned, or raised this."""
        self._set_status(error)
        if self.labels is self._method.ok:
            self.end_labelled()
        else:
            self.end()

    def status(self, error: BaseException | None) -> grpc.StatusCode:
        """Return the status of a call whose handler returned, or raised this."""
        raise NotImplementedError

    def status_details(self) -> str:
        """Return the details of the status that the handler set."""
        raise NotImplementedError

    def _set_status(self, error: BaseException | None) -> None:
        try:
            self._take_status(error)
        except Exception as fault:  # noqa: BLE001 - telemetry never raises into the code it observes
            _guard.contain(f"recording the status of a call of {self._method.name}", fault)

    def _take_status(self, error: BaseException | None) -> None:
        code = self.status(error)
        if code is OK:
            self.labels = self._method.ok
            return
        self.labels = self._method.by_status[code]
        if code in self._method.server_faults:
            text = ""
            with suppress(Exception):
                text = self.status_details() or error_text(error)
            self.fail(code.name, text[:MAX_STATUS_CHARACTERS])

    def cut_short(self) -> grpc.StatusCode:
        """Return why the caller no longer waits: its deadline has passed, or it cancelled."""
        left = self.context.time_remaining()
        return DEADLINE_EXCEEDED if left is not None and self.is_over(left) else CANCELLED

    def is_over(self, left: float) -> bool:
        """Return whether the caller's deadline may have passed when this side has these seconds left."""
        # The caller's deadline is a little earlier: on the wire the timeout is rounded up, by a hundredth at most, and
        # it began when the request was sent.
        return left <= 0.02 + 0.01 * ((perf_counter_ns() - self.started) * 1e-9 + left)


class AioServerCall(ServerCall):
    """A call that an aio server's coroutine or async generator handles."""

    @classmethod
    def arrived(cls, method: Method, metadata: Any) -> AioServerCall:
        """Return the call that has arrived with this metadata, in its own task; the context comes later."""
        call = cls.__new__(cls)
        call.point = names.RPC_SERVER
        call.labels = method.labels
        call.span_name = method.name
        call._method = method
        call.start_remote(metadata or ())
        return call

    def status(self, error: BaseException | None) -> grpc.StatusCode:
        """See `ServerCall`."""
        if error is None:
            if self.context.time_remaining() == 0:
                # A handler of streamed requests may not notice: for it the requests have ended.
                return DEADLINE_EXCEEDED
            code = self.context.code()
            return OK if code is None else _aio_code(code)
        if isinstance(error, asyncio.CancelledError) or _peer_is_gone(error):
            return self.cut_short()
        code = _aio_code(self.context.code())
        if isinstance(error, GeneratorExit) and code is OK:
            return self.cut_short()
        return UNKNOWN if code is OK else code

    async def yield_to_cancellation(self) -> None:
        """Let gRPC cancel a handler for which the requests of a cancelled call merely ended."""
        await asyncio.sleep(0)
        left = self.context.time_remaining()
        if left is not None and self.is_over(left):
            # The caller's deadline ends its requests, too, and gRPC may report that some turns of the loop later.
            # If the requests did end by themselves, there is still time for the response.
            await asyncio.sleep(left / 2)

    def status_details(self) -> str:
        """See `ServerCall`."""
        return str(self.context.details())


class BlockingServerCall(ServerCall):
    """A call in a thread of a blocking server; nothing interrupts it, so the status is kept when its caller goes."""

    def __init__(self, method: Method, parent: Context | None, links: Iterable[SpanContext], context: Any) -> None:
        super().__init__(method, parent, links, context)
        self._cut_short: grpc.StatusCode | None = None
        if not context.add_callback(self._over):
            self._over()

    def _over(self) -> None:
        # Called for every call; for one that was answered, the operation has ended by then.
        self._cut_short = self.cut_short()

    def status(self, error: BaseException | None) -> grpc.StatusCode:
        """See `ServerCall`."""
        if not self.context.is_active():
            return self._cut_short or self.cut_short()
        code = self.context.code()
        if code is None:
            return OK if error is None else CANCELLED if isinstance(error, GeneratorExit) else UNKNOWN
        return code if isinstance(code, grpc.StatusCode) else UNKNOWN

    def status_details(self) -> str:
        """See `ServerCall`."""
        return (self.context.details() or b"").decode(errors="replace")


class ThreadServerCall(ServerCall):
    """A call in a thread of an aio server; its context lacks the status, so `context` is a `StatusRecorder`."""

    def status(self, error: BaseException | None) -> grpc.StatusCode:
        """See `ServerCall`."""
        if self.context.time_remaining() == 0:
            return DEADLINE_EXCEEDED
        code = _aio_code(self.context.recorded_code)
        if code is OK and error is not None:
            return CANCELLED if isinstance(error, GeneratorExit) else UNKNOWN
        return code

    def status_details(self) -> str:
        """See `ServerCall`."""
        return str(self.context.recorded_details)


class StatusRecorder:
    """Context of a handler in a thread of an aio server that records the status that is set."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.recorded_code: Any = None
        self.recorded_details = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def set_code(self, code: Any) -> None:
        """See `grpc.ServicerContext`."""
        self._context.set_code(code)
        self.recorded_code = code

    def set_details(self, details: str) -> None:
        """See `grpc.ServicerContext`."""
        self._context.set_details(details)
        self.recorded_details = details

    def abort(self, code: Any, details: str = "", *more: Any) -> None:
        """See `grpc.ServicerContext`."""
        self.recorded_code, self.recorded_details = code, details
        self._context.abort(code, details, *more)


def _aio_code(code: Any) -> grpc.StatusCode:
    if code is None:
        return OK
    if isinstance(code, grpc.StatusCode):
        return code
    return _BY_NUMBER.get(code, UNKNOWN) if isinstance(code, int) else UNKNOWN


def _peer_is_gone(error: BaseException) -> bool:
    return isinstance(error, aio.BaseError) and not isinstance(error, aio.UsageError | aio.AbortError)
