"""Calls over gRPC as telemetry sees them at the server's side."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from grpc import aio
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from snakepit_otel.rpc.grpc_status import status_code
from snakepit_otel.rpc.method import CANCELLED, DEADLINE_EXCEEDED, OK, UNKNOWN, Method
from snakepit_otel.rpc.server_call import ServerCall
from snakepit_otel.rpc.status import StatusCode


class AioServerCall(ServerCall):
    """A call that an aio server's coroutine or async generator handles."""

    def status(self, error: BaseException | None) -> StatusCode:
        """See `ServerCall`."""
        if error is None:
            if self.context.time_remaining() == 0:
                # A handler of streamed requests may not notice: for it the requests have ended.
                return DEADLINE_EXCEEDED
            return status_code(self.context.code())
        if isinstance(error, asyncio.CancelledError) or _peer_is_gone(error):
            return self.cut_short()
        code = status_code(self.context.code())
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
        self._cut_short: StatusCode | None = None
        if not context.add_callback(self._over):
            self._over()

    def _over(self) -> None:
        # Called for every call; for one that was answered, the operation has ended by then.
        self._cut_short = self.cut_short()

    def status(self, error: BaseException | None) -> StatusCode:
        """See `ServerCall`."""
        if not self.context.is_active():
            return self._cut_short or self.cut_short()
        code = self.context.code()
        if code is None:
            return OK if error is None else CANCELLED if isinstance(error, GeneratorExit) else UNKNOWN
        return status_code(code)

    def status_details(self) -> str:
        """See `ServerCall`."""
        return (self.context.details() or b"").decode(errors="replace")


class ThreadServerCall(ServerCall):
    """A call in a thread of an aio server; its context lacks the status, so `context` is a `StatusRecorder`."""

    def status(self, error: BaseException | None) -> StatusCode:
        """See `ServerCall`."""
        if self.context.time_remaining() == 0:
            return DEADLINE_EXCEEDED
        code = status_code(self.context.recorded_code)
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


def _peer_is_gone(error: BaseException) -> bool:
    return isinstance(error, aio.BaseError) and not isinstance(error, aio.UsageError | aio.AbortError)
