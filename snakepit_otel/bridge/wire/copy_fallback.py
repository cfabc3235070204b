"""Copier of the bytes of references, to and from a peer with which memory cannot be shared."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from snakepit_otel.bridge.proto import snakepit_buffers_pb2 as pb
from snakepit_otel.bridge.wire.buffer_service import chunk_size
from snakepit_otel.bridge.wire.methods import READ_BUFFER, WRITE_BUFFER
from snakepit_otel.errors import BudgetExceeded, SnakepitError, ZeroCopyError, ZeroCopyUnavailable
from snakepit_otel.rpc import Connection, RpcError, StatusCode, snakepit_error
from snakepit_otel.rpc.addresses import MAX_MESSAGE_BYTES
from snakepit_otel.zero_copy._descriptor import Description
from snakepit_otel.zero_copy._fd_protocol import rebuild
from snakepit_otel.zero_copy._memory import Buffer, BufferWriter
from snakepit_otel.zero_copy._scope import Scope


class Copier:
    """Copies the bytes that a scope could not share, over a connection to a `BufferService`."""

    def __init__(self, connection: Connection, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._connection = connection
        self._chunk = chunk_size(max_message_bytes)

    async def fetch(self, scope: Scope, *, of_request: bool = True) -> None:
        """Copy the bytes of the scope's incoming references from the peer.

        Raises `ZeroCopyUnavailable`, `AuthorityUnavailable`, or the error with which the peer refuses.
        """
        for copying in scope.to_fetch:
            description = copying.reference.description
            writer = BufferWriter(description.size, shared=scope.settings.enabled)
            request = pb.ReadRequest(request_id=(scope.request or "") if of_request else "", ref=description.ref)

            async def take(chunk: pb.Chunk, writer: BufferWriter = writer) -> None:
                writer.write(chunk.data)

            try:
                await self._connection.stream(READ_BUFFER, request, take)
                scope.fetched(copying, writer.finish())
            except RpcError as error:
                raise _failed(error) from None
            finally:
                writer.discard()
        scope.to_fetch.clear()

    async def send(self, scope: Scope) -> None:
        """Copy the bytes of the scope's outgoing references to the peer; see `fetch`."""
        for copying in scope.to_send:
            reference = copying.reference
            messages = self._messages(scope, reference.description, reference.open())
            try:
                await self._connection.upload(WRITE_BUFFER, messages)
            except RpcError as error:
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


def _failed(error: RpcError) -> SnakepitError:
    if error.code is StatusCode.UNAVAILABLE:
        return snakepit_error(error, "the other side")
    kind, _, message = error.details.partition(": ")
    if kind == BudgetExceeded.__name__:
        return BudgetExceeded(message)
    if message:
        found = rebuild({"type": kind, "message": message})
        if type(found).__name__ == kind and isinstance(found, ZeroCopyError):
            return found
    return ZeroCopyUnavailable(f"the bytes of a reference could not be copied: {error}")
