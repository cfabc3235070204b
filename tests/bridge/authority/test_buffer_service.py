"""Bytes of references that are copied over gRPC: reserved before they come, and given back at their end."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import orjson
import pytest
from grpc import aio

from snakepit_otel import rpc
from snakepit_otel.bridge.authority.byte_budget import Budget, Charge
from snakepit_otel.bridge.proto import snakepit_buffers_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_buffers_pb2_grpc import BufferServiceStub
from snakepit_otel.bridge.wire.buffer_service import BufferService
from snakepit_otel.bridge.wire.peers import Peer
from snakepit_otel.bridge.wire.services import BUFFERS
from snakepit_otel.errors import BudgetExceeded, ReferenceRefused
from snakepit_otel.rpc.addresses import listen, options
from snakepit_otel.rpc.services import handlers_of
from snakepit_otel.rpc.transports.grpc import add_handlers
from snakepit_otel.zero_copy._buffer_store import BEARER, BufferStore
from snakepit_otel.zero_copy._descriptor import Description, Kind, Owner
from snakepit_otel.zero_copy._limits import Limits
from snakepit_otel.zero_copy._memory import Buffer
from tests.waiting import until

MIB = 1 << 20


class Rig:
    """A buffer service for anonymous callers, and what it has."""

    def __init__(self, stub: Any, buffer_store: BufferStore, budget: Budget, service: BufferService) -> None:
        self.stub = stub
        self.buffer_store = buffer_store
        self.budget = budget
        self.service = service

    @property
    def empty(self) -> bool:
        """Whether nothing is held or reserved for anybody."""
        return not (
            self.buffer_store._usage.bytes
            or self.buffer_store._usage.count
            or self.budget.held()
            or self.service._copying
        )


@asynccontextmanager
async def serving(limits: Limits | None = None, room: int = 64 * MIB) -> AsyncIterator[Rig]:
    """Serve buffers on TCP."""
    buffer_store, budget = BufferStore(limits), Budget(anonymous=room, anonymous_peer=room)
    service = BufferService(buffer_store, new_charge=budget.for_references)
    server = rpc.aio_server(options=options())
    add_handlers(server, handlers_of(BUFFERS, service))
    address = listen(server, "127.0.0.1:0")
    await server.start()
    try:
        async with rpc.aio_channel(address, options=options()) as channel:
            yield Rig(BufferServiceStub(channel), buffer_store, budget, service)
    finally:
        await server.stop(None)
        buffer_store.close()


def described(size: int, **more: Any) -> bytes:
    """Return the first message's description of so many bytes."""
    return orjson.dumps(description(size).to_json() | more)


def description(size: int, owner: Owner = Owner.ELIXIR) -> Description:
    """Return a description of so many bytes."""
    return Description(Kind.DLPACK, owner, secrets.token_hex(16), size, "uint8", (size,), (1,))


async def begun(rig: Rig, size: int, sent: int = 0) -> Any:
    """Begin to write a reference of `size` bytes, and send some of them."""
    call = rig.stub.Write()
    await call.write(pb.WriteRequest(reference=described(size)))
    if sent:
        await call.write(pb.WriteRequest(data=bytes(sent)))
    return call


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """Return the status that a write is refused with once it is done."""
    await call.done_writing()
    with pytest.raises(aio.AioRpcError) as raised:
        await call
    return raised.value.code(), raised.value.details() or ""


async def test_unfinished_writes_count() -> None:
    """What a write has announced is there for no other, until it is cancelled; the refused one learns why."""
    async with serving(Limits(max_host_bytes=10 * MIB)) as rig:
        first = await begun(rig, 6 * MIB, MIB)
        await until(lambda: rig.buffer_store._usage.bytes == 6 * MIB)
        second = await begun(rig, 6 * MIB, MIB)
        code, words = await refusal(second)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "zero_copy.max_host_bytes is 10485760" in words
        first.cancel()
        await until(lambda: rig.empty)
        third = await begun(rig, 6 * MIB, 6 * MIB)
        await third.done_writing()
        await third
        assert (rig.buffer_store._usage.bytes, rig.buffer_store._usage.count, rig.budget.held()) == (
            6 * MIB,
            1,
            6 * MIB,
        )
        rig.buffer_store.close()
        assert rig.empty


async def test_the_bytes_are_the_callers() -> None:
    """An anonymous caller's are charged to the budget, before any memory is taken."""
    async with serving(room=4 * MIB) as rig:
        code, words = await refusal(await begun(rig, 5 * MIB))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert words.startswith("BudgetExceeded: no room for 5242880 bytes of references")
        assert rig.empty


