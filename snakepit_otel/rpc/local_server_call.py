"""Calls over the local transport as telemetry sees them at the server's side."""

from __future__ import annotations

from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from snakepit_otel.rpc.method import LOCAL, method_of, other_method
from snakepit_otel.rpc.server_call import ServerCall, caller_of
from snakepit_otel.rpc.status import StatusCode
from snakepit_otel.telemetry import _context, _switch, incoming

_ROOT = Context()


class LocalServerCall(ServerCall):
    """A call whose status the transport sets before it ends."""

    code = StatusCode.OK
    details_text = ""

    def status(self, error: BaseException | None) -> StatusCode:
        """See `ServerCall`."""
        return self.code

    def status_details(self) -> str:
        """See `ServerCall`."""
        return self.details_text


def begin_call(name: str, metadata: Any, *, trusted: bool) -> LocalServerCall:
    """Begin the span of a call in its own task, in which it is current: in a `trusted` caller's trace, or linked."""
    method = method_of(name, LOCAL)
    if trusted:
        return LocalServerCall.arrived(method, metadata)
    call = LocalServerCall(method, _ROOT, caller_of(incoming(metadata)), None)
    if call._within is not None:
        _context.attach(call._within)
    return call


def refuse_call(metadata: Any, *, trusted: bool) -> None:
    """Record a call of a method that nobody serves; its name is the caller's choice, so it is no label."""
    if not _switch.enabled:
        return
    parent = incoming(metadata)
    links: tuple[SpanContext, ...] = ()
    if not trusted:
        parent, links = _ROOT, caller_of(parent)
    call = LocalServerCall(other_method(LOCAL), parent, links, None)
    call.code, call.details_text = StatusCode.UNIMPLEMENTED, "Method not found!"
    call.settle()
