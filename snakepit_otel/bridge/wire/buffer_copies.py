"""Copies the bytes of references over gRPC, where memory cannot be shared: both ends of the `BufferService`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, TypeVar

import grpc
import orjson
from grpc import aio

from snakepit_otel.bridge.authority.byte_budget import Budget, Charge, Peer, peer_of
from snakepit_otel.bridge.proto import snakepit_buffers_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_buffers_pb2_grpc import BufferServiceServicer
from snakepit_otel.bridge.wire.methods import READ_BUFFER, WRITE_BUFFER
from snakepit_otel.errors import (
    BudgetExceeded,
    ReferenceRefused,
    SnakepitError,
    ZeroCopyError,
    ZeroCopyLimitExceeded,
    ZeroCopyUnavailable,
)
from snakepit_otel.rpc import Connection, RpcError, StatusCode, snakepit_error
from snakepit_otel.rpc.addresses import MAX_MESSAGE_BYTES
from snakepit_otel.zero_copy._buffer_store import BEARER, BufferStore
from snakepit_otel.zero_copy._descriptor import Description
from snakepit_otel.zero_copy._fd_protocol import rebuild
from snakepit_otel.zero_copy._memory import Buffer, Filling
from snakepit_otel.zero_copy._scope import Scope

_CHUNK = 1 << 20
_LEAST_RATE = 64 << 10
"""Bytes a second that a copy has to make, after its first seconds."""
_MOST_UNREAD = 64 << 20
"""Bytes that are let come of a copy that is refused."""
_SHARE = 4
"""The copies of one machine are at most this part of the references that may be held."""
_MOST_DESCRIPTION = 16 << 10
_BESIDES = 1 << 10
"""Bytes that a message has besides a chunk."""

Context = aio.ServicerContext[Any, Any]
T = TypeVar("T")


class BufferService(BufferServiceServicer):
    """Serve the buffers of `buffer_store` to whoever knows a request's id, or that of a result, which are random."""

    def __init__(
        self, buffer_store: BufferStore, max_message_bytes: int = MAX_MESSAGE_BYTES, *, budget: Budget | None = None
    ) -> None:
        self._buffer_store = buffer_store
        self._chunk = chunk_size(max_message_bytes)
        self._budget = budget
        self._copying: Counter[Peer] = Counter()

    async def Read(self, request: pb.ReadRequest, context: Context) -> None:
        """Send a reference's bytes; a result is spent once they have been taken."""
        of_request = request.request_id or None
        try:
            with self._one_more(peer_of(context)), self._buffer_store.borrow(of_request, request.ref, BEARER) as lent:
                await self._send(*lent, context)
        except SnakepitError as error:
            await _abort(context, error)
        if of_request is None:
            self._buffer_store.release(None, request.ref, BEARER)

    async def _send(self, description: Description, buffer: Buffer, context: Context) -> None:
        pace = _Pace(self._buffer_store.settings.copy_timeout / 1000)
        view = memoryview(buffer.view())[: description.size]
        try:
            for start in range(0, description.size, self._chunk):
                chunk = pb.Chunk(data=bytes(view[start : start + self._chunk]))
                await pace.keep(context.write(chunk), len(chunk.data))
        finally:
            view.release()

    async def Write(self, requests: AsyncIterator[pb.WriteRequest], context: Context) -> pb.WriteResponse:
        """Take a reference's bytes, and hold them; all or nothing."""
        peer, messages = peer_of(context), aiter(requests)
        try:
            with self._one_more(peer):
                await self._take(messages, peer)
        except SnakepitError as error:
            await self._refuse(messages, context, error)
        except OSError as error:
            await self._refuse(messages, context, ZeroCopyLimitExceeded(f"there is no memory for it: {error}"))
        return pb.WriteResponse()

    async def _refuse(self, messages: AsyncIterator[pb.WriteRequest], context: Context, error: SnakepitError) -> None:
        """Let what is under way come, and then refuse it: a client that still writes would not see why."""
        pace, left = _Pace(self._buffer_store.settings.copy_timeout / 1000), _MOST_UNREAD
        with suppress(ZeroCopyLimitExceeded):
            while left > 0 and (message := await pace.keep(anext(messages, None), 0)) is not None:
                left -= len(message.data)
        await _abort(context, error)

    async def _take(self, messages: AsyncIterator[pb.WriteRequest], peer: Peer) -> None:
        pace = _Pace(self._buffer_store.settings.copy_timeout / 1000)
        first = await pace.keep(anext(messages, None), 0)
        description = _description(first)
        assert first is not None
        of_request = first.request_id or None
        charge = self._room(peer)
        # Before there is any memory: what has been promised to one is not there for the next.
        with self._buffer_store.reserve(of_request, description.size, BEARER) as reserved:
            try:
                if charge is not None:
                    charge.resize(description.size)
                buffer = await self._filled(description.size, messages, pace)
            except BaseException:
                if charge is not None:
                    charge.release()
                raise
            self._buffer_store.publish(of_request, description, buffer, BEARER, reserved=reserved, charge=charge)

    async def _filled(self, size: int, messages: AsyncIterator[pb.WriteRequest], pace: _Pace) -> Buffer:
        filling = Filling(size, shared=self._buffer_store.can_share)
        try:
            while (message := await pace.keep(anext(messages, None), 0)) is not None:
                filling.write(message.data)
                pace.advance(len(message.data))
            return filling.finish()
        finally:
            filling.discard()

    def _room(self, peer: Peer) -> Charge | None:
        # Known callers have the limits of shared memory, which is what they use where they can.
        return None if self._budget is None or peer.is_known else Charge(self._budget, peer, 0, "references")

    @contextmanager
    def _one_more(self, peer: Peer) -> Iterator[None]:
        """Count a copy for as long as it goes on. Raises `ZeroCopyLimitExceeded` for one too many of a machine."""
        most = max(1, self._buffer_store.settings.max_host_references // _SHARE)
        if not peer.is_known and self._copying[peer] >= most:
            raise ZeroCopyLimitExceeded(
                f"{most} references are being copied for this machine, a quarter of zero_copy.max_host_references; "
                "try again when one of them is done"
            )
        self._copying[peer] += 1
        try:
            yield
        finally:
            self._copying[peer] -= 1
            if not self._copying[peer]:
                del self._copying[peer]


class _Pace:
    """The time that a copy may take: so many seconds a step, and as many in all, with one more for every 64 KiB."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._due = monotonic() + patience

    async def keep(self, step: Awaitable[T], size: int) -> T:
        """Wait for a step of `size` bytes. Raises `ZeroCopyLimitExceeded` if it takes too long."""
        try:
            async with asyncio.timeout(min(self._patience, self._due - monotonic())) as limit:
                done = await step
        except TimeoutError:
            if not limit.expired():
                raise
            raise ZeroCopyLimitExceeded(
                f"the copy of a reference made no progress; zero_copy.copy_timeout is {self._patience * 1000:.0f} ms"
            ) from None
        self.advance(size)
        return done

    def advance(self, size: int) -> None:
        """Give more time for `size` bytes that have been copied."""
        self._due += size / _LEAST_RATE


class Copier:
    """The other end: copies what a scope could not share, over a connection to the `BufferService` there."""

    def __init__(self, connection: Connection, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._connection = connection
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
                await self._connection.stream(READ_BUFFER, asked, take)
                scope.fetched(copying, filling.finish())
            except RpcError as error:
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


def chunk_size(max_message_bytes: int) -> int:
    """Return how many bytes a message may have of a buffer: 1 MiB, or what fits."""
    return min(_CHUNK, max_message_bytes - _BESIDES)


def _description(message: pb.WriteRequest | None) -> Description:
    if message is None:
        raise ReferenceRefused("the first message of a reference says what it is")
    if len(message.reference) > _MOST_DESCRIPTION:
        raise ReferenceRefused(f"a reference's description has {len(message.reference)} bytes, which is too many")
    try:
        value = orjson.loads(message.reference)
    except orjson.JSONDecodeError as error:
        raise ReferenceRefused(f"a reference is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ReferenceRefused("the first message of a reference says what it is")
    return Description.from_json(value)


async def _abort(context: Context, error: SnakepitError) -> Any:
    code = grpc.StatusCode.FAILED_PRECONDITION
    if isinstance(error, ZeroCopyLimitExceeded | BudgetExceeded):
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
    elif isinstance(error, ReferenceRefused):
        code = grpc.StatusCode.INVALID_ARGUMENT
    await context.abort(code, f"{type(error).__name__}: {error}")


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
