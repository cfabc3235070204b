"""Messages of tool calls: requests from arguments, and results or errors from responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from snakepit_otel.adapters import Retry
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import codec, methods
from snakepit_otel.bridge.wire.errors import from_wire
from snakepit_otel.bridge.wire.messages import checked_text, message
from snakepit_otel.bridge.wire.raw_messages import LargeResponse, ToolResponse
from snakepit_otel.bridge.wire.references import Opened, Outgoing
from snakepit_otel.bridge.wire.request_metadata import checked_metadata
from snakepit_otel.bridge.wire.retries import retry_text
from snakepit_otel.bridge.wire.values import plain_markers
from snakepit_otel.errors import SnakepitError
from snakepit_otel.rpc import RpcError, snakepit_error
from snakepit_otel.sessions._session import checked_owner
from snakepit_otel.zero_copy._scope import Scope


class MessageOptions(TypedDict, total=False):
    """Options of a request that its message has."""

    session_id: str | None
    pool: str | None
    create_session: bool
    owner: str | None
    idempotent: bool
    retry: Retry | None
    metadata: Mapping[str, str] | None


class RequestOptions(MessageOptions, total=False):
    """Options of `execute` and `stream`.

    With a `session_id` the request belongs to that session, which is created with the default TTL if it is not live;
    with `create_session=False`, `SessionNotFound` is raised instead. A session that the request creates has the
    `owner`, for whom `max_sessions_per_owner` counts; one that lives keeps its own.
    `timeout` is in seconds, for all of the request: waiting, running and calling back. The request goes to the `pool`
    of that name, else to the first whose adapter has the tool. A request runs at most once; one that is `idempotent`,
    by this option or by the tool's declaration, is run again if it loses its worker before its first chunk, up to
    `max_retries` times within its time. `retry` is for such requests, in place of the tool's own: it is run again after
    these errors of the tool, too. It raises `ToolRefused` for a tool that is not idempotent. `metadata`
    are for middleware, and for the tool as `context.request_metadata`.
    """

    timeout: float | None


def execute_request(
    tool: str,
    parameters: Mapping[str, Any] | None,
    session_id: str | None = None,
    *,
    stream: bool = False,
    scope: Scope | None = None,
    pool: str | None = None,
    create_session: bool = True,
    owner: str | None = None,
    idempotent: bool = False,
    retry: Retry | None = None,
    metadata: Mapping[str, str] | None = None,
) -> pb.ExecuteToolRequest:
    """Return the message for a tool call, arrays and tables by references of `scope`.

    Raises `InvalidSession`, `ValueRefused` and `ZeroCopyError` for what cannot be sent, and `ConfigurationError` for a
    `retry` that is none.
    """
    outgoing = None if scope is None else Outgoing(scope, plain_markers)
    encoded, binary = codec.encode_parameters(parameters or {}, outgoing or plain_markers)
    # Of fields that are not set, the message need not take any.
    more: dict[str, Any] = {"session_id": session_id} if session_id else {}
    if binary:
        more["binary_parameters"] = binary
    if stream:
        more["stream"] = True
    request = message(pb.ExecuteToolRequest, tool_name=tool, parameters=encoded, **more)
    if pool is not None:
        request.metadata[methods.POOL] = checked_text(pool, "a pool's name")
    if not create_session:
        request.metadata[methods.CREATE_SESSION] = "false"
    if owner is not None:
        request.metadata[methods.OWNER] = checked_owner(owner) or ""
    if idempotent:
        request.metadata[methods.IDEMPOTENT] = "true"
    if retry is not None:
        request.metadata[methods.RETRY] = retry_text(retry)
    if metadata:
        request.metadata.update(checked_metadata(metadata))
    if outgoing is not None:
        outgoing.list_in(request)
    return request


def listing(request: pb.ExecuteToolRequest) -> pb.ExecuteToolRequest:
    """Return a request with the list of its references, an empty one where it has none.

    By that the authority takes the list as complete, and its caller as one that reads lists; see `reference_list`.
    """
    if methods.REFERENCES not in request.metadata:
        request.metadata[methods.REFERENCES] = ""
    return request


def result_of(response: ToolResponse, request: pb.ExecuteToolRequest, opened: Opened | None = None) -> Any:
    """Return what the tool returned, references as `opened` makes them of their JSON form; raise what it raised."""
    if not response.success:
        raise from_wire(response.error_message, {"tool_name": request.tool_name, "session_id": request.session_id})
    message = response.parsed() if isinstance(response, LargeResponse) else response
    return codec.decode_result(message.result, message.binary_result, opened)


def stream_error(error: RpcError, peer: str) -> SnakepitError:
    """Return the error of a stream that ended with another status than OK."""
    return from_wire(error.details) if error.details.startswith("{") else snakepit_error(error, peer)
