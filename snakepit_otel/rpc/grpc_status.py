"""Status codes and errors of gRPC, in the form that all transports share."""

from __future__ import annotations

from typing import Any

import grpc

from snakepit_otel.rpc.local_sockets import without_descriptors
from snakepit_otel.rpc.status import RpcError, StatusCode

_OURS: dict[Any, StatusCode] = {
    **{code: StatusCode[code.name] for code in grpc.StatusCode},
    **{code: code for code in StatusCode},
    **{code.number: code for code in StatusCode},
}


def status_code(code: Any) -> StatusCode:
    """Return the status of gRPC's code, or of its number; `UNKNOWN` for what is none, `OK` for None."""
    return StatusCode.OK if code is None else _OURS.get(code, StatusCode.UNKNOWN)


def rpc_error(error: grpc.RpcError) -> RpcError:
    """Return the neutral form of an error of gRPC's."""
    return RpcError(status_code(error.code()), without_descriptors(error.details() or ""))
