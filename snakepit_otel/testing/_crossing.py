"""Passage of arguments and results between a caller and a tool: as the wire has it, or as they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

from snakepit_otel.adapters import StreamChunk
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire import codec
from snakepit_otel.bridge.wire.identifiers import check_request
from snakepit_otel.bridge.wire.methods import REFERENCES
from snakepit_otel.bridge.wire.reference_list import Incoming
from snakepit_otel.bridge.wire.references import Outgoing
from snakepit_otel.bridge.wire.tool_calls import execute_request, result_of
from snakepit_otel.bridge.wire.unserializable import Unserializable
from snakepit_otel.errors import MessageTooLarge
from snakepit_otel.rpc.addresses import MAX_MESSAGE_BYTES
from snakepit_otel.testing._memory import RequestMemory


class Crossing(Protocol):
    """What happens to values on their way to a tool and back."""

    def arguments(self, given: Mapping[str, Any], metadata: Mapping[str, str] | None) -> dict[str, Any]:
        """Return the arguments as the tool gets them."""

    async def result(self, value: Any) -> Any:
        """Return a result as the caller gets it."""

    async def add_chunk(self, value: Any, chunks: list[Any]) -> None:
        """Add a chunk as the caller gets it."""


class AsTheyAre:
    """Passes values as they are, arrays and tables by reference."""

    def __init__(self, memory: RequestMemory) -> None:
        self._memory = memory

    def arguments(self, given: Mapping[str, Any], metadata: Mapping[str, str] | None) -> dict[str, Any]:
        """See `Crossing`."""
        passed: dict[str, Any] = self._memory.passed(dict(given))
        return passed

    async def result(self, value: Any) -> Any:
        """See `Crossing`."""
        return self._memory.returned(value)

    async def add_chunk(self, value: Any, chunks: list[Any]) -> None:
        """See `Crossing`."""
        chunks.append(self._memory.returned(value))


class OverTheWire:
    """Encodes and decodes values with the code that a caller, a worker and their authority have for it."""

    def __init__(self, memory: RequestMemory, tool: str, session_id: str | None) -> None:
        self._memory = memory
        self._tool = tool
        self._session_id = session_id
        self._unserializable = Unserializable.from_environment(os.environ)

    def arguments(self, given: Mapping[str, Any], metadata: Mapping[str, str] | None) -> dict[str, Any]:
        """See `Crossing`. Raises what callers get for what cannot be sent."""
        request = execute_request(self._tool, given, self._session_id, scope=self._memory.caller, metadata=metadata)
        check_request(request)
        _check_size(request, "request")
        incoming = Incoming.of(self._memory.worker, request.metadata.get(REFERENCES))
        return codec.decode_parameters(
            request.parameters, request.binary_parameters, request.metadata, incoming.receive
        )

    async def result(self, value: Any) -> Any:
        """See `Crossing`. Raises what workers raise for what cannot be sent."""
        outgoing = Outgoing(self._memory.worker, self._unserializable.for_python)
        encoded, binary = await codec.encoded(codec.encode_result, value, outgoing)
        response = pb.ExecuteToolResponse(success=True, result=encoded, binary_result=binary)
        outgoing.list_in(response)
        _check_size(response, "result")
        incoming = Incoming.of(self._memory.caller, response.metadata.get(REFERENCES))
        return result_of(response, pb.ExecuteToolRequest(tool_name=self._tool), incoming.take)

    async def add_chunk(self, value: Any, chunks: list[Any]) -> None:
        """See `Crossing`. A final chunk without data is the end of the stream, and no chunk."""
        # By shape, as the worker does.
        if hasattr(value, "data") and hasattr(value, "is_final"):
            value = StreamChunk(value.data, bool(value.is_final))
        else:
            value = StreamChunk(value)
        outgoing = Outgoing(self._memory.worker, self._unserializable.for_python)
        data, metadata = await codec.encoded(codec.encode_chunk, value.data, outgoing)
        chunk = pb.ToolChunk(data=data, metadata=metadata, is_final=value.is_final)
        outgoing.list_in(chunk)
        _check_size(chunk, "chunk")
        if chunk.data or not chunk.is_final:
            incoming = Incoming.of(self._memory.caller, chunk.metadata.get(REFERENCES))
            chunks.append(codec.decode_chunk(chunk.data, chunk.metadata, incoming.take))
        self._memory.worker.release_sent()


def _check_size(message: Any, what: str) -> None:
    size = message.ByteSize()
    if size > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(f"the {what} has {size} bytes: larger than max ({size} vs. {MAX_MESSAGE_BYTES})")
