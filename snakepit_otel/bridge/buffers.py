"""Copies the bytes of references over gRPC, where memory cannot be shared: both ends of the `BufferService`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import orjson
from google.protobuf.message import DecodeError
from grpc import aio

from snakepit_otel.bridge import rpc
from snakepit_otel.bridge.addresses import MAX_MESSAGE_BYTES
from snakepit_otel.bridge.methods import READ_BUFFER, WRITE_BUFFER
from snakepit_otel.bridge.proto import snakepit_buffers_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_buffers_pb2_grpc import BufferServiceServicer, BufferServiceStub
from snakepit_otel.errors import (
    ReferenceRefused,
    SnakepitError,
    ZeroCopyError,
    ZeroCopyLimitExceeded,
    ZeroCopyUnavailable,
)
from snakepit_otel.zero_copy.description import Description
from snakepit_otel.zero_copy.holdings import BEARER, Holdings
from snakepit_otel.zero_copy.memory import Buffer, Filling
from snakepit_otel.zero_copy.packets import rebuild
from snakepit_otel.zero_copy.scope import Scope

_CHUNK = 1 << 20
_BESIDES = 1 << 10
"""Bytes that a message has besides a chunk."""

Context = aio.ServicerContext[Any, Any]


class BufferService(BufferServiceServicer):
    """Serves what `holdings` hold to whoever knows a request's id, or that of a result, which are random."""

    def __init__(self, holdings: Holdings, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._holdings = holdings
        self._chunk = chunk_size(max_message_bytes)

    async def Read(self, request: pb.ReadRequest, context: Context) -> None:
        """Send a reference's bytes; a result is spent once they have been taken."""
        of_request = request.request_id or None
        try:
            description, buffer = self._holdings.fetch(of_request, request.ref, BEARER)
        except SnakepitError as error:
            await _abort(context, error)
        view = memoryview(buffer.view())[: description.size]
        try:
            for start in range(0, description.size, self._chunk):
                await context.write(pb.Chunk(data=bytes(view[start : start + self._chunk])))
        finally:
            view.release()
            buffer.close()
        if of_request is None:
            self._holdings.release(None, request.ref, BEARER)

    async def Write(self, requests: AsyncIterator[pb.WriteRequest], context: Context) -> pb.WriteResponse:
        """Take a reference's bytes, and hold them; all or nothing."""
        try:
            first = await anext(aiter(requests), None)
            description = _description(first)
            self._holdings.check_room(description.size)
            filling = Filling(description.size, shared=self._holdings.shares)
            try:
                async for message in requests:
                    filling.write(message.data)
                buffer = filling.finish()
            except BaseException:
                filling.discard()
                raise
            assert first is not None
            self._holdings.publish(first.request_id or None, description, buffer, BEARER)
        except SnakepitError as error:
            await _abort(context, error)
        except DecodeError as error:
            await rpc.refuse(error, context)
        except OSError as error:
            await _abort(context, ZeroCopyLimitExceeded(f"there is no memory for it: {error}"))
        return pb.WriteResponse()


class Copier:
    """The other end: copies what a scope could not share, over a channel to whoever serves it."""

    def __init__(self, channel: Any, peer: rpc.Peer, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._stub = BufferServiceStub(channel)
        self._peer = peer
        self._chunk = chunk_size(max_message_bytes)

    async def fetch(self, scope: Scope, *, of_request: bool = True) -> None:
        """Copy from the other side what could not be shared with it.

        Raises `ZeroCopyUnavailable`, `AuthorityUnavailable`, or what it refused.
        """
        for copying in scope.to_fetch:
            description = copying.reference.description
            filling = Filling(description.size, shared=scope.settings.enabled)
            asked = pb.ReadRequest(request_id=(scope.request or "") if of_request else "", ref=description.ref)

            async def take(chunk: pb.Chunk, filling: Filling = filling) -> None:
                filling.write(chunk.data)

            try:
                await rpc.pour(self._stub, READ_BUFFER, asked, take, None, self._peer)
                scope.fetched(copying, filling.finish())
            except aio.AioRpcError as error:
                raise _failed(error) from None
            finally:
                filling.discard()
        scope.to_fetch.clear()

    async def send(self, scope: Scope) -> None:
        """Copy to the other side what could not be shared with it; see `fetch`."""
        for copying in scope.to_send:
            reference = copying.reference
            messages = self._messages(scope, reference.description, reference.open())
            try:
                await rpc.push(self._stub, WRITE_BUFFER, messages, self._peer)
            except aio.AioRpcError as error:
                raise _failed(error) from None
            scope.copied(copying)
        scope.to_send.clear()

    def _messages(self, scope: Scope, description: Description, buffer: Buffer) -> Iterator[pb.WriteRequest]:
        yield pb.WriteRequest(request_id=scope.request or "", reference=orjson.dumps(description.to_json()))
        view = memoryview(buffer.view())[: description.size]
        try:
            for start in range(0, description.size, self._chunk):
                yield pb.WriteRequest(data=bytes(view[start : start + self._chunk]))
        finally:
            view.release()


def chunk_size(max_message_bytes: int) -> int:
    """Return how many bytes a message may have of a buffer: 1 MiB, or what fits."""
    return min(_CHUNK, max_message_bytes - _BESIDES)


def _description(message: pb.WriteRequest | None) -> Description:
    try:
        value = orjson.loads(message.reference) if message is not None else None
    except orjson.JSONDecodeError as error:
        raise ReferenceRefused(f"a reference is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ReferenceRefused("the first message of a reference says what it is")
    return Description.from_json(value)


async def _abort(context: Context, error: SnakepitError) -> Any:
    code = grpc.StatusCode.FAILED_PRECONDITION
    if isinstance(error, ZeroCopyLimitExceeded):
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
    elif isinstance(error, ReferenceRefused):
        code = grpc.StatusCode.INVALID_ARGUMENT
    await context.abort(code, f"{type(error).__name__}: {error}")


def _failed(error: aio.AioRpcError) -> SnakepitError:
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return rpc.translated(error, "the other side")
    kind, _, message = (error.details() or "").partition(": ")
    if message:
        found = rebuild({"type": kind, "message": message})
        if type(found).__name__ == kind and isinstance(found, ZeroCopyError):
            return found
    return ZeroCopyUnavailable(f"the bytes of a reference could not be copied: {error.code().name}: {error.details()}")
