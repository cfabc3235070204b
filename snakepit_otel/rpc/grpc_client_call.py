"""Calls over gRPC as telemetry sees them at the caller's side."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import grpc

from snakepit_otel.rpc.client_call import ClientCall
from snakepit_otel.rpc.grpc_status import status_code
from snakepit_otel.rpc.method import CANCELLED, UNKNOWN
from snakepit_otel.rpc.status import StatusCode


class GrpcClientCall(ClientCall):
    """A call over gRPC; see `ClientCall`."""

    def follow(self, call: Any) -> None:
        """Settle when a call on a blocking channel has ended, as gRPC reports it."""

        # The callback does not keep the call alive: dropping a call is to cancel it.
        def done() -> None:
            ended = found()
            if ended is None:
                self.settle(CANCELLED, "the caller dropped it")
            else:
                self.settle(UNKNOWN if ended.code() is None else status_code(ended.code()), ended.details())

        try:
            found = weakref.ref(call)
            if call.done() or not call.add_callback(done):
                done()
        except (AttributeError, TypeError):
            # An inner interceptor returned something else in place of a call, such as an iterator.
            self.end()

    def follow_aio(self, call: Any) -> None:
        """Settle when a call on an aio channel has ended, as gRPC reports it."""
        try:
            call.add_done_callback(self._aio_done)
        except NotImplementedError:
            # An inner interceptor returned a response in place of a call, with its status.
            self._aio_done(call)

    def _aio_done(self, call: Any) -> None:
        code = _result_of(call.code())
        self.settle(UNKNOWN if code is None else status_code(code), _result_of(call.details()))

    def _status_of(self, error: BaseException) -> tuple[StatusCode | None, str]:
        code: Callable[[], Any] | None = getattr(error, "code", None)
        if not isinstance(error, grpc.RpcError) or code is None:
            return super()._status_of(error)
        found = code()
        return (status_code(found), error.details() or "") if isinstance(found, grpc.StatusCode) else (None, "")


def _result_of(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that need not wait; None if it would."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    return None
