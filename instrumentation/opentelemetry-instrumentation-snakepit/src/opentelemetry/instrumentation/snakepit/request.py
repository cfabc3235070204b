"""One request in a worker, as telemetry follows it from the call to the end of the clean-up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from grpc import aio
from opentelemetry.context import Context
from opentelemetry.instrumentation.snakepit.seam import quietly
from opentelemetry.trace import Span, get_current_span

from snakepit_otel.telemetry import AttributeSet, Details, Labels, Observation, interned, names
from snakepit_otel.telemetry import _context as otel_context
from snakepit_otel.telemetry._definitions import Point

Hook = Callable[[Span, Any], None]
"""Called with a request's span, and with the message that came or that goes; see the package."""
_tools = Labels()


class Hooks(NamedTuple):
    """What users have called for each request."""

    request: Hook | None = None
    response: Hook | None = None


class Request:
    """A request; `adapter` is the instance that serves it, once there is one.

    Its point in the registry begins where the adapter is built, so what a worker asks the authority before that
    is beside it in the trace, below the call.
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
        self._observation: Observation | None = None
        self._context: Context | None = None

    @property
    def begun(self) -> bool:
        """Whether an adapter has been built for it, or is being."""
        return self._context is not None

    def begin(self) -> None:
        """Begin: the adapter is about to be built. From here on the request's span is current, until `leave`."""
        self._observation = Observation(names.ADAPTER_REQUEST, self.labels, lambda: self.details)
        with self._observation.current():
            self._context = otel_context.get()
            self._tell(self._hooks.request, self._message)
        otel_context.attach(self._context)

    def begin_phase(self, point: Point) -> Phase | None:
        """Begin a phase; None within another one, where it is the adapter that calls itself."""
        # By where the code runs: a tool in a thread, whose caller has left, still executes while upstream cleans up.
        if _phase.get() in self._phases:
            return None
        phase = Phase(self, point)
        self._phases.append(phase)
        return phase

    def end_phase(self, phase: Phase, error: BaseException | None) -> None:
        """Note that a phase is over."""
        self._phases.remove(phase)
        self._failed = self._failed or error

    def enter(self) -> Any:
        """Make it the running request, and its span the current one if it has begun."""
        # In any case, so that what is attached when the adapter is built does not outlast the step.
        context = otel_context.get() if self._context is None else self._context
        return running.set(self), otel_context.attach(context)

    def leave(self, token: Any) -> None:
        """See `seam.Observed`."""
        request, context = token
        otel_context.detach(context)
        running.reset(request)

    def answer(self, message: Any) -> None:
        """See what is sent to the caller: the response, or a chunk."""
        observation = self._observation
        if observation is None:
            return
        if self._hooks.response is not None:
            with observation.current():
                self._tell(self._hooks.response, message)
        if not self.streams and not message.success:
            observation.fail(*_failure(message.error_message))

    def end(self, error: BaseException | None = None) -> None:
        """See `seam.Observed`."""
        for phase in tuple(self._phases):
            # A stream that nobody read to its end.
            phase.end(error or asyncio.CancelledError())
        observation, self._observation = self._observation, None
        if observation is not None:
            observation.end(_told(_raised(error, self._failed)))
        # What was begun meanwhile, as upstream's heartbeats, may know of this request for long.
        self.adapter = self._message = self._failed = None

    def _tell(self, hook: Hook | None, message: Any) -> None:
        span = get_current_span()
        if hook is not None and span.is_recording():
            quietly("calling a hook", hook, span, message)


class Phase:
    """One phase of an adapter's life."""

    def __init__(self, request: Request, point: Point) -> None:
        self.request = request
        self._observation: Observation | None = Observation(point, request.labels, lambda: request.details)
        with self._observation.current():
            self._context = otel_context.get()

    def enter(self) -> Any:
        """Make its span the current one; after the first step, the context that the last one left behind."""
        return _phase.set(self), otel_context.attach(self._context)

    def leave(self, token: Any) -> None:
        """See `seam.Observed`."""
        phase, context = token
        # Of a tool that holds a span of its own while it yields.
        self._context = otel_context.get()
        otel_context.detach(context)
        _phase.reset(phase)

    def end(self, error: BaseException | None = None) -> None:
        """See `seam.Observed`."""
        observation, self._observation = self._observation, None
        if observation is not None:
            error = _told(error)
            self.request.end_phase(self, error)
            # In its span, where the event of an exception belongs.
            with observation.current():
                observation.end(error)


running: ContextVar[Request | None] = ContextVar("snakepit_request", default=None)
"""The request that the code at hand runs for."""
_phase: ContextVar[Phase | None] = ContextVar("snakepit_phase", default=None)
"""The phase that the code at hand is within."""


def _raised(error: BaseException | None, failed: BaseException | None) -> BaseException | None:
    """Return an error, or what it came from if it is only gRPC's word for a call that is aborted, or has no caller."""
    cause = error
    while isinstance(cause, aio.BaseError):
        cause = cause.__context__
    if error is None or cause is not None:
        return cause
    return error if failed is None else failed


def _told(error: BaseException | None) -> BaseException | None:
    # A generator that is closed before its end has a caller that left.
    return asyncio.CancelledError() if isinstance(error, GeneratorExit) else error


def _failure(error_message: str) -> tuple[str, str]:
    """Return what failed an answered request: the error's type and message, out of the worker's JSON."""
    try:
        told = json.loads(error_message)
        return str(told["type"]), str(told.get("message", ""))[:500]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "_OTHER", error_message[:500]
