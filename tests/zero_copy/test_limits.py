"""Each limit of shared memory is kept on all sides, by an error that names the setting, and leaves nothing held."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import re
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
import pyarrow as pa
import pytest
from grpc import aio

from snakepit_otel import Client, Snakepit, rpc, zero_copy
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as bridge_pb
from snakepit_otel.bridge.proto import snakepit_buffers_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.proto.snakepit_buffers_pb2_grpc import BufferServiceStub
from snakepit_otel.bridge.wire.tool_calls import execute_request
from snakepit_otel.errors import (
    ConfigurationError,
    ReferenceReleased,
    ZeroCopyError,
    ZeroCopyLimitExceeded,
    ZeroCopyUnavailable,
)
from snakepit_otel.testing import FakeClock
from snakepit_otel.zero_copy import ZeroCopySettings
from snakepit_otel.zero_copy._buffer_store import BufferStore
from snakepit_otel.zero_copy._current_scope import PendingScope, pending_scope
from snakepit_otel.zero_copy._descriptor import Description, Kind, Owner
from snakepit_otel.zero_copy._fd_client import FdClient
from snakepit_otel.zero_copy._fd_server import fd_server_path
from snakepit_otel.zero_copy._limits import Limits
from snakepit_otel.zero_copy._memory import Allocation, Buffer
from tests.bridge.parts import error_name
from tests.waiting import until
from tests.zero_copy.hostile import description, descriptors, quick_to_collect, serving_buffers, shared_memory
from tests.zero_copy.hostile_adapter import Hostile

KIB = 1 << 10
LIMITS = {
    "max_bytes": 64 * KIB,
    "max_request_bytes": 96 * KIB,
    "max_host_bytes": 160 * KIB,
    "max_request_references": 3,
    "max_host_references": 6,
    "inline_bytes": 1 * KIB,
}
ARRAY_TOO_LARGE = np.zeros(65 * KIB, "u1")
TABLE_TOO_LARGE = pa.table({"a": np.zeros(9_000)})
OVER: dict[str, tuple[str, Any]] = {
    "array": ("max_bytes", ARRAY_TOO_LARGE),
    "table": ("max_bytes", TABLE_TOO_LARGE),
    "arrays of one request": ("max_request_bytes", [np.zeros(40 * KIB, "u1") for _ in range(3)]),
    "references of one request": ("max_request_references", [np.zeros(5 * KIB, "u1") for _ in range(4)]),
}


@pytest.fixture(scope="module", autouse=True)
def _collecting() -> Iterator[None]:
    with quick_to_collect():
        yield


@pytest.fixture
async def pit() -> AsyncIterator[Snakepit]:
    """A Snakepit with narrow limits, which holds nothing in the end."""
    async with Snakepit(Hostile, workers=1, zero_copy=LIMITS, server={"listen": "127.0.0.1:0"}) as running:
        yield running
        gc.collect()
        pending_scope.sweep(float("inf"))
        await until(lambda: held(running) == (0, 0))


def held(pit: Snakepit) -> tuple[int, int]:
    """Return how many references and bytes are held."""
    assert pit._dispatcher is not None
    return len(pit._dispatcher.buffer_store._stored), pit._dispatcher.buffer_store._usage.bytes


def exceeded(setting: str) -> Any:
    """Expect the refusal that names this setting, and what it is."""
    return pytest.raises(ZeroCopyLimitExceeded, match=rf"over the limit: zero_copy\.{setting} is {LIMITS[setting]}")


async def test_callers_are_held_to_limits(pit: Snakepit) -> None:
    """What a caller passes is refused before it is sent, also where the caller is another process or far away."""
    limits = ZeroCopySettings(**LIMITS)
    async with (
        Client(pit.socket, zero_copy=limits) as near,
        Client(str(pit.address), zero_copy=limits) as far,
    ):
        for setting, value in OVER.values():
            for caller in (pit, near, far):
                with exceeded(setting):
                    await caller.execute("what", {"t": value})
                with exceeded(setting):
                    await anext(caller.stream("several", {"t": value}))
    assert held(pit) == (0, 0)


async def test_authorities_hold_to_their_own_limits(pit: Snakepit) -> None:
    """A caller that knows no limits is refused by the authority, by the same error, by socket and over TCP."""
    assert pit._dispatcher is not None
    buffer_store = pit._dispatcher.buffer_store
    clock = buffer_store._clock
    async with Client(pit.socket) as near, Client(str(pit.address)) as far:
        for setting, value in OVER.values():
            for caller in (near, far):
                with exceeded(setting):
                    await caller.execute("what", {"t": value})
                # What was copied for a request that was refused before it had all of it waits in vain, for its time.
                buffer_store._clock = lambda: float("inf")
                buffer_store.sweep()
                buffer_store._clock = clock
                assert held(pit) == (0, 0)


async def test_tools_are_held_to_limits(pit: Snakepit) -> None:
    """What a tool returns is refused, by the error that the caller gets."""
    with exceeded("max_bytes"):
        await pit.execute("make", {"length": 9_000})
    with exceeded("max_request_bytes"):
        await pit.execute("make_many", {"count": 3, "length": 40 * KIB})
    with exceeded("max_request_references"):
        await pit.execute("make_many", {"count": 4, "length": 2 * KIB})
    made = await pit.execute("make_many", {"count": 3, "length": 30 * KIB})
    assert [int(part[0]) for part in made] == [0, 1, 2]


async def test_both_sides_of_a_request_share_its_limits(pit: Snakepit) -> None:
    """A tool may return what its request has left by the arguments."""
    given = np.zeros(60 * KIB, "u1")
    with exceeded("max_request_bytes"):
        await pit.execute("double", {"t": given})
    assert (await pit.execute("double", {"t": given[: 40 * KIB]}))["out"].size == 40 * KIB


async def test_references_made_outside_of_requests_are_limited(pit: Snakepit) -> None:
    """They count together, from when they are made until they are released or forgotten."""
    with exceeded("max_bytes"):
        zero_copy.from_numpy(ARRAY_TOO_LARGE)
    with exceeded("max_bytes"):
        zero_copy.from_arrow(TABLE_TOO_LARGE)
    with exceeded("max_bytes"):
        zero_copy.empty((65, 1 << 10), "u1")
    references = [zero_copy.from_numpy(np.zeros(50 * KIB, "u1")) for _ in range(3)]
    with exceeded("max_host_bytes"):
        zero_copy.from_numpy(np.zeros(50 * KIB, "u1"))
    references.pop().release()
    references.append(zero_copy.from_numpy(np.zeros(50 * KIB, "u1")))
    references.clear()
    few = [zero_copy.from_numpy(np.zeros(1, "u1")) for _ in range(6)]
    with exceeded("max_host_references"):
        zero_copy.from_numpy(np.zeros(1, "u1"))
    few[0].release()
    few.append(zero_copy.from_numpy(np.zeros(1, "u1")))
    with exceeded("max_request_references"):
        await pit.execute("what", {"t": few[1:5]})


async def test_requests_together_are_limited_by_the_host(pit: Snakepit) -> None:
    """Requests at the same time have to share what the authority may hold, and leave it to those that follow."""
    assert pit._dispatcher is not None
    buffer_store = pit._dispatcher.buffer_store
    scopes = [buffer_store.request(None, "tool") for _ in range(3)]
    for scope in scopes[:2]:
        scope.send(np.zeros(60 * KIB, "u1"))
    with exceeded("max_host_bytes"):
        scopes[2].send(np.zeros(60 * KIB, "u1"))
    with exceeded("max_host_bytes"):
        await pit.execute("make", {"length": 60 * KIB // 8})
    for scope in (scopes[0], scopes[2]):
        scope.close()
    again = buffer_store.request(None, "tool")
    again.send(np.zeros(60 * KIB, "u1"))
    again.close()
    scopes = [scopes[1], *(buffer_store.request(None, "tool") for _ in range(2))]
    for scope, count in zip(scopes, (2, 3), strict=False):
        for _ in range(count):
            scope.send(np.zeros(2 * KIB, "u1"))
    with exceeded("max_host_references"):
        await pit.execute("what", {"t": np.zeros(2 * KIB, "u1")})
    for scope in scopes:
        scope.close()
    assert await pit.execute("total", {"t": np.ones(60 * KIB, "u1")}) == 60 * KIB


async def test_released_references_make_room(pit: Snakepit) -> None:
    """What is released within a request does not count any more."""
    assert pit._dispatcher is not None
    scope = pit._dispatcher.buffer_store.request(None, "tool")
    for _ in range(10):
        reference = scope.from_numpy(np.zeros(60 * KIB, "u1"), "here")
        scope.send(reference)
        reference.release()
    assert held(pit) == (0, 0)
    scope.close()


async def test_the_server_enforces_limits(short_path: Path) -> None:
    """A publisher that ignores limits gets an error from the file-descriptor server, and its descriptor is closed."""
    before = descriptors()
    with serving_buffers(short_path, **LIMITS) as rig:
        mine, link = rig.request(), rig.link()

        def publish(ref: int, size: int, request: str | None = None) -> None:
            link.publish(request or mine.request, _bytes(ref, size), Buffer.of([memoryview(bytes(size))], size))

        with exceeded("max_bytes"):
            publish(1, 65 * KIB)
        publish(2, 60 * KIB)
        with exceeded("max_request_bytes"):
            publish(3, 60 * KIB)
        other, third = rig.request(), rig.request()
        publish(4, 60 * KIB, other.request)
        with exceeded("max_host_bytes"):
            publish(5, 60 * KIB, third.request)
        mine.close()
        for ref in range(6, 9):
            publish(ref, 1, third.request)
        with exceeded("max_request_references"):
            publish(9, 1, third.request)
        fourth, fifth = rig.request(), rig.request()
        for ref in range(10, 12):
            publish(ref, 1, fourth.request)
        with exceeded("max_host_references"):
            publish(12, 1, fifth.request)
        for scope in (other, third, fourth, fifth):
            scope.close()
        link.close()
        rig.assert_holds_nothing()
    await until(lambda: descriptors() <= before)


def _bytes(ref: int, size: int, owner: Owner = Owner.PYTHON) -> Description:
    return Description(Kind.DLPACK, owner, f"{ref:032x}", size, "uint8", (size,), strides=(1,))


async def test_memory_larger_than_its_reference_is_counted(short_path: Path) -> None:
    """What is held is what counts: a small reference to large memory is a large one."""
    with serving_buffers(short_path, **LIMITS) as rig:
        mine, link = rig.request(), rig.link()
        with exceeded("max_bytes"):
            link.publish(mine.request, _bytes(1, 1), Buffer.of([memoryview(bytes(65 * KIB))], 65 * KIB))
        mine.close()
        link.close()
        rig.assert_holds_nothing()


async def written(stub: Any, size: int, ref: int, sent: int | None = None) -> grpc.StatusCode:
    """Write a reference by copying, and return the status."""

    async def messages() -> AsyncIterator[pb.WriteRequest]:
        yield pb.WriteRequest(reference=orjson.dumps(_bytes(ref, size, Owner.ELIXIR).to_json()))
        yield pb.WriteRequest(data=bytes(size if sent is None else sent))

    try:
        await stub.Write(messages(), timeout=10)
    except aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_copies_are_held_to_limits_by_their_status(pit: Snakepit) -> None:
    """`BufferService.Write` refuses what is over a limit with RESOURCE_EXHAUSTED, before it takes any of it."""
    async with rpc.aio_channel(str(pit.address)) as channel:
        stub = BufferServiceStub(channel)
        assert await written(stub, 65 * KIB, 1) is grpc.StatusCode.RESOURCE_EXHAUSTED
        # The described size counts, whatever arrives.
        assert await written(stub, 1 << 62, 1, sent=10) is grpc.StatusCode.RESOURCE_EXHAUSTED
        for ref in (2, 3):
            assert await written(stub, 60 * KIB, ref) is grpc.StatusCode.OK
        assert await written(stub, 60 * KIB, 4) is grpc.StatusCode.RESOURCE_EXHAUSTED
        for ref in range(5, 9):
            assert await written(stub, 1, ref) is grpc.StatusCode.OK
        assert await written(stub, 1, 9) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert held(pit) == (6, 120 * KIB + 4)
        # Fewer or more bytes than described is no question of limits, and leaves nothing either.
        assert await written(stub, 10, 10, sent=9) is not grpc.StatusCode.OK
        assert await written(stub, 10, 10, sent=11) is not grpc.StatusCode.OK
        assert pit._dispatcher is not None
        for ref in list(pit._dispatcher.buffer_store._stored):
            pit._dispatcher.buffer_store.release(None, ref)


async def test_copies_that_stop_in_the_middle_leave_nothing(pit: Snakepit) -> None:
    """A caller that is gone before all bytes have arrived has nothing held for it."""
    async with rpc.aio_channel(str(pit.address)) as channel:
        call = BufferServiceStub(channel).Write()
        await call.write(pb.WriteRequest(reference=orjson.dumps(_bytes(1, 60 * KIB, Owner.ELIXIR).to_json())))
        await call.write(pb.WriteRequest(data=bytes(10)))
        await until(lambda: shared_memory([os.getpid()]))
        call.cancel()
    await until(lambda: not shared_memory([os.getpid()]))
    assert held(pit) == (0, 0)


@pytest.mark.parametrize("streaming", [False, True])
async def test_refusals_of_the_dispatcher_have_a_status(streaming: bool) -> None:
    """Where a waiting reference is too much for its request, a stream has RESOURCE_EXHAUSTED, a call has words."""
    limits = {**LIMITS, "max_request_bytes": 32 * KIB}
    async with Snakepit(Hostile, workers=1, zero_copy=limits) as pit:
        link = FdClient(fd_server_path(Path(pit.socket.removeprefix("unix:"))))
        about = _bytes(1, 60 * KIB, Owner.ELIXIR)
        link.publish(None, about, Buffer.of([memoryview(bytes(60 * KIB))], 60 * KIB))
        request = execute_request("several", {"t": about.to_json()}, None, stream=streaming)
        async with rpc.aio_channel(pit.socket) as channel:
            stub = BridgeServiceStub(channel)
            if streaming:
                with pytest.raises(aio.AioRpcError, match=r"zero_copy\.max_request_bytes is 32768") as raised:
                    await stub.ExecuteStreamingTool(request).read()
                assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            else:
                response: bridge_pb.ExecuteToolResponse = await stub.ExecuteTool(request)
                assert not response.success
                assert error_name(response.error_message) == "ZeroCopyLimitExceeded"
                assert "zero_copy.max_request_bytes is 32768" in response.error_message
        link.close()
        await until(lambda: held(pit) == (0, 0))


async def test_small_values_travel_inside_the_message(pit: Snakepit) -> None:
    """Up to `inline_bytes` nothing is held and nothing counts; a byte more is a reference. Zero shares all."""
    assert pit._dispatcher is not None
    scope = pit._dispatcher.buffer_store.request(None, "tool")
    for _ in range(20):
        assert "data" in scope.send(np.zeros(1 * KIB, "u1"))["metadata"]
    assert held(pit) == (0, 0)
    assert "data" not in scope.send(np.zeros(1 * KIB + 1, "u1"))["metadata"]
    assert held(pit)[0] == 1
    scope.close()
    everything = BufferStore(ZeroCopySettings(inline_bytes=0)).request(None, "tool")
    assert "data" not in everything.send(np.zeros(1, "u1"))["metadata"]
    everything.close()
    assert await pit.execute("total", {"t": np.ones(1 * KIB, "u1")}) == 1 * KIB


async def test_unclaimed_references_are_released_in_time(clock: FakeClock) -> None:
    """A reference that waits for a request, and a result that waits for its caller, go after `unused_ttl`."""
    buffer_store = BufferStore(ZeroCopySettings(unused_ttl=5_000), clock=clock.monotonic)
    buffer = Buffer.of([memoryview(bytes(96))], 96)
    buffer_store.publish(None, description("a" * 32), buffer, "process 1")
    request = buffer_store.request(None, "tool")
    assert request.request is not None
    buffer_store.assign_worker(request.request, "w")
    buffer_store.publish(request.request, description("b" * 32, Owner.PYTHON), buffer.twin(), "w")
    buffer_store.offer(request.request, "b" * 32)
    buffer_store.publish(None, description("c" * 32), buffer.twin(), "process 1")
    buffer_store.claim(request.request, "c" * 32)
    clock.advance(3)
    request.close()
    # What was passed to the request is gone with it; the result waits from now on.
    assert set(buffer_store._stored) == {"a" * 32, "b" * 32}
    clock.advance(2.5)
    with pytest.raises(ReferenceReleased):
        buffer_store.fetch(None, "a" * 32, "process 1")
    buffer_store.sweep()
    assert set(buffer_store._stored) == {"b" * 32}
    buffer_store.fetch(None, "b" * 32, "process 1")[1].close()
    clock.advance(2.6)
    with pytest.raises(ReferenceReleased):
        buffer_store.fetch(None, "b" * 32, "process 1")
    buffer_store.sweep()
    assert (buffer_store._stored, buffer_store._usage.bytes) == ({}, 0)


async def test_loose_references_expire() -> None:
    """A reference that no request claimed raises when it is used at last."""
    scope = PendingScope()
    scope.settings = ZeroCopySettings(unused_ttl=1_000)
    early, late = scope.from_numpy(np.ones(5), "here"), scope.from_numpy(np.ones(5), "here")
    late.created += 10
    scope.sweep(early.created + 1.5)
    assert (early.released, late.released) == (True, False)
    with pytest.raises(ReferenceReleased, match="no request came for it in time"):
        early.to_numpy()
    late.release()


VIRTUAL: dict[str, Callable[[], Any]] = {
    "broadcast": lambda: np.broadcast_to(np.float64(1), (1 << 45,)),
    "broadcast in many dimensions": lambda: np.broadcast_to(np.ones((3, 1, 1)), (3, 1 << 20, 1 << 20)),
    "as large as can be": lambda: np.broadcast_to(np.int8(1), (1 << 62,)),
    "strided": lambda: np.lib.stride_tricks.as_strided(np.ones(1), (1 << 40,), (0,)),
}


@pytest.mark.parametrize("case", VIRTUAL)
async def test_virtual_sizes_are_refused_before_memory_is_taken(case: str) -> None:
    """An array with a shape far larger than its memory is refused by its shape."""
    value, most = VIRTUAL[case](), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scope = BufferStore().request(None, "tool")
    for act in (
        lambda: zero_copy.from_numpy(value),
        lambda: zero_copy.from_dlpack(value),
        lambda: scope.send(value),
        lambda: zero_copy.empty(value.shape, value.dtype),
    ):
        with pytest.raises(ZeroCopyLimitExceeded, match=r"zero_copy\.max_bytes"):
            act()
    scope.close()
    # A hundred megabytes would be seen; what the errors take is a thousandth of that.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 100_000


async def test_virtual_sizes_are_refused_in_tools(pit: Snakepit) -> None:
    """A tool that returns such an array fails, and its worker lives on."""
    worker = await pit.execute("pid")
    with exceeded("max_bytes"):
        await pit.execute("make_copies", {"length": 1 << 45})
    assert await pit.execute("pid") == worker


@pytest.mark.parametrize("shape", [(1 << 62, 1 << 62), (-1,), (1 << 63,), (1 << 200,), (0, 1 << 62, 1 << 62)])
async def test_impossible_shapes_are_refused(shape: tuple[int, ...]) -> None:
    """`empty` refuses what no memory could hold, and what is no shape."""
    with pytest.raises(ZeroCopyError):
        zero_copy.empty(shape, "f8")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_bytes", 0),
        ("max_bytes", "much"),
        ("max_bytes", 1.5),
        ("max_request_bytes", -1),
        ("max_host_bytes", 0),
        ("max_request_references", 0),
        ("max_host_references", None),
        ("inline_bytes", -1),
        ("inline_bytes", (1 << 20) + 1),
        ("unused_ttl", 0),
        ("enabled", "perhaps"),
        ("allow_fallback", 7),
        ("max_reference", 5),
    ],
)
async def test_bad_settings_are_refused_by_name(setting: str, value: Any) -> None:
    """What cannot be set is refused before anything starts, with the setting's name."""
    with pytest.raises(ConfigurationError, match=rf"zero_copy\.{setting}"):
        Snakepit(Hostile, zero_copy={setting: value})


