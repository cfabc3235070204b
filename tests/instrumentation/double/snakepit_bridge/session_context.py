"""Session of an adapter: its id, and the way back to Elixir."""

import json
from typing import Any

import snakepit_bridge_pb2 as pb2
from google.protobuf import any_pb2, struct_pb2, wrappers_pb2
from snakepit_bridge_pb2_grpc import BridgeServiceStub

from . import serialization
from .logging_config import get_logger

_log = get_logger("bridge.session_context")


class SessionContext:
    """One request's view of its session."""

    def __init__(self, stub: BridgeServiceStub, session_id: str, request_metadata: dict[str, Any] | None = None):
        self.stub, self.session_id = stub, session_id
        self.request_metadata = {**(request_metadata or {})}
        self._known: dict[str, Any] | None = None

    @property
    def elixir_tools(self) -> dict[str, Any]:
        """The tools that Elixir has for us, asked for once; none if it cannot be asked."""
        if self._known is None:
            self._known = {}
            try:
                told = self.stub.GetExposedElixirTools(pb2.GetExposedElixirToolsRequest(session_id=self.session_id))
                for one in told.tools:
                    self._known[one.name] = {"name": one.name, "description": one.description, "parameters": {}}
            except Exception as error:
                _log.warning("no Elixir tools: %s", error)
        return self._known

    def call_elixir_tool(self, tool_name: str, **kwargs) -> Any:
        """Run a tool in Elixir and return what it returns."""
        known = self.elixir_tools
        if tool_name not in known:
            raise ValueError(f"Elixir has no tool {tool_name!r} here, only {sorted(known)}")
        asked = pb2.ExecuteElixirToolRequest(
            session_id=self.session_id,
            tool_name=tool_name,
            parameters={name: _packed(value) for name, value in kwargs.items()},
        )
        try:
            answer = self.stub.ExecuteElixirTool(asked)
            if not answer.success:
                raise RuntimeError(f"Elixir says: {answer.error_message}")
            if answer.result.Is(struct_pb2.Struct.DESCRIPTOR):
                fields = struct_pb2.Struct()
                answer.result.Unpack(fields)
                return dict(fields)
            return serialization.TypeSerializer.decode_any(answer.result, answer.binary_result or None)
        except Exception as error:
            _log.error("calling %s: %s", tool_name, error)
            raise RuntimeError(f"calling Elixir failed: {error}") from error

    def cleanup(self):
        """Ask Elixir to forget the session; it does not matter if that fails."""
        try:
            self.stub.CleanupSession(pb2.CleanupSessionRequest(session_id=self.session_id))
        except Exception as error:
            _log.debug("not cleaned up: %s", error)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.cleanup()
        return False

    def __repr__(self):
        return f"<SessionContext {self.session_id!r}>"


def _packed(value: Any) -> any_pb2.Any:
    """Pack a number as JSON under `Value`, everything else as the text it is or has."""
    packed = any_pb2.Any()
    if isinstance(value, int | float):
        packed.type_url = "type.googleapis.com/google.protobuf.Value"
        packed.value = json.dumps(value).encode()
    else:
        packed.Pack(wrappers_pb2.StringValue(value=str(value)))
    return packed
