"""Calls as telemetry sees them at the server's side: only statuses that are the server's fault are errors."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from time import perf_counter_ns
from typing import Any, Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from snakepit_otel.rpc.method import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    MAX_STATUS_CHARACTERS,
    OK,
    Method,
    error_text,
)
from snakepit_otel.rpc.status import StatusCode
from snakepit_otel.telemetry import Operation, _guard, names
from snakepit_otel.telemetry._links import without_state


class ServerCall(Operation):
    """A call as its server sees it: only statuses that are the server's fault are errors."""

    def __init__(self, method: Method, parent: Context | None, links: Iterable[SpanContext], context: Any) -> None:
        super().__init__(names.RPC_SERVER, method.labels, span_name=method.name, parent=parent, links=links)
        self._method = method
        self.context = context

    @classmethod
    def arrived(cls, method: Method, metadata: Any) -> Self:
        """Return the call that has arrived with this metadata, in its own task; the context comes later."""
        call = cls.__new__(cls)
        call.point = names.RPC_SERVER
        call.labels = method.labels
        call.span_name = method.name
        call._method = method
        call.start_remote(metadata or ())
        return call

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

    def status(self, error: BaseException | None) -> StatusCode:
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

    def cut_short(self) -> StatusCode:
        """Return why the caller no longer waits: its deadline has passed, or it cancelled."""
        left = self.context.time_remaining()
        return DEADLINE_EXCEEDED if left is not None and self.is_over(left) else CANCELLED

    def is_over(self, left: float) -> bool:
        """Return whether the caller's deadline may have passed when this side has these seconds left."""
        # The caller's deadline is a little earlier: on the wire the timeout is rounded up, by a hundredth at most, and
        # it began when the request was sent.
        return left <= 0.02 + 0.01 * ((perf_counter_ns() - self.started) * 1e-9 + left)


def caller_of(parent: Context) -> tuple[SpanContext, ...]:
    """Return the caller's identity, for a link; empty if it has none."""
    identity = trace.get_current_span(parent).get_span_context()
    return (without_state(identity),) if identity.is_valid else ()