async def test_a_process_keeps_half_of_its_descriptors() -> None:
    """However many references may be held, the process has descriptors left for its other work."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        buffer_store = BufferStore()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    scopes = [buffer_store.request(None, "tool") for _ in range(2)]
    for number in range(128):
        scopes[number % 2].send(np.zeros(5_000, "u1"))
    with pytest.raises(ZeroCopyLimitExceeded, match=r"zero_copy\.max_host_references is 128"):
        scopes[0].send(np.zeros(5_000, "u1"))
    for scope in scopes:
        scope.close()
    assert (buffer_store._stored, buffer_store._usage.bytes) == ({}, 0)


async def test_many_callers_at_the_limit_get_through_in_turn(pit: Snakepit) -> None:
    """Under load beyond the limits each request has its result or an error with the limit, and nothing is left."""

    async def call(number: int) -> bool:
        try:
            total = await pit.execute("total", {"t": np.full(50 * KIB, number, "u1")})
        except ZeroCopyLimitExceeded as error:
            return "max_host" not in str(error)
        return bool(total == 50 * KIB * number)

    assert all([await call(number) for number in range(20)])
    outcomes = await asyncio.gather(*(call(number) for number in range(20)))
    assert any(outcomes)


def test_settings_are_the_limits() -> None:
    """What is enforced are the settings, each of them, with the same defaults."""
    assert ZeroCopySettings().limits == Limits()
    given = dict.fromkeys(ZeroCopySettings.model_fields, 1)
    assert asdict(ZeroCopySettings(**given).limits) == given


def test_memory_to_be_filled_is_allocated() -> None:
    """No page of an array that can be shared is still to be found when it is written to, which may be SIGBUS."""
    allocation = Allocation(10 << 20)
    assert allocation._descriptor is not None
    assert os.fstat(allocation._descriptor).st_blocks * 512 >= allocation.size


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EFBIG])
async def test_no_memory_is_an_error(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Where the kernel has no memory to share, or no descriptor, the caller gets an error of ours, or a copy."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(ZeroCopyUnavailable, match=re.escape(os.strerror(number))):
        zero_copy.empty((1 << 20,), "u1")
    scope = BufferStore().request(None, "tool")
    with pytest.raises(ZeroCopyError):
        scope.send(np.ones(1 << 20, "u1"))
    scope.close()
