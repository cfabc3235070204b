"""One request in a worker, from its call to the end of the clean-up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from grpc import aio
from opentelemetry.context import Context
from opentelemetry.instrumentation.snakepit.program_calls import guarded
from opentelemetry.trace import Span, get_current_span

from snakepit_otel.telemetry import AttributeSet, Details, Labels, Operation, interned, names
from snakepit_otel.telemetry import _context as otel_context
from snakepit_otel.telemetry._definitions import Point

Hook = Callable[[Span, Any], None]  # with a request's span and message; see the package
_tools = Labels()


class Hooks(NamedTuple):
    """Call-backs of users for each request."""

    request: Hook | None = None
    response: Hook | None = None


class Request:
    """A request; `adapter` is the instance that serves it, None until it is built.

    Its span begins as the adapter is built: earlier calls of the worker to the authority are its siblings in the trace.
    """

    def __init__(self, message: Any, adapter_name: str, hooks: Hooks, *, streams: bool) -> None:
        self.streams = streams
        self.adapter: Any = None
        self.session_id: str = message.session_id
        self.labels: AttributeSet = interned(
            {names.SNAKEPIT_TOOL_NAME: _tools.of(message.tool_name, ()), names.SNAKEPIT_ADAPTER_NAME: adapter_name}
        )
        self.details = Details.of_text(names.SESSION_ID, self.session_id) if self.session_id else None
        self._message: Any = message
        self._phases: list[Phase] = []
        self._failed: BaseException | None = None
        self._hooks = hooks
        self._operation: Operation | None = None
        self._context: Context | None = None

    @property
    def begun(self) -> bool:
        """True once its adapter is being built."""
        return self._context is not None

    def begin(self) -> None:
        """Begin the request's span, which stays current until `leave`."""
        self._operation = Operation(names.ADAPTER_REQUEST, self.labels, lambda: self.details)
        with self._operation.current():
            self._context = otel_context.get()
            self._call_hook(self._hooks.request, self._message)
        otel_context.attach(self._context)

    def begin_phase(self, point: Point) -> Phase | None:
        """Begin a phase; None within another phase, if the adapter calls itself."""
        # By context: a tool's thread still executes after its caller has left, while upstream cleans up.
        if _phase.get() in self._phases:
            return None
        phase = Phase(self, point)
        self._phases.append(phase)
        return phase

    def end_phase(self, phase: Phase, error: BaseException | None) -> None:
        """Remove a phase that has ended."""
        self._phases.remove(phase)
        self._failed = self._failed or error

    def enter(self) -> Any:
        """Make the request the running one, and its span the current one if it has begun."""
        # Also before it begins, so that the context attached by `begin` is detached by `leave`.
        context = otel_context.get() if self._context is None else self._context
        return running.set(self), otel_context.attach(context)

    def leave(self, token: Any) -> None:
        """See `program_calls.Observed`."""
        request, context = token
        otel_context.detach(context)
        running.reset(request)

    def on_response(self, message: Any) -> None:
        """See `program_calls.ObservedRequest`."""
        operation = self._operation
        if operation is None:
            return
        if self._hooks.response is not None:
            with operation.current():
                self._call_hook(self._hooks.response, message)
        if not self.streams and not message.success:
            operation.fail(*_failure(message.error_message))

    def end(self, error: BaseException | None = None) -> None:
        """See `program_calls.Observed`."""
        for phase in tuple(self._phases):
            # A stream that was not read to its end.
            phase.end(error or asyncio.CancelledError())
        operation, self._operation = self._operation, None
        if operation is not None:
            operation.end(_as_cancellation(_cause(error, self._failed)))
        # A task started meanwhile, such as upstream's heartbeats, can keep this request for long.
        self.adapter = self._message = self._failed = None

    def _call_hook(self, hook: Hook | None, message: Any) -> None:
        span = get_current_span()
        if hook is not None and span.is_recording():
            guarded("calling a hook", hook, span, message)


class Phase:
    """One phase of an adapter's lifecycle."""

    def __init__(self, request: Request, point: Point) -> None:
        self.request = request
        self._operation: Operation | None = Operation(point, request.labels, lambda: request.details)
        with self._operation.current():
            self._context = otel_context.get()

    def enter(self) -> Any:
        """Attach the phase's context: its span's, then the one at the end of the last activation."""
        return _phase.set(self), otel_context.attach(self._context)

    def leave(self, token: Any) -> None:
        """See `program_calls.Observed`."""
        phase, context = token
        # A tool can keep a span of its own current while it yields.
        self._context = otel_context.get()
        otel_context.detach(context)
        _phase.reset(phase)

    def end(self, error: BaseException | None = None) -> None:
        """See `program_calls.Observed`."""
        operation, self._operation = self._operation, None
        if operation is not None:
            error = _as_cancellation(error)
            self.request.end_phase(self, error)
            # In its span, to which the exception's event belongs.
            with operation.current():
                operation.end(error)


running: ContextVar[Request | None] = ContextVar("snakepit_request", default=None)
_phase: ContextVar[Phase | None] = ContextVar("snakepit_phase", default=None)


def _cause(error: BaseException | None, failed: BaseException | None) -> BaseException | None:
    """Return an error, or its cause if it is gRPC's for a call that was aborted or cancelled."""
    cause = error
    while isinstance(cause, aio.BaseError):
        cause = cause.__context__
    if error is None or cause is not None:
        return cause
    return error if failed is None else failed


def _as_cancellation(error: BaseException | None) -> BaseException | None:
    # A generator closed before its end means a caller that cancelled.
    return asyncio.CancelledError() if isinstance(error, GeneratorExit) else error


def _failure(error_message: str) -> tuple[str, str]:
    """Return the type and message of an error in the worker's JSON."""
    try:
        failure = json.loads(error_message)
        return str(failure["type"]), str(failure.get("message", ""))[:500]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "_OTHER", error_message[:500]
