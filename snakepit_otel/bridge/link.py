"""A worker's way back to its authority."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from typing import Any

import grpc
from grpc import aio

from snakepit_otel import deadline
from snakepit_otel.bridge import rpc
from snakepit_otel.bridge.addresses import MAX_MESSAGE_BYTES, options
from snakepit_otel.bridge.buffers import Copier
from snakepit_otel.bridge.codec import decode_result, encode_parameters
from snakepit_otel.bridge.failures import from_wire
from snakepit_otel.bridge.messages import message
from snakepit_otel.bridge.methods import (
    EXECUTE_ELIXIR_TOOL,
    GET_EXPOSED_ELIXIR_TOOLS,
    PING,
    REQUEST_ID,
    WORKER_HEADER,
    WORKER_TOKEN_HEADER,
)
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.references import Outgoing
from snakepit_otel.bridge.values import plain_markers
from snakepit_otel.errors import AuthorityUnavailable, DeadlineExceeded, ValueRefused, ZeroCopyUnavailable
from snakepit_otel.zero_copy.current import current

_PING_FIRST_WAIT = 0.05
_PING_LONGEST_WAIT = 2.0
_FORWARD_TIMEOUT = 10.0


class AuthorityLink:
    """Calls the authority's tools, from tool threads over a blocking channel and from the loop over its own.

    A call takes at most `timeout` seconds, or what the request's deadline leaves; with nothing left it raises
    `DeadlineExceeded` at once. With a `token`, the authority is shown whose calls these are.
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

    def call(self, session_id: str | None, tool: str, parameters: Mapping[str, Any]) -> Any:
        """Call a tool of the authority from a thread; see `adapters.Authority`."""
        request, scope = _request(session_id, tool, parameters), current()
        if scope.to_send:
            self._wait_for(self.copier.send(scope))
        try:
            response = rpc.call_blocking(
                self._from_thread(),
                EXECUTE_ELIXIR_TOOL,
                request,
                deadline.at_most(self._timeout),
                self.headers,
                self.peer,
            )
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
            response = await rpc.call(
                self.stub, EXECUTE_ELIXIR_TOOL, request, deadline.at_most(self._timeout), self.headers, self.peer
            )
        except grpc.RpcError as error:
            raise rpc.translated(error, f"the authority at {self.address}") from None
        result = _result(response, tool)
        await self.copier.fetch(scope)
        return result

    async def forward(self, method: str, request: Any, headers: list[tuple[str, str]]) -> Any:
        """Make a call of the authority's as it is. Raises `grpc.aio.AioRpcError`."""
        return await rpc.call(self.stub, method, request, _FORWARD_TIMEOUT, headers + self.headers, self.peer)

    @property
    def blocking_stub(self) -> Any:
        """The authority's stub for threads."""
        return self._from_thread()

    def tools(self, session_id: str | None) -> Mapping[str, Mapping[str, Any]]:
        """Return the authority's tools that adapters may call, by name."""
        request = pb.GetExposedElixirToolsRequest(session_id=session_id or "")
        try:
            response = rpc.call_blocking(
                self._from_thread(),
                GET_EXPOSED_ELIXIR_TOOLS,
                request,
                deadline.at_most(self._timeout),
                peer=self.peer,
            )
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
            f"no authority answered {PING} at {self.address} in {tries} tries: {last.details() or last.code().name}"
        )

    async def close(self) -> None:
        """Close both channels."""
        await self._channel.close()
        if self._blocking is not None:
            self._blocking.close()

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
        raise from_wire(response.error_message, {"tool_name": tool})
    return decode_result(response.result, response.binary_result, current().receive)
