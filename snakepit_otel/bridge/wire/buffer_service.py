"""Service that copies the bytes of references, for peers with which memory cannot be shared."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, TypeVar

import orjson

from snakepit_otel.bridge.proto import snakepit_buffers_pb2 as pb
from snakepit_otel.bridge.wire.peers import Peer, peer_of
from snakepit_otel.common.byte_charge import ByteCharge
from snakepit_otel.errors import (
    BudgetExceeded,
    ReferenceRefused,
    SnakepitError,
    ZeroCopyLimitExceeded,
)
from snakepit_otel.rpc.addresses import MAX_MESSAGE_BYTES
from snakepit_otel.rpc.status import StatusCode
from snakepit_otel.rpc.transports.base import CallContext as Context
from snakepit_otel.zero_copy._buffer_store import BEARER, BufferStore
from snakepit_otel.zero_copy._descriptor import Description
from snakepit_otel.zero_copy._memory import Buffer, BufferWriter

_MAX_CHUNK_BYTES = 1 << 20
_MIN_BYTES_PER_SECOND = 64 << 10  # after the first seconds of a copy
_MAX_DISCARDED_BYTES = 64 << 20  # of a copy that is refused
_MACHINE_SHARE = 4  # the copies of one machine are at most a quarter of the references that may be held
_MAX_DESCRIPTION_BYTES = 16 << 10
_MESSAGE_OVERHEAD_BYTES = 1 << 10

T = TypeVar("T")


class BufferService:
    """Serves the buffers of `buffer_store` to peers that know a request's id, or a result's, which are random.

    `new_charge` returns the charge for a peer's references, None for no charge.
    """

    def __init__(
        self,
        buffer_store: BufferStore,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        *,
        new_charge: Callable[[Peer], ByteCharge | None] = lambda _: None,
    ) -> None:
        self._buffer_store = buffer_store
        self._chunk = chunk_size(max_message_bytes)
        self._new_charge = new_charge
        self._copying: Counter[Peer] = Counter()

    async def Read(self, request: pb.ReadRequest, context: Context) -> None:
        """Send a reference's bytes; a result is spent once they have been taken."""
        of_request = request.request_id or None
        try:
            with self._counted(peer_of(context)), self._buffer_store.borrow(of_request, request.ref, BEARER) as lent:
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
            with self._counted(peer):
                await self._take(messages, peer)
        except SnakepitError as error:
            await self._refuse(messages, context, error)
        except OSError as error:
            await self._refuse(messages, context, ZeroCopyLimitExceeded(f"there is no memory for it: {error}"))
        return pb.WriteResponse()

    async def _refuse(self, messages: AsyncIterator[pb.WriteRequest], context: Context, error: SnakepitError) -> None:
        """Discard the messages on their way, then refuse: a client that still writes would not see the reason."""
        pace, left = _Pace(self._buffer_store.settings.copy_timeout / 1000), _MAX_DISCARDED_BYTES
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
        charge = self._new_charge(peer)
        # Before there is any memory: what has been promised to one is not there for the next.
        with self._buffer_store.reserve(of_request, description.size, BEARER) as reserved:
            try:
                if charge is not None:
                    charge.resize(description.size)
                buffer = await self._filled(description.size, messages, pace)
            except BaseException:
                if charge is not None:
                    charge.resize(0)
                raise
            self._buffer_store.publish(of_request, description, buffer, BEARER, reserved=reserved, charge=charge)

    async def _filled(self, size: int, messages: AsyncIterator[pb.WriteRequest], pace: _Pace) -> Buffer:
        writer = BufferWriter(size, shared=self._buffer_store.can_share)
        try:
            while (message := await pace.keep(anext(messages, None), 0)) is not None:
                writer.write(message.data)
                pace.advance(len(message.data))
            return writer.finish()
        finally:
            writer.discard()

    @contextmanager
    def _counted(self, peer: Peer) -> Iterator[None]:
        """Count a copy for as long as it goes on. Raises `ZeroCopyLimitExceeded` for one too many of a machine."""
        most = max(1, self._buffer_store.settings.max_host_references // _MACHINE_SHARE)
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
        self._due += size / _MIN_BYTES_PER_SECOND


def _description(message: pb.WriteRequest | None) -> Description:
    if message is None:
        raise ReferenceRefused("the first message of a reference says what it is")
    if len(message.reference) > _MAX_DESCRIPTION_BYTES:
        raise ReferenceRefused(f"a reference's description has {len(message.reference)} bytes, which is too many")
    try:
        value = orjson.loads(message.reference)
    except orjson.JSONDecodeError as error:
        raise ReferenceRefused(f"a reference is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ReferenceRefused("the first message of a reference says what it is")
    return Description.from_json(value)


async def _abort(context: Context, error: SnakepitError) -> Any:
    code = StatusCode.FAILED_PRECONDITION
    if isinstance(error, ZeroCopyLimitExceeded | BudgetExceeded):
        code = StatusCode.RESOURCE_EXHAUSTED
    elif isinstance(error, ReferenceRefused):
        code = StatusCode.INVALID_ARGUMENT
    await context.abort(code, f"{type(error).__name__}: {error}")


def chunk_size(max_message_bytes: int) -> int:
    """Return how many bytes a message may have of a buffer: 1 MiB, or what fits."""
    return min(_MAX_CHUNK_BYTES, max_message_bytes - _MESSAGE_OVERHEAD_BYTES)
