"""Calls as telemetry sees them at the caller's side: attributes, and the true status."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from types import TracebackType
from typing import Any

from opentelemetry.context import Context

from snakepit_otel.rpc.method import CANCELLED, MAX_STATUS_CHARACTERS, OK, Method, error_text
from snakepit_otel.rpc.status import RpcError, StatusCode
from snakepit_otel.telemetry import AttributeSet, Operation, _context, names
from snakepit_otel.telemetry._lean_spans import begin, finish
from snakepit_otel.telemetry.spans.base import Unsampled


class Peer:
    """The server at an address, as an attribute of client spans; the address is a target of gRPC's."""

    __slots__ = ("_attributes",)

    def __init__(self, target: str) -> None:
        self._attributes = AttributeSet(_server_attributes(target))

    def attributes(self) -> AttributeSet:
        """Return the server's address, and its port if it has one."""
        return self._attributes


def _server_attributes(target: str) -> dict[str, Any]:
    scheme, colon, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return {names.SERVER_ADDRESS: rest.removeprefix("//")}
    if colon and scheme in ("dns", "ipv4", "ipv6"):
        # A resolver may be named in between: dns://resolver/host:port.
        target = rest.rpartition("/")[2]
    host, _, port = target.rpartition(":")
    if not host or not port.isdecimal() or (":" in host and not host.startswith("[")):
        return {names.SERVER_ADDRESS: target.strip("[]")}
    return {names.SERVER_ADDRESS: host.strip("[]"), names.SERVER_PORT: int(port)}


class ClientCall(Operation):
    """A call as its caller sees it: every status but OK is an error."""

    @classmethod
    def of_span(cls, method: Method, span: Any) -> ClientCall:
        """Return the call of a span that has none yet."""
        call: Any = cls.from_start(names.RPC_CLIENT, method.labels, span.details, span.started)
        call.span_name = method.name
        call._method = method
        call.attach_span(span, span.maker)
        span.owner = call
        return call  # type: ignore[no-any-return]

    def __init__(self, method: Method, peer: Peer | None = None) -> None:
        details = None if peer is None else peer.attributes
        super().__init__(names.RPC_CLIENT, method.labels, details, span_name=method.name)
        self._method = method

    @classmethod
    def unrecorded(cls, method: Method, context: Context, span: Any) -> ClientCall:
        """Return a call in whose context this span is, which is not recorded."""
        call: Any = cls.unsampled(names.RPC_CLIENT, method.labels, _context.with_span(context, span))
        call._method = method
        return call  # type: ignore[no-any-return]

    def __exit__(self, kind: object, error: BaseException | None, trace_back: object) -> None:
        if self.labels is self._method.labels:
            self._set_status(error)
        super().__exit__(None, None, None)

    def note(self, code: StatusCode, details: str | None = "") -> None:
        """Set the status."""
        self.labels = self._method.by_status[code]
        if code is not OK:
            self.fail(code.name, (details or "")[:MAX_STATUS_CHARACTERS])

    def settle(self, code: StatusCode, details: str | None = "") -> None:
        """End the operation of a call that ended so."""
        self.note(code, details)
        self.end()

    def settle_raised(self, error: BaseException) -> None:
        """End the operation of a call that raised this."""
        self._set_status(error)
        self.end()

    def _set_status(self, error: BaseException | None) -> None:
        if error is None:
            self.labels = self._method.ok
        elif isinstance(error, asyncio.CancelledError):
            self.note(CANCELLED)
        else:
            code, details = self._status_of(error)
            if code is None:
                # It failed before there was a call: no status.
                self.fail(type(error).__qualname__, error_text(error))
            else:
                self.note(code, details)

    def _status_of(self, error: BaseException) -> tuple[StatusCode | None, str]:
        """Return the status that an error has, and its details."""
        return (error.code, error.details) if isinstance(error, RpcError) else (None, "")


class UnaryCall:
    """A call with one answer: records as `ClientCall` does, with less work while all goes well."""

    __slots__ = ("_call", "_method", "_peer", "_span", "_token")

    def __init__(self, method: Method, peer: Peer | None = None) -> None:
        self._method = method
        self._peer = peer
        self._call: ClientCall | None = None

    def __enter__(self) -> None:
        method, peer, context = self._method, self._peer, _context.get()
        span = begin(names.RPC_CLIENT, method.ok, context.get(_context.SPAN_KEY), _spans_of(method))
        if span is None or span.__class__ is Unsampled:
            self._call = ClientCall(method, peer) if span is None else ClientCall.unrecorded(method, context, span)
            self._call.__enter__()
            return
        span.span_name = method.name
        if peer is not None:
            span.details = peer.attributes()
        self._span = span
        self._token = _context.attach(_context.with_span(context, span))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        if self._call is not None:
            self._call.__exit__(kind, error, trace_back)
            return
        span = self._span
        if error is not None or not finish(span):
            span.owner.operation_for(span).__exit__(kind, error, trace_back)
        _context.detach(self._token)


class _CallSpans:
    """Owner of the spans of one method's calls."""

    __slots__ = ("_method",)

    def __init__(self, method: Method) -> None:
        self._method = method

    def operation_for(self, span: Any) -> ClientCall:
        return ClientCall.of_span(self._method, span)


_spans_of = lru_cache(maxsize=None)(_CallSpans)  # methods are few
