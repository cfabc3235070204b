"""Client of a worker for the tools of its authority."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from time import monotonic
from typing import Any, TypeVar

from google.protobuf.any_pb2 import Any as AnyMessage

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import methods
from snakepit_otel.bridge.wire.codec import STRING_VALUE, decode_result, encode_parameters
from snakepit_otel.bridge.wire.copy_fallback import Copier
from snakepit_otel.bridge.wire.errors import from_wire
from snakepit_otel.bridge.wire.messages import message
from snakepit_otel.bridge.wire.reference_list import Incoming
from snakepit_otel.bridge.wire.references import Outgoing
from snakepit_otel.bridge.wire.services import BRIDGE, BUFFERS
from snakepit_otel.bridge.wire.values import plain_markers
from snakepit_otel.bridge.worker.elixir_sessions import Call, ElixirSessions
from snakepit_otel.common import deadline
from snakepit_otel.errors import AuthorityUnavailable, DeadlineExceeded, ValueRefused, ZeroCopyUnavailable
from snakepit_otel.rpc import BlockingConnection, RpcError, snakepit_error, transport_of
from snakepit_otel.rpc.addresses import MAX_MESSAGE_BYTES
from snakepit_otel.zero_copy._current_scope import current

_FIRST_PING_INTERVAL_S = 0.05
_MAX_PING_INTERVAL_S = 2.0
_FORWARD_TIMEOUT_S = 10.0
_MAX_TERM_CHARACTERS = 100
_ELIXIR_ERROR_PREFIX = "Tool execution failed: "
T = TypeVar("T")


class AuthorityClient:
    """Calls the authority's tools, from tool threads over a blocking connection and from the loop over its own.

    A call takes at most `timeout` seconds, or what the request's deadline leaves; with nothing left it raises
    `DeadlineExceeded` at once. The `token` shows the authority which worker calls. `sessions` is set where the
    authority started the worker by itself, such as an Elixir one.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 30.0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        worker_id: str = "",
        token: str | None = None,
    ) -> None:
        self.address = address
        self.sessions: ElixirSessions | None = None
        self._timeout = timeout
        self.headers = [] if token is None else [(methods.WORKER_HEADER, worker_id), (methods.FENCING_HEADER, token)]
        self._max_message_bytes = max_message_bytes
        self.connection = transport_of(address).connect(address, (BRIDGE, BUFFERS), max_message_bytes=max_message_bytes)
        self.copier = Copier(self.connection, max_message_bytes)
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._lock = threading.Lock()
        self._blocking: BlockingConnection | None = None

    def connect(self) -> None:
        """Connect both ways now: the authority's socket may be removed before the first call-back."""
        self.connection.connect()
        self._blocking_connection().connect()

    def call(self, session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> Any:
        """Call a tool of the authority from a thread; see `adapters.Authority`."""
        return _run(self._call_tool(self._call_from_thread, self._copy_from_thread, session_id, tool, parameters))

    async def acall(self, session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> Any:
        """Call a tool of the authority from the event loop; see `adapters.Authority`."""
        return await self._call_tool(self.connection.call, _copy, session_id, tool, parameters)

    async def _call_tool(
        self,
        call: Callable[..., Awaitable[Any]],
        copy: Callable[[Coroutine[Any, Any, None]], Awaitable[None]],
        session_id: str | None,
        tool: str,
        parameters: Mapping[str, Any],
    ) -> Any:
        request, scope = call_back_request(session_id, tool, parameters), current()
        if scope.to_send:
            await copy(self.copier.send(scope))
        try:
            if self.sessions is None:
                response = await call(
                    methods.EXECUTE_ELIXIR_TOOL, request, deadline.at_most(self._timeout), self.headers
                )
            else:
                response = await self.sessions.call(self._timed(call, methods.EXECUTE_ELIXIR_TOOL), request)
        except RpcError as error:
            raise self._error(error) from None
        result = call_back_result(response, tool)
        if scope.to_fetch:
            await copy(self.copier.fetch(scope))
        return result

    async def forward(self, method: str, request: Any, headers: list[tuple[str, str]]) -> Any:
        """Make a call of the authority's as it is. Raises `RpcError`."""
        return await self.connection.call(method, request, _FORWARD_TIMEOUT_S, headers + self.headers)

    def stub_in(self, session_id: str | None) -> Any:
        """Return the authority's stub for threads, and begin the session there, as upstream's worker does."""
        if session_id and self.sessions is not None:
            _run(self.sessions.begin(self._timed(self._call_from_thread, methods.INITIALIZE_SESSION), session_id))
        # Imported late: it takes gRPC along.
        from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub

        return self._blocking_connection().stub(BridgeServiceStub)

    def end_session(self, session_id: str | None, timeout: float) -> None:
        """End a session of the authority. Raises `RpcError`."""
        if self.sessions is not None:
            self.sessions.ended(session_id or "")
        request = pb.CleanupSessionRequest(session_id=session_id or "")
        self._blocking_connection().call(methods.CLEANUP_SESSION, request, timeout, observed=False)

    def tools(self, session_id: str | None) -> Mapping[str, Mapping[str, Any]]:
        """Return the authority's tools that adapters may call, by name."""
        try:
            if self.sessions is None:
                request = pb.GetExposedElixirToolsRequest(session_id=session_id or "")
                timeout = deadline.at_most(self._timeout)
                response = self._blocking_connection().call(
                    methods.GET_EXPOSED_ELIXIR_TOOLS, request, timeout, self.headers
                )
            else:
                call = self._timed(self._call_from_thread, methods.GET_EXPOSED_ELIXIR_TOOLS)
                response = _run(self.sessions.list_tools(call, session_id or ""))
        except RpcError as error:
            raise self._error(error) from None
        return {
            spec.name: {
                "name": spec.name,
                "description": spec.description,
                "parameters": {parameter.name: parameter.type for parameter in spec.parameters},
            }
            for spec in response.tools
        }

    async def wait_until_reachable(self, tries: int = 60) -> None:
        """Ping the authority until it answers; raise `AuthorityUnavailable` if it never does."""
        interval, last = _FIRST_PING_INTERVAL_S, ""
        for _ in range(tries):
            try:
                await self.connection.call(methods.PING, pb.PingRequest(message="connection_test"), 1.0, observed=False)
            except RpcError as error:
                last = error.details or error.code.name
            else:
                return
            await asyncio.sleep(interval)
            interval = min(2 * interval, _MAX_PING_INTERVAL_S)
        raise AuthorityUnavailable(f"no authority answered {methods.PING} at {self.address} in {tries} tries: {last}")

    async def close(self) -> None:
        """Close both connections."""
        await self.connection.close()
        if self._blocking is not None:
            self._blocking.close()

    def _error(self, error: RpcError) -> Exception:
        return snakepit_error(error, f"the authority at {self.address}")

    async def _call_from_thread(self, *arguments: Any, observed: bool = True) -> Any:
        """Block while the call is made; see `_run`."""
        return self._blocking_connection().call(*arguments, observed=observed)

    async def _copy_from_thread(self, copying: Coroutine[Any, Any, None]) -> None:
        """Block while the event loop copies; see `_run`."""
        if threading.get_ident() == self._loop_thread:
            copying.close()
            raise ZeroCopyUnavailable(
                "memory is not shared with the authority, and a tool on the main thread cannot wait for copies; "
                "run it in a thread of its own"
            )
        left = deadline.remaining()
        copied = asyncio.run_coroutine_threadsafe(copying, self._loop)
        try:
            copied.result(left)
        except TimeoutError:
            if not copied.cancel():
                raise
            raise DeadlineExceeded("the request's deadline passed while memory was copied") from None

    def _timed(self, call: Callable[..., Awaitable[Any]], observed_method: str) -> Call:
        """Return what makes several calls in the time of one; only those of the observed method have spans."""
        ends = monotonic() + self._timeout

        async def call_in_time(method: str, request: Any) -> Any:
            left = ends - monotonic()
            if left <= 0:
                raise DeadlineExceeded(f"the authority at {self.address} did not answer in time")
            timeout = deadline.at_most(left)
            return await call(method, request, timeout, self.headers, observed=method == observed_method)

        return call_in_time

    def _blocking_connection(self) -> BlockingConnection:
        with self._lock:
            if self._blocking is None:
                self._blocking = transport_of(self.address).connect_blocking(
                    self.address, (BRIDGE,), max_message_bytes=self._max_message_bytes
                )
            return self._blocking


def _run(steps: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that blocks and never suspends, so that threads and the loop share the steps."""
    try:
        steps.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a call from a thread does not suspend")


async def _copy(copying: Coroutine[Any, Any, None]) -> None:
    await copying


def call_back_request(session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> pb.ExecuteElixirToolRequest:
    """Return the message of a call-back. Raises `ValueRefused` for what it cannot have."""
    scope = current()
    outgoing = None if scope.request is None else Outgoing(scope, plain_markers)
    encoded, binary = encode_parameters(parameters, outgoing or plain_markers)
    if binary:
        raise ValueRefused(f"bytes cannot be passed to the authority's tool {tool!r}: {', '.join(binary)}")
    request = message(pb.ExecuteElixirToolRequest, session_id=session_id or "", tool_name=tool, parameters=encoded)
    if scope.request is not None and outgoing is not None:
        request.metadata[methods.REQUEST_ID] = scope.request
        outgoing.list_in(request)
    return request


def call_back_result(response: pb.ExecuteElixirToolResponse, tool: str) -> Any:
    """Return the result of a call-back. Raises what the tool raised."""
    if not response.success:
        # A tool in Elixir may raise an error of this package as JSON, as our own authority sends it.
        described = response.error_message.removeprefix(_ELIXIR_ERROR_PREFIX)
        text = described if described.startswith("{") else response.error_message
        raise from_wire(text, {"tool_name": tool})
    scope = current()
    opened = scope.receive
    if scope.request is not None:
        opened = Incoming.of(scope, response.metadata.get(methods.REFERENCES)).receive
    try:
        return decode_result(response.result, response.binary_result, opened)
    except ValueRefused as error:
        if not _is_inspected(response.result):
            raise
        text = response.result.value.decode(errors="replace")
        raise ValueRefused(
            f"the authority's tool {tool!r} returned what has no JSON, and Elixir sent it as it prints it: "
            f"{text[:_MAX_TERM_CHARACTERS]!r}; have the tool return a map, list, string, number, boolean or nil: no "
            "tuple, such as {:ok, value}, nothing that holds one, and no struct, pid, reference or function"
        ) from error


def _is_inspected(message: AnyMessage) -> bool:
    """Return whether an Elixir authority has sent a term as `inspect` prints it, because it has no JSON."""
    return message.type_url == STRING_VALUE and not message.value.startswith(b"\n")
