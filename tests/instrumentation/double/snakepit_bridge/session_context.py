"""Context of an adapter's request: its session's id, and calls of Elixir's tools."""

import json
from typing import Any

import snakepit_bridge_pb2 as pb2
from google.protobuf import any_pb2, wrappers_pb2
from snakepit_bridge_pb2_grpc import BridgeServiceStub

from . import serialization


class SessionContext:
    """One request's view of its session."""

    def __init__(self, stub: BridgeServiceStub, session_id: str, request_metadata: dict[str, Any] | None = None):
        self.stub, self.session_id = stub, session_id
        self.request_metadata = {**(request_metadata or {})}

    @property
    def elixir_tools(self) -> dict[str, Any]:
        """The tools that Elixir exposes to the session, by name."""
        request = pb2.GetExposedElixirToolsRequest(session_id=self.session_id)
        return {tool.name: tool for tool in self.stub.GetExposedElixirTools(request).tools}

    def call_elixir_tool(self, tool_name: str, **kwargs) -> Any:
        """Run a tool in Elixir and return its result."""
        if tool_name not in self.elixir_tools:
            raise ValueError(f"Elixir exposes no tool {tool_name!r}")
        parameters = {name: _packed(value) for name, value in kwargs.items()}
        request = pb2.ExecuteElixirToolRequest(session_id=self.session_id, tool_name=tool_name, parameters=parameters)
        try:
            answer = self.stub.ExecuteElixirTool(request)
            if not answer.success:
                raise RuntimeError(answer.error_message)
            return serialization.TypeSerializer.decode_any(answer.result, answer.binary_result or None)
        except Exception as error:
            raise RuntimeError(f"calling Elixir failed: {error}") from error


def _packed(value: Any) -> any_pb2.Any:
    """Pack a number as JSON under `Value`, everything else as text."""
    packed = any_pb2.Any()
    if isinstance(value, int | float):
        packed.type_url = "type.googleapis.com/google.protobuf.Value"
        packed.value = json.dumps(value).encode()
    else:
        packed.Pack(wrappers_pb2.StringValue(value=str(value)))
    return packed
