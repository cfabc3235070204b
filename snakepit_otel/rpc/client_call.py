"""Calls as telemetry sees them at the caller's side: attributes, and the true status."""

from __future__ import annotations

import asyncio
from typing import Any

from snakepit_otel.rpc.method import CANCELLED, MAX_STATUS_CHARACTERS, OK, Method, error_text
from snakepit_otel.rpc.status import RpcError, StatusCode
from snakepit_otel.telemetry import AttributeSet, Operation, names


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

    def __init__(self, method: Method, peer: Peer | None = None) -> None:
        details = None if peer is None else peer.attributes
        super().__init__(names.RPC_CLIENT, method.labels, details, span_name=method.name)
        self._method = method

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
