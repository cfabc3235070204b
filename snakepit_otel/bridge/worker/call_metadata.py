"""Deadline, request id and caller of a tool call, from its metadata and its context."""

from __future__ import annotations

import re
from collections.abc import Mapping
from time import monotonic
from typing import Any

from snakepit_otel.adapters._request import IncomingCall
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import methods
from snakepit_otel.errors import ValueRefused
from snakepit_otel.rpc.transports.base import CallContext

_WHOLE_NUMBER = re.compile("[0-9]{1,12}")


def deadline_of(metadata: Mapping[str, str], context: CallContext) -> float | None:
    """Return when the request has to be done, on the monotonic clock: by the call's deadline or its own time limit."""
    left = context.time_remaining()
    text = metadata.get("timeout_ms")
    if text is not None:
        if not _WHOLE_NUMBER.fullmatch(text) or int(text) == 0:
            raise ValueRefused(f"request metadata timeout_ms is {text!r:.40}; it must be a positive whole number")
        limit = int(text) / 1000
        left = limit if left is None else min(left, limit)
    return None if left is None else monotonic() + left


def request_id_of(request: pb.ExecuteToolRequest, context: CallContext) -> str | None:
    """Return the id that the authority gave the request, None where none has."""
    for key, value in context.invocation_metadata() or ():
        if key == methods.REQUEST_HEADER and isinstance(value, str):
            return value or None
    return request.metadata.get(methods.REQUEST_ID) or None


def known_call(context: CallContext) -> IncomingCall | None:
    """Return the call, if its transport records that the caller has gone; None for other transports."""
    call: Any = context
    return call if hasattr(call, "caller_has_gone") else None
