"""Refusals by middleware as gRPC statuses."""

from __future__ import annotations

from snakepit_otel.bridge.wire.errors import from_wire
from snakepit_otel.errors import RequestRefused
from snakepit_otel.rpc.status import StatusCode

_CODES = {
    "permission_denied": StatusCode.PERMISSION_DENIED,
    "unauthenticated": StatusCode.UNAUTHENTICATED,
    "resource_exhausted": StatusCode.RESOURCE_EXHAUSTED,
}


def code_of(refusal: RequestRefused) -> StatusCode:
    """Return the status of a refusal."""
    return _CODES.get(refusal.status, StatusCode.PERMISSION_DENIED)


def refusal_in(error_message: str) -> RequestRefused | None:
    """Return the refusal that a failed response describes, if it is one."""
    if RequestRefused.__name__ not in error_message:
        return None
    error = from_wire(error_message)
    return error if isinstance(error, RequestRefused) else None
