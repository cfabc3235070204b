"""A worker's way back to its authority."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from time import monotonic
from typing import Any, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from grpc import aio

from snakepit_otel import rpc
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.wire.buffer_copies import Copier
from snakepit_otel.bridge.wire.codec import STRING_VALUE, decode_result, encode_parameters
from snakepit_otel.bridge.wire.errors import from_wire
from snakepit_otel.bridge.wire.messages import message
from snakepit_otel.bridge.wire.methods import (
    EXECUTE_ELIXIR_TOOL,
    GET_EXPOSED_ELIXIR_TOOLS,
    INITIALIZE_SESSION,
    PING,
    REQUEST_ID,
    WORKER_HEADER,
    WORKER_TOKEN_HEADER,
)
from snakepit_otel.bridge.wire.references import Outgoing
from snakepit_otel.bridge.wire.values import plain_markers
from snakepit_otel.bridge.worker.elixir_sessions import ElixirSessions, Steps
from snakepit_otel.common import deadline
from snakepit_otel.errors import AuthorityUnavailable, DeadlineExceeded, ValueRefused, ZeroCopyUnavailable
from snakepit_otel.rpc.addresses import MAX_MESSAGE_BYTES, options
from snakepit_otel.zero_copy._current_scope import current

_PING_FIRST_WAIT = 0.05
_PING_LONGEST_WAIT = 2.0
_FORWARD_TIMEOUT = 10.0
_MOST_OF_A_TERM = 100
_RAISED = "Tool execution failed: "
T = TypeVar("T")


class AuthorityLink:
    """Calls the authority's tools, from tool threads over a blocking channel and from the loop over its own.

    A call takes at most `timeout` seconds, or what the request's deadline leaves; with nothing left it raises
    `DeadlineExceeded` at once. With a `token`, the authority is shown whose calls these are. `sessions` are those of an
    authority that started the worker by itself, where there is such a one.
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
        self.headers = [] if token is None else [(WORKER_HEADER, worker_id), (WORKER_TOKEN_HEADER, token)]
        self._options = options(max_message_bytes)
        self.peer = rpc.Peer(address)
        self._channel = rpc.aio_channel(address, options=self._options)
        self.stub = BridgeServiceStub(self._channel)
        self.copier = Copier(self._channel, self.peer, max_message_bytes)
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._lock = threading.Lock()
        self._blocking: grpc.Channel | None = None
        self._blocking_stub: Any = None

    def connect(self) -> None:
        """Connect both channels now: by the first call-back somebody may have removed the authority's socket."""
        self._channel.get_state(try_to_connect=True)
        self._from_thread()
        assert self._blocking is not None
        self._blocking.subscribe(_disregard, try_to_connect=True)
        self._blocking.unsubscribe(_disregard)

    def call(self, session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> Any:
        """Call a tool of the authority from a thread; see `adapters.Authority`."""
        request, scope = _request(session_id, tool, parameters), current()
        if scope.to_send:
            self._wait_for(self.copier.send(scope))
        try:
            if self.sessions is None:
                response = self._make(EXECUTE_ELIXIR_TOOL, request)
            else:
                response = self._go_through(self.sessions.call(request), EXECUTE_ELIXIR_TOOL)
        except grpc.RpcError as error:
            raise rpc.translated(error, f"the authority at {self.address}") from None
        result = _result(response, tool)
        if scope.to_fetch:
            self._wait_for(self.copier.fetch(scope))
        return result

    async def acall(self, session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> Any:
        """Call a tool of the authority from the event loop; see `adapters.Authority`."""
        request, scope = _request(session_id, tool, parameters), current()
        await self.copier.send(scope)
        try:
            if self.sessions is None:
                response = await self._amake(EXECUTE_ELIXIR_TOOL, request)
            else:
                response = await self._ago_through(self.sessions.call(request), EXECUTE_ELIXIR_TOOL)
        except grpc.RpcError as error:
            raise rpc.translated(error, f"the authority at {self.address}") from None
        result = _result(response, tool)
        await self.copier.fetch(scope)
        return result

    async def forward(self, method: str, request: Any, headers: list[tuple[str, str]]) -> Any:
        """Make a call of the authority's as it is. Raises `grpc.aio.AioRpcError`."""
        return await rpc.call(self.stub, method, request, _FORWARD_TIMEOUT, headers + self.headers, self.peer)

    def stub_in(self, session_id: str | None) -> Any:
        """Return the authority's stub for threads, having made sure of the session, as upstream's worker does."""
        if session_id and self.sessions is not None:
            self._go_through(self.sessions.begin(session_id), INITIALIZE_SESSION)
        return self._from_thread()

    def end_session(self, session_id: str | None, timeout: float) -> None:
        """Have the authority end a session. Raises `grpc.RpcError`."""
        if self.sessions is not None:
            self.sessions.ended(session_id or "")
        self._from_thread().CleanupSession(pb.CleanupSessionRequest(session_id=session_id or ""), timeout=timeout)

    def tools(self, session_id: str | None) -> Mapping[str, Mapping[str, Any]]:
        """Return the authority's tools that adapters may call, by name."""
        try:
            if self.sessions is None:
                request = pb.GetExposedElixirToolsRequest(session_id=session_id or "")
                response = self._make(GET_EXPOSED_ELIXIR_TOOLS, request)
            else:
                response = self._go_through(self.sessions.list_tools(session_id or ""), GET_EXPOSED_ELIXIR_TOOLS)
        except grpc.RpcError as error:
            raise rpc.translated(error, f"the authority at {self.address}") from None
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
        wait = _PING_FIRST_WAIT
        for _ in range(tries):
            try:
                await self.stub.Ping(pb.PingRequest(message="connection_test"), timeout=1.0)
            except aio.AioRpcError as error:
                last = error
            else:
                return
            await asyncio.sleep(wait)
            wait = min(2 * wait, _PING_LONGEST_WAIT)
        raise AuthorityUnavailable(
            f"no authority answered {PING} at {self.address} in {tries} tries: "
            f"{rpc.without_descriptors(last.details() or last.code().name)}"
        )

    async def close(self) -> None:
        """Close both channels."""
        await self._channel.close()
        if self._blocking is not None:
            self._blocking.close()

    def _make(self, method: str, request: Any, *, observed: bool = True, within: float | None = None) -> Any:
        stub, timeout = self._from_thread(), deadline.at_most(self._timeout if within is None else within)
        if not observed:
            return getattr(stub, method.rpartition("/")[2])(request, timeout=timeout, metadata=self.headers)
        return rpc.call_blocking(stub, method, request, timeout, self.headers, self.peer)

    async def _amake(self, method: str, request: Any, *, observed: bool = True, within: float | None = None) -> Any:
        timeout = deadline.at_most(self._timeout if within is None else within)
        if not observed:
            return await getattr(self.stub, method.rpartition("/")[2])(request, timeout=timeout, metadata=self.headers)
        return await rpc.call(self.stub, method, request, timeout, self.headers, self.peer)

    def _go_through(self, steps: Steps[T], asked_for: str) -> T:
        """Make the calls of `steps` from a thread, in the time of one, and raise what the steps make of failed ones.

        Calls other than those `asked_for` are no part of the caller's trace, like those that register its tools.
        """
        ends = monotonic() + self._timeout
        try:
            method, request = next(steps)
            while True:
                within = self._left(ends)
                try:
                    response = self._make(method, request, observed=method == asked_for, within=within)
                except grpc.RpcError as error:
                    method, request = steps.throw(error)
                else:
                    method, request = steps.send(response)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _ago_through(self, steps: Steps[T], asked_for: str) -> T:
        """Make the calls of `steps` from the event loop; see `_go_through`."""
        ends = monotonic() + self._timeout
        try:
            method, request = next(steps)
            while True:
                within = self._left(ends)
                try:
                    response = await self._amake(method, request, observed=method == asked_for, within=within)
                except grpc.RpcError as error:
                    method, request = steps.throw(error)
                else:
                    method, request = steps.send(response)
        except StopIteration as end:
            result: T = end.value
            return result

    def _left(self, ends: float) -> float:
        left = ends - monotonic()
        if left <= 0:
            raise DeadlineExceeded(f"the authority at {self.address} did not answer in time")
        return left

    def _wait_for(self, copying: Coroutine[Any, Any, None]) -> None:
        """Wait in a thread for what the event loop is to copy."""
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

    def _from_thread(self) -> Any:
        with self._lock:
            if self._blocking_stub is None:
                self._blocking = rpc.blocking_channel(self.address, options=self._options)
                self._blocking_stub = BridgeServiceStub(self._blocking)
            return self._blocking_stub


def _disregard(_: grpc.ChannelConnectivity) -> None:
    """Do nothing: to subscribe is how a blocking channel is asked to connect."""


def _request(session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> pb.ExecuteElixirToolRequest:
    scope = current()
    if scope.request is None:
        encoded, binary = encode_parameters(parameters)
    else:
        encoded, binary = encode_parameters(parameters, Outgoing(scope, plain_markers))
    if binary:
        raise ValueRefused(f"bytes cannot be passed to the authority's tool {tool!r}: {', '.join(binary)}")
    request = message(pb.ExecuteElixirToolRequest, session_id=session_id or "", tool_name=tool, parameters=encoded)
    if scope.request is not None:
        request.metadata[REQUEST_ID] = scope.request
    return request


def _result(response: pb.ExecuteElixirToolResponse, tool: str) -> Any:
    if not response.success:
        # A tool in Elixir that raises JSON as its message has an error of ours, as an authority of ours would send it.
        described = response.error_message.removeprefix(_RAISED)
        text = described if described.startswith("{") else response.error_message
        raise from_wire(text, {"tool_name": tool})
    try:
        return decode_result(response.result, response.binary_result, current().receive)
    except ValueRefused as error:
        if not _is_inspected(response.result):
            raise
        text = response.result.value.decode(errors="replace")
        raise ValueRefused(
            f"the authority's tool {tool!r} returned what has no JSON, and Elixir sent it as it prints it: "
            f"{text[:_MOST_OF_A_TERM]!r}; have the tool return a map, list, string, number, boolean or nil: no tuple, "
            "such as {:ok, value}, nothing that holds one, and no struct, pid, reference or function"
        ) from error


def _is_inspected(message: AnyMessage) -> bool:
    """Say whether an Elixir authority has sent a term as `inspect` prints it, which is what JSON does not know."""
    return message.type_url == STRING_VALUE and not message.value.startswith(b"\n")
