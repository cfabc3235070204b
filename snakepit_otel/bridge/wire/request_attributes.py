"""Attributes that a tool sets on its request, in the metadata of the worker's answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from opentelemetry import trace

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.methods import ATTRIBUTES
from snakepit_otel.bridge.wire.raw_messages import Chunk, LargeResponse, ToolResponse
from snakepit_otel.telemetry._request_attributes import RequestAttributes


def add_attributes(answer: pb.ExecuteToolResponse | pb.ToolChunk, attributes: RequestAttributes | None) -> bool:
    """Add the attributes that have been set since the last answer, and return whether there are any."""
    if attributes is None or not attributes.has_new:
        return False
    answer.metadata[ATTRIBUTES] = attributes.encoded()
    return True


def without_attributes(response: ToolResponse) -> ToolResponse:
    """Set a response's attributes on the current span, and return the response as its caller gets it."""
    trace.get_current_span().set_attributes(RequestAttributes.decoded(response.metadata[ATTRIBUTES]))
    whole = response.parsed() if isinstance(response, LargeResponse) else response
    del whole.metadata[ATTRIBUTES]
    return whole


def taking_attributes(take: Callable[[Chunk], Awaitable[None]]) -> Callable[[Chunk], Awaitable[None]]:
    """Return a `take` that sets attributes on the span which is current now, and passes on all other chunks."""
    span = trace.get_current_span()

    async def set_attributes(text: str) -> None:
        span.set_attributes(RequestAttributes.decoded(text))

    def take_other(chunk: Chunk) -> Awaitable[None]:
        # They come in chunks of their own, which have no id.
        if isinstance(chunk, pb.ToolChunk) and not chunk.chunk_id and ATTRIBUTES in chunk.metadata:
            return set_attributes(chunk.metadata[ATTRIBUTES])
        return take(chunk)

    return take_other
