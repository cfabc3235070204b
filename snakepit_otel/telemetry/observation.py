"""One passage through a lifecycle point: its span, its duration and how it ended."""

from __future__ import annotations

import asyncio
from contextvars import Token
from time import perf_counter
from types import TracebackType
from typing import Any

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode

from snakepit_otel._version import VERSION
from snakepit_otel.telemetry import faults, names
from snakepit_otel.telemetry.definitions import Point
from snakepit_otel.telemetry.instruments import record

_tracer = trace.get_tracer("snakepit_otel", VERSION, schema_url=names.SCHEMA_URL)
_KINDS = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT, "server": SpanKind.SERVER}


def error_type(error: BaseException) -> str:
    """What `error.type` says of an error: its own word if it has one, else its class."""
    own = getattr(error, "error_type", None)
    if isinstance(own, str):
        return own
    return "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__qualname__


class Observation:
    """A context manager around the work of one lifecycle point.

    The span is current inside it. Enter and leave it in one task, and never across a `yield`.
    Attributes given here or by `set` go to the span; those the duration metric allows go there too.
    """

    __slots__ = ("_attributes", "_failure", "_parent", "_point", "_span", "_span_name", "_started", "_token")

    def __init__(
        self,
        point: Point,
        attributes: dict[str, Any],
        *,
        span_name: str | None = None,
        parent: Context | None = None,
    ) -> None:
        self._point = point
        self._attributes = attributes
        self._span_name = span_name or point.span
        self._parent = parent
        self._failure: str | None = None
        self._token: Token[Context] | None = None

    def __enter__(self) -> Observation:
        try:
            point = self._point
            if point.fixed:
                self._attributes.update(point.fixed)
            self._span = _tracer.start_span(
                self._span_name, self._parent, kind=_KINDS[point.kind], attributes=self._attributes
            )
            self._token = context.attach(trace.set_span_in_context(self._span, self._parent))
        except Exception as error:  # noqa: BLE001 - telemetry never raises into the code it observes
            faults.contain(f"starting {self._span_name}", error)
        self._started = perf_counter()
        return self

    def set(self, attributes: dict[str, Any]) -> None:
        """Add attributes that only became known inside."""
        self._attributes.update(attributes)
        if self._token is not None:
            self._span.set_attributes(attributes)

    def fail(self, kind: str) -> None:
        """Mark the passage as failed; `kind` is its `error.type`, whatever else is raised through it."""
        self._failure = kind

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        elapsed = perf_counter() - self._started
        if self._token is None:
            return
        try:
            failure = self._failure or (error_type(error) if error is not None else None)
            if failure is not None:
                self._attributes[names.ERROR_TYPE] = failure
                self._span.set_attribute(names.ERROR_TYPE, failure)
                self._span.set_status(Status(StatusCode.ERROR, str(error)[:500] if error else None))
            allowed = self._point.duration.attributes
            attributes = {key: value for key, value in self._attributes.items() if key in allowed}
            # The span is still current here, so that exemplars can point at it.
            record(self._point.duration, elapsed, attributes)
            self._span.end()
        except Exception as fault:  # noqa: BLE001 - telemetry never raises into the code it observes
            faults.contain(f"ending {self._span_name}", fault)
        finally:
            context.detach(self._token)
