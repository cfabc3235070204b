"""An Elixir authority, as the wire page describes one: it records what a worker asks and answers plainly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceServicer
from tests.bridge.parts import STRING

Context = aio.ServicerContext[Any, Any]


class Inspected(str):
    """A term that has no JSON, as Elixir prints it."""


def encoded(value: Any) -> AnyMessage:
    """Return a tool's result as Elixir sends it: JSON, or what it prints, under StringValue."""
    text = value if isinstance(value, Inspected) else json.dumps(value)
    return AnyMessage(type_url=STRING, value=text.encode())


class Elixir(BridgeServiceServicer):
    """Owns sessions and tools; `calls` has the name of each call in order, `last` the latest of each.

    With `strict`, tools run in sessions that there are, as upstream's do: else the answer is `lost`, as text or status.
    Unless it `lists_lost`, a session that there is not has no tools.
    Tools that are `hidden` are not exposed to Python: they are not listed, and run for whoever calls them.
    """

    def __init__(self, **tools: Callable[..., Any]) -> None:
        self.strict = False
        self.lost: str | grpc.StatusCode = "not_found"
        self.hidden: set[str] = set()
        self.lists_lost = True
        self.lists = True
        self.hang = False
        self.calls: list[str] = []
        self.last: dict[str, Any] = {}
        self.headers: dict[str, dict[str, Any]] = {}
        self.sessions: set[str] = set()
        self.registered: dict[str, list[str]] = {}
        self._tools = tools

    def add(self, name: str, tool: Callable[..., Any]) -> None:
        """Register a tool."""
        self._tools[name] = tool

    def lose(self, session_id: str) -> None:
        """Lose a session, as by its deletion, its expiry, or a restart of the store."""
        self.sessions.discard(session_id)
        self.registered.pop(session_id, None)

    def _note(self, name: str, request: Any, context: Context) -> None:
        self.calls.append(name)
        self.last[name] = request
        self.headers[name] = dict(context.invocation_metadata() or ())

    async def Ping(self, request: pb.PingRequest, context: Context) -> pb.PingResponse:
        """Answer."""
        self._note("Ping", request, context)
        return pb.PingResponse(message=request.message, server_time=Timestamp(seconds=1))

    async def InitializeSession(
        self, request: pb.InitializeSessionRequest, context: Context
    ) -> pb.InitializeSessionResponse:
        """Create a session, or leave the one there is."""
        self._note("InitializeSession", request, context)
        if self.hang:
            await asyncio.Event().wait()
        if request.session_id == "refused":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "session_quota_exceeded")
        self.sessions.add(request.session_id)
        return pb.InitializeSessionResponse(success=True)

    async def CleanupSession(self, request: pb.CleanupSessionRequest, context: Context) -> pb.CleanupSessionResponse:
        """Forget a session."""
        self._note("CleanupSession", request, context)
        self.sessions.discard(request.session_id)
        self.registered.pop(request.session_id, None)
        return pb.CleanupSessionResponse(success=True, resources_cleaned=1)

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        """Describe a session."""
        self._note("GetSession", request, context)
        if request.session_id not in self.sessions:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Session not found: {request.session_id}")
        return pb.GetSessionResponse(session_id=request.session_id, metadata={"kept": "by elixir"}, tool_count=7)

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatResponse:
        """Say whether a session is valid."""
        self._note("Heartbeat", request, context)
        return pb.HeartbeatResponse(session_valid=request.session_id in self.sessions)

    async def RegisterTools(self, request: pb.RegisterToolsRequest, context: Context) -> pb.RegisterToolsResponse:
        """Register a worker's tools for a session that there is, once."""
        self._note("RegisterTools", request, context)
        if request.session_id not in self.sessions:
            return pb.RegisterToolsResponse(success=False, error_message=":not_found")
        if request.session_id in self.registered:
            return pb.RegisterToolsResponse(success=False, error_message="{:duplicate_tool, name}")
        self.registered[request.session_id] = [made.name for made in request.tools]
        return pb.RegisterToolsResponse(success=True)

    async def GetExposedElixirTools(
        self, request: pb.GetExposedElixirToolsRequest, context: Context
    ) -> pb.GetExposedElixirToolsResponse:
        """List the tools."""
        self._note("GetExposedElixirTools", request, context)
        if self.strict and isinstance(self.lost, grpc.StatusCode) and request.session_id not in self.sessions:
            await context.abort(self.lost, "no such session")
        if not self.lists:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")
        if not self.lists_lost and request.session_id not in self.sessions:
            return pb.GetExposedElixirToolsResponse()
        parameter = pb.ParameterSpec(name="x", type="integer", required=True)
        return pb.GetExposedElixirToolsResponse(
            tools=[
                pb.ToolSpec(name=name, description="In Elixir.", parameters=[parameter])
                for name in self._tools
                if name not in self.hidden
            ]
        )

    async def ExecuteElixirTool(
        self, request: pb.ExecuteElixirToolRequest, context: Context
    ) -> pb.ExecuteElixirToolResponse:
        """Run a tool: what it returns goes back as raw JSON under StringValue, what it raises as plain words."""
        self._note("ExecuteElixirTool", request, context)
        if self.strict and request.session_id not in self.sessions:
            if isinstance(self.lost, grpc.StatusCode):
                await context.abort(self.lost, "no such session")
            return pb.ExecuteElixirToolResponse(success=False, error_message=self.lost)
        assert {message.type_url for message in request.parameters.values()} <= {STRING}
        parameters = {name: json.loads(message.value) for name, message in request.parameters.items()}
        tool = self._tools.get(request.tool_name)
        if tool is None:
            return pb.ExecuteElixirToolResponse(success=False, error_message=f"Tool {request.tool_name} not found")
        try:
            result = encoded(tool(**parameters))
        except ValueError as error:
            return pb.ExecuteElixirToolResponse(success=False, error_message=str(error))
        return pb.ExecuteElixirToolResponse(success=True, result=result)
