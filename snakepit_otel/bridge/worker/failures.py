"""Errors of requests as a worker reports them, with what the authority needs to know of each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from snakepit_otel.adapters import RequestAbandoned
from snakepit_otel.adapters._request import Request
from snakepit_otel.adapters._tool import Tool
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.failures import REFUSALS
from snakepit_otel.bridge.wire.identifiers import where
from snakepit_otel.bridge.wire.retries import retry_context, retry_in
from snakepit_otel.errors import DeadlineExceeded, SnakepitError, ValueRefused


def reported(error: BaseException, job: Request | None) -> BaseException:
    """Return the error that the caller gets."""
    if isinstance(error, RequestAbandoned):
        # A caller that still waits has not gone, so it was the deadline.
        return DeadlineExceeded("the request's deadline passed, and the tool gave up")
    if isinstance(error, SnakepitError) and job is not None and job.has_begun:
        # Whatever kind it is: it comes from the tool.
        error.may_have_run = True
    return error


def where_of(request: pb.ExecuteToolRequest, job: Request | None) -> dict[str, Any]:
    """Return the context of an error: the identifiers of its request, and how far it had come."""
    return where(request.tool_name, request.session_id, phase=job.phase if job is not None else "decode")


def described(
    error: BaseException, request: pb.ExecuteToolRequest, job: Request | None, tools: Mapping[str, Tool] | None
) -> dict[str, Any]:
    """Return the context of an error, for our own authority with how to run the request again after it.

    `tools` are the adapter's; None where the authority is another's.
    """
    context = where_of(request, job)
    if tools is None or job is None or isinstance(error, (*REFUSALS, RequestAbandoned)):
        return context
    known = tools.get(request.tool_name)
    retry = None if known is None else known.retry
    with suppress(ValueRefused):  # the authority has checked it
        retry = retry_in(request.metadata) or retry
    return {**context, **retry_context(error, retry)}