@pytest.mark.parametrize("sent", ["nothing", "a description", "a part"])
async def test_a_write_without_progress_ends(sent: str) -> None:
    """A peer that stops in the middle, or never begins, is refused after `copy_timeout`."""
    async with serving(Limits(copy_timeout=200)) as rig:
        call = rig.stub.Write()
        if sent != "nothing":
            await call.write(pb.WriteRequest(reference=described(MIB)))
        if sent == "a part":
            await call.write(pb.WriteRequest(data=bytes(1_000)))
        with pytest.raises(aio.AioRpcError, match=r"no progress; zero_copy\.copy_timeout is 200 ms") as raised:
            await call
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert rig.empty


async def test_a_drip_is_no_progress() -> None:
    """A peer that sends a byte now and then is refused, too: a copy has a second for 64 KiB."""
    async with serving(Limits(copy_timeout=200)) as rig:
        call = await begun(rig, 10_000)
        begun_at = time.monotonic()
        while not call.done() and time.monotonic() < begun_at + 20:
            with suppress(aio.AioRpcError):
                await call.write(pb.WriteRequest(data=b"x"))
            await asyncio.sleep(0.02)
        with pytest.raises(aio.AioRpcError):
            await call
        await until(lambda: rig.empty)


async def test_the_copies_of_a_machine_are_limited() -> None:
    """An anonymous machine has at most a quarter of the references under way at a time."""
    async with serving(Limits(max_host_references=8)) as rig:
        calls = [await begun(rig, 10) for _ in range(2)]
        await until(lambda: rig.buffer_store._usage.count == 2)
        code, words = await refusal(await begun(rig, 10))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "2 references are being copied for this machine" in words
        for call in calls:
            call.cancel()
        await until(lambda: rig.empty)


@pytest.mark.parametrize(
    "reference",
    [b'{"' + b"x" * 20_000 + b'":1}', b"no json", b""],
    ids=["long", "no json", "nothing"],
)
async def test_a_description_that_cannot_be(reference: bytes) -> None:
    """It is refused before anything is reserved."""
    async with serving() as rig:
        call = rig.stub.Write()
        await call.write(pb.WriteRequest(reference=reference))
        code, words = await refusal(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert len(words) < 300
        assert rig.empty


async def test_what_is_read_is_held_until_it_has_been_read() -> None:
    """A result that is let go of while a slow caller reads it counts until the reading ends, and not longer."""
    async with serving() as rig:
        buffer_store = rig.buffer_store
        scope = buffer_store.request(None, "tool")
        about = description(8 * MIB, Owner.PYTHON)
        buffer_store.publish(scope.request, about, Buffer.of([memoryview(bytes(8 * MIB))], 8 * MIB))
        call = rig.stub.Read(pb.ReadRequest(request_id=scope.request, ref=about.ref))
        assert len((await call.read()).data) == MIB
        scope.close()
        assert not buffer_store.has(about.ref)
        assert (buffer_store._usage.bytes, buffer_store._usage.count) == (8 * MIB, 1)
        call.cancel()
        await until(lambda: rig.empty)


def test_a_result_is_its_callers_until_it_is_taken() -> None:
    """What is offered to a caller is in its room, also after the request's end; without room it is not offered."""
    buffer_store, budget = BufferStore(), Budget(anonymous=1_000, anonymous_peer=1_000)
    scope = buffer_store.request(None, "tool")
    about, large = description(600, Owner.PYTHON), description(600, Owner.PYTHON)
    for one in (about, large):
        buffer_store.publish(scope.request, one, Buffer.of([memoryview(bytes(600))], 600))
    somebody = Peer("10.0.0.1", is_known=False)
    assert scope.request is not None
    buffer_store.offer(scope.request, about.ref, Charge(budget, somebody, 0, "references"))
    with pytest.raises(BudgetExceeded):
        buffer_store.offer(scope.request, large.ref, Charge(budget, somebody, 0, "references"))
    scope.close()
    assert (budget.held(somebody), buffer_store._usage.count) == (600, 1)
    with buffer_store.borrow(None, about.ref, BEARER):
        buffer_store.release(None, about.ref, BEARER)
        assert budget.held(somebody) == 600
    assert (budget.held(somebody), buffer_store._usage.count, buffer_store._usage.bytes) == (0, 0, 0)


def test_a_refused_publication_gives_its_room_back() -> None:
    """What cannot be held is charged to nobody."""
    buffer_store, budget = BufferStore(), Budget()
    charge = budget.charge(Peer("10.0.0.1", is_known=False), 600, "references")
    about = description(600)
    with pytest.raises(ReferenceRefused):
        buffer_store.publish(None, about, Buffer.of([memoryview(bytes(10))], 10), BEARER, charge=charge)
    assert (budget.held(), buffer_store._usage.count) == (0, 0)
