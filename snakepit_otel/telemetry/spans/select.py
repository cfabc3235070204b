"""Which way spans are made in this process, now."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from opentelemetry import trace
from opentelemetry.context import Context

from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.telemetry import _guard
from snakepit_otel.telemetry.spans.sdk import PlainLane

_log = logging.getLogger("snakepit_otel.telemetry")


class Lane(Protocol):
    """A way to make spans."""

    def start(self, passage: Any, context: Context) -> Context | None:
        """Begin a passage's span, if it is to be recorded, and return the context to work in."""
        ...

    def end(self, passage: Any, elapsed: int) -> None:
        """End the passage's span."""
        ...


_provider: Any = None
_processors: Any = None
_lane: Lane | None = None
_said: set[str] = set()


def lane() -> Lane | None:
    """Return the way to make a span that has no lean one above it; None if there is nobody to make it for.

    Looks each time, since an application may set its provider, or add a processor, whenever it likes.
    """
    provider = trace.get_tracer_provider()
    if provider is not _provider or _processors_of(provider) is not _processors:
        _choose(provider)
    return _lane


def _processors_of(provider: Any) -> Any:
    # The SDK replaces this tuple when a processor is added.
    return getattr(getattr(provider, "_active_span_processor", None), "_span_processors", None)


def _choose(provider: Any) -> None:
    global _provider, _processors, _lane  # noqa: PLW0603 - one choice per process is the point
    processors = _processors_of(provider)
    # In this order: other threads make the same choice meanwhile, and never go by half of it.
    _lane = _best(provider)
    _provider, _processors = provider, processors


def _best(provider: Any) -> Lane | None:
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    try:
        # Only here, so that library code does without the SDK where there is none.
        from snakepit_otel.telemetry.spans import compat as adoption
    except ImportError:
        return PlainLane(provider)
    try:
        return adoption.adopt(provider)
    except adoption.CannotServe as reason:
        _say_once(f"spans are made by OpenTelemetry's own means, which cost more: {reason}")
    except Exception as error:  # noqa: BLE001 - the plain lane always serves
        _guard.contain("choosing how to make spans", error)
    return PlainLane(provider)


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        _log.info("%s", printable(text, MAX_MESSAGE_CHARACTERS))
