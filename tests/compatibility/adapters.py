"""Adapters that lean on what upstream's worker allows, beyond those of `tests.instrumentation.adapters`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import snakepit_bridge
from google.protobuf.any_pb2 import Any as AnyMessage
from snakepit_bridge import SessionContext, get_logger, telemetry
from snakepit_bridge.base_adapter import BaseAdapter, tool
from snakepit_bridge.zero_copy import ZeroCopyRef
from snakepit_bridge_pb2 import ExecuteElixirToolRequest

log = get_logger(__name__)


class Dispatching(BaseAdapter):
    """Takes its calls by keyword alone, and hands on whatever the method returns: a value, a coroutine, a stream."""

    def execute_tool(self, *, context: Any, arguments: dict[str, Any], tool_name: str) -> Any:
        self.context = context
        return self.call_tool(tool_name, **arguments)

    @tool(description="Return a value, later.", required_variables=["a", "b"])
    async def later(self, value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    @tool(supports_streaming=True)
    async def counting(self, to: int) -> AsyncIterator[int]:
        """Count, later."""
        for number in range(1, to + 1):
            await asyncio.sleep(0)
            yield number

    @tool("Fail, later.")
    async def failing_later(self) -> None:
        await asyncio.sleep(0)
        raise OSError("later")

    @tool("Ask Elixir from a coroutine, as upstream lets one.")
    async def asking(self, name: str = "double", **parameters: Any) -> Any:
        try:
            return self.context.call_elixir_tool(name, **parameters)
        except (RuntimeError, ValueError) as error:
            return [type(error).__name__, sorted(self.context.elixir_tools)]

    @tool("Call Elixir by the context's stub.")
    def stubbed(self, x: str) -> Any:
        number = AnyMessage(type_url="type.googleapis.com/google.protobuf.StringValue", value=x.encode())
        request = ExecuteElixirToolRequest(
            session_id=self.context.session_id, tool_name="double", parameters={"x": number}
        )
        response = self.context.stub.ExecuteElixirTool(request)
        return json.loads(response.result.value) if response.success else response.error_message

    @tool("Say whose package this is, and what its context is.")
    def package(self) -> dict[str, Any]:
        return {
            "version": snakepit_bridge.__version__,
            "ours": getattr(snakepit_bridge, "__snakepit_otel__", False),
            "context": isinstance(self.context, SessionContext),
            "session": [self.session_id, self.context.session_id],
        }

    @tool("Return what is inside of the arguments, by type.")
    def kinds(self, **given: Any) -> dict[str, Any]:
        inner = given["nested"]["deep"]
        return {"outer": type(given["outer"]).__name__, "inner": type(inner).__name__, "ref": given["outer"].ref}

    @tool("Return a reference as it came.")
    def give_back(self, reference: ZeroCopyRef) -> ZeroCopyRef:
        assert isinstance(reference, ZeroCopyRef)
        return reference

    @tool("Have Elixir forget the session.")
    def forget(self) -> str:
        with self.context as context:
            return str(context.session_id)

    @tool("Make a span, and an event with everything that may be in one.")
    def tell(self) -> str | None:
        with telemetry.otel_span("my own", attributes={"mine": 1}):
            telemetry.emit("tool.result_size", {"bytes": 7, "note": "text", "yes": True}, {"tool": "tell", "n": 1})
            log.error("told")
        return telemetry.get_correlation_id()
