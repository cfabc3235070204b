"""Access to OpenTelemetry's current context, with little work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any

from opentelemetry import context as api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

# The key of the current span in a context, by public means.
SPAN_KEY = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, Context())))


def _accessors() -> tuple[Callable[[], Context], Callable[[Context], Token[Context]], Callable[[Token[Context]], Any]]:
    """Return functions that get, set and reset the context: those of its variable, which cost a third of the API's."""
    runtime = getattr(api, "_RUNTIME_CONTEXT", None)
    variable = getattr(runtime, "_current_context", None)
    if type(runtime) is ContextVarsRuntimeContext and isinstance(variable, ContextVar):
        return variable.get, variable.set, variable.reset
    return api.get_current, api.attach, api.detach


get, attach, _reset = _accessors()
_put, _update, _new = dict.__setitem__, dict.update, Context.__new__


def detach(token: Token[Context]) -> None:
    try:
        _reset(token)
    except ValueError:
        return  # set in another context, by a coroutine that the garbage collector closes: nothing is current here


@contextmanager
def within(context: Context) -> Iterator[None]:
    """Make a context current for a block, in which there is no `yield` to others."""
    token = attach(context)
    try:
        yield
    finally:
        detach(token)


def only_span(span: Any) -> Context:
    """Return a context with nothing but a current span."""
    new = _new(Context)
    _put(new, SPAN_KEY, span)
    return new


def with_span(context: Context, span: Any) -> Context:
    """Return the context with another current span. The context is new, so it may be changed here."""
    new = _new(Context)
    # Nearly always there is nothing else in it.
    if len(context) > 1 or SPAN_KEY not in context:
        _update(new, context)
    _put(new, SPAN_KEY, span)
    return new
