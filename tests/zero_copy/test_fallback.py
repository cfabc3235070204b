"""Fallback to copies where memory cannot be shared: events, counts of each side, and how to forbid it."""

from __future__ import annotations

import asyncio
import base64
import gc
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
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
from snakepit_otel.common.json_keys import ZERO_COPY
from snakepit_otel.errors import ReferenceReleased, ZeroCopyUnavailable
from snakepit_otel.testing import Capture, OtlpSink
from snakepit_otel.zero_copy import ZeroCopySettings
from snakepit_otel.zero_copy._current_scope import pending_scope
from snakepit_otel.zero_copy._fd_server import fd_server_path
from tests.bridge import parts
from tests.bridge.elixir import Elixir
from tests.processes import program
from tests.waiting import PATIENT, until
from tests.zero_copy.both_sides import execute_unlisted
from tests.zero_copy.hostile import form
from tests.zero_copy.hostile_adapter import Hostile

FALLBACK = "snakepit.zero_copy.fallback"
TCP = {"listen": "127.0.0.1:0"}
ARRAY = np.arange(400_000, dtype="f8").reshape(4, -1)
TABLE = pa.table({"number": range(100_000), "text": [f"row {number}" for number in range(100_000)]})


def fallbacks(capture: Capture) -> dict[tuple[str, str, str], int]:
    """Return the fallbacks of this process by owner, kind and reason; the events agree with their count."""
    labels = ("snakepit.zero_copy.owner", "snakepit.zero_copy.kind", "snakepit.zero_copy.fallback_reason")
    events = Counter(tuple(event.attributes[label] for label in labels) for event in capture.events(FALLBACK))
    points = capture.metrics().get("snakepit.zero_copy.fallback.count", [])
    counts = {tuple(point.attributes[label] for label in labels): int(point.value) for point in points if point.value}
    assert counts == events
    capture.clear()
    return counts


async def both_ways(caller: Snakepit | Client, *, copied: bool) -> None:
    """Pass an array and a table, nested and in a stream, and have others back."""
    got = await caller.execute("double", {"t": ARRAY})
    assert (got["out"] == ARRAY * 2).all()
    assert (got["copied"], got["out"].flags.writeable) == (copied, False)
    got = await caller.execute("head", {"t": TABLE})
    assert got["deep"][0]["table"].equals(TABLE.slice(1))
    assert got["copied"] is copied
    chunks = [chunk["part"] async for chunk in caller.stream("several", {"t": ARRAY})]
    assert [(chunk == ARRAY + number).all() for number, chunk in enumerate(chunks)] == [True] * 3


def held(pit: Snakepit) -> int:
    """Return how many references are held."""
    assert pit._dispatcher is not None
    return len(pit._dispatcher.buffer_store._stored)


def of_caller(reason: str) -> dict[tuple[str, str, str], int]:
    """What `both_ways` copies on a caller's side that shares nothing."""
    return {
        ("elixir", "dlpack", reason): 2,
        ("elixir", "arrow", reason): 1,
        ("python", "dlpack", reason): 4,
        ("python", "arrow", reason): 1,
    }


async def test_callers_on_the_socket_copy_nothing(capture: Capture) -> None:
    """In this process and by the Unix socket, memory is shared both ways, and nothing is left."""
    async with Snakepit(Hostile, workers=1) as pit, Client(pit.socket) as client:
        for caller in (pit, client):
            await both_ways(caller, copied=False)
        await until(lambda: held(pit) == 0)
    assert fallbacks(capture) == {}


async def test_callers_over_tcp_copy_both_ways(capture: Capture) -> None:
    """Over TCP each reference is copied, and counted once, by the caller."""
    async with Snakepit(Hostile, workers=1, server=TCP) as pit, Client(str(pit.address)) as client:
        await both_ways(client, copied=True)
        assert fallbacks(capture) == of_caller("unreachable")
        # What is small was never to be shared, and so is not copied in place of it.
        assert await client.execute("total", {"t": np.ones(9)}) == 9
        assert fallbacks(capture) == {}
        await until(lambda: held(pit) == 0)


async def test_callers_may_choose_to_copy(capture: Capture) -> None:
    """With `enabled=False` a caller copies even where memory could be shared, and names this reason."""
    async with Snakepit(Hostile, workers=1) as pit:
        async with Client(pit.socket, zero_copy=ZeroCopySettings(enabled=False)) as client:
            await both_ways(client, copied=True)
        assert fallbacks(capture) == of_caller("disabled")
        await until(lambda: held(pit) == 0)


async def test_authorities_may_choose_to_copy(capture: Capture) -> None:
    """With `enabled=False` it is the workers that copy, both ways, once for each; a client copies as well."""
    with OtlpSink() as sink:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint}
        settings = {"enabled": False}
        async with Snakepit(Hostile, workers=1, zero_copy=settings, pool={"environment": environ}) as pit:
            assert not fd_server_path(Path(pit.socket.removeprefix("unix:"))).exists()
            await both_ways(pit, copied=True)
            assert fallbacks(capture) == {}
            async with Client(pit.socket) as client:
                await both_ways(client, copied=True)
            assert fallbacks(capture) == of_caller("unreachable")
            await until(lambda: held(pit) == 0)
    counts = Counter(
        (event.attributes["snakepit.zero_copy.owner"], event.attributes["snakepit.zero_copy.fallback_reason"])
        for event in sink.events
        if event.name == FALLBACK
    )
    assert counts == {("elixir", "disabled"): 6, ("python", "disabled"): 10}


async def test_without_memfds_an_authority_copies(capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no memfds, its callers and workers get copies, and a producer private memory."""
    monkeypatch.setattr(os, "memfd_create", no_memfd)
    async with Snakepit(Hostile, workers=1) as pit, Client(pit.socket) as client:
        await both_ways(pit, copied=True)
        assert fallbacks(capture) == {}
        await both_ways(client, copied=True)
        assert sum(fallbacks(capture).values()) == 8
        reference = zero_copy.from_numpy(ARRAY)
        assert await pit.execute("total", {"t": reference}) == ARRAY.sum()
        await until(lambda: held(pit) == 0)


def no_memfd(*_: Any) -> int:
    """Fail as an old kernel does."""
    raise OSError(38, "Function not implemented")


async def test_without_memfds_a_caller_copies(
    capture: Capture, monkeypatch: pytest.MonkeyPatch, short_path: Path
) -> None:
    """A caller that cannot make memory to share sends copies, and takes results by sharing, which it can."""
    socket = short_path / "a.sock"
    arguments = ["serve", "tests.zero_copy.hostile_adapter:Hostile", "--workers", "1", "--socket", str(socket)]
    async with program("-m", "snakepit_otel", *arguments) as server:
        await server.says("serving")
        monkeypatch.setattr(os, "memfd_create", no_memfd)
        async with Client(f"unix:{socket}") as client:
            await both_ways(client, copied=True)
    assert fallbacks(capture) == {("elixir", "dlpack", "no_memory"): 2, ("elixir", "arrow", "no_memory"): 1}


async def test_a_server_whose_socket_is_gone_is_not_needed(capture: Capture) -> None:
    """Who has no connection yet copies from then on; requests go on."""
    async with Snakepit(Hostile, workers=1, pool=PATIENT) as pit:
        await both_ways(pit, copied=False)
        fd_server_path(Path(pit.socket.removeprefix("unix:"))).unlink()
        # Who is connected stays so.
        await both_ways(pit, copied=False)
        first = await pit.execute("pid")
        os.kill(first, signal.SIGKILL)
        await until(lambda: pit.pool.workers and pit.pool.workers[0].pid not in (0, first))
        await both_ways(pit, copied=True)
        assert fallbacks(capture) == {}
        async with Client(pit.socket) as client:
            await both_ways(client, copied=True)
        assert fallbacks(capture) == of_caller("unreachable")
        await until(lambda: held(pit) == 0)


async def test_copying_can_be_forbidden(capture: Capture) -> None:
    """With `allow_fallback=False` what cannot be shared is refused, with the reason; what is small still goes."""
    never = ZeroCopySettings(allow_fallback=False)
    async with Snakepit(Hostile, workers=1, server=TCP) as pit, Client(str(pit.address), zero_copy=never) as client:
        with pytest.raises(ZeroCopyUnavailable, match=r"\(unreachable\), and allow_fallback forbids copying"):
            await client.execute("double", {"t": ARRAY})
        with pytest.raises(ZeroCopyUnavailable, match="unreachable"):
            await client.execute("make", {"length": 10_000})
        with pytest.raises(ZeroCopyUnavailable, match="unreachable"):
            [chunk async for chunk in client.stream("several", {"t": ARRAY})]
        assert list(await client.execute("make", {"length": 3})) == [0, 1, 2]
    async with Snakepit(Hostile, workers=1, zero_copy={"enabled": False, "allow_fallback": False}) as pit:
        with pytest.raises(ZeroCopyUnavailable, match=r"\(disabled\)"):
            await pit.execute("double", {"t": ARRAY})
        with pytest.raises(ZeroCopyUnavailable, match=r"\(disabled\)"):
            await pit.execute("make", {"length": 10_000})
        assert await pit.execute("total", {"t": np.ones(9)}) == 9
        await until(lambda: held(pit) == 0)
    assert fallbacks(capture) == {}


async def test_results_that_are_not_taken_are_released() -> None:
    """A result whose caller is gone is held for `unused_ttl`, and no longer."""
    pit = Snakepit(Hostile, workers=1, server=TCP, zero_copy={"unused_ttl": 500})
    async with pit, rpc.aio_channel(str(pit.address)) as channel:
        request = execute_request("make", {"length": 10_000}, None)
        response: bridge_pb.ExecuteToolResponse = await BridgeServiceStub(channel).ExecuteTool(request)
        assert response.success
        assert held(pit) == 1
        ref = orjson.loads(response.result.value)["ref"]
        await until(lambda: held(pit) == 0)
        with pytest.raises(aio.AioRpcError, match="ReferenceReleased") as raised:
            await BufferServiceStub(channel).Read(pb.ReadRequest(ref=ref)).read()
        assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def written(stub: Any, *messages: pb.WriteRequest) -> grpc.StatusCode:
    """Write a reference, and return the status."""

    async def all_of_them() -> AsyncIterator[pb.WriteRequest]:
        for message in messages:
            yield message

    try:
        await stub.Write(all_of_them(), timeout=10)
    except aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_bad_copies_have_a_status() -> None:
    """What is malformed is INVALID_ARGUMENT, what is not there FAILED_PRECONDITION; a caller gets our own errors."""
    bad = grpc.StatusCode.INVALID_ARGUMENT
    opening = pb.WriteRequest(reference=orjson.dumps(form("a" * 32)))
    async with Snakepit(Hostile, workers=1, server=TCP) as pit, rpc.aio_channel(str(pit.address)) as channel:
        stub = BufferServiceStub(channel)
        assert await written(stub) is bad
        assert await written(stub, pb.WriteRequest(data=b"x")) is bad
        assert await written(stub, pb.WriteRequest(reference=b"\xff")) is bad
        assert await written(stub, pb.WriteRequest(reference=b"[]")) is bad
        assert await written(stub, pb.WriteRequest(reference=b"{}")) is bad
        assert await written(stub, opening) is bad
        assert await written(stub, opening, pb.WriteRequest(data=bytes(97))) is bad
        strange = pb.WriteRequest(reference=orjson.dumps(form("a" * 32, metadata={"strides": [8, 8]})))
        assert await written(stub, strange, pb.WriteRequest(data=bytes(96))) is bad
        assert held(pit) == 0
        assert await written(stub, opening, pb.WriteRequest(data=bytes(96))) is grpc.StatusCode.OK
        assert await written(stub, opening, pb.WriteRequest(data=bytes(96))) is bad
        other = pb.WriteRequest(reference=orjson.dumps(form("b" * 32)), request_id="c" * 32)
        assert await written(stub, other, pb.WriteRequest(data=bytes(96))) is grpc.StatusCode.FAILED_PRECONDITION
        assert held(pit) == 1
        for asked in (pb.ReadRequest(ref="b" * 32), pb.ReadRequest(), pb.ReadRequest(ref="a" * 32, request_id="x")):
            with pytest.raises(aio.AioRpcError, match="ReferenceReleased") as raised:
                await stub.Read(asked).read()
            assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        # By its id, which is random, it is there to be had, once.
        assert (await stub.Read(pb.ReadRequest(ref="a" * 32)).read()).data == bytes(96)
        await until(lambda: held(pit) == 0)
        async with Client(str(pit.address)) as client:
            with pytest.raises(ReferenceReleased):
                await execute_unlisted(client, "total", {"t": form("d" * 32)})


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a worker in this process not change whose references are made here."""
    monkeypatch.setattr(pending_scope, "owner", pending_scope.owner)
    monkeypatch.setenv("SNAKEPIT_TOLIST_MAX_ELEMENTS", "1000")
    # Bytes are copied in messages of a mebibyte, and what is around them.
    monkeypatch.setattr(parts, "MAX_MESSAGE_BYTES", 4 << 20)
    yield
    gc.collect()


@asynccontextmanager
async def called_by_elixir(directory: Path) -> AsyncIterator[tuple[Any, Any]]:
    """Run a worker of an Elixir authority, and yield stubs of its two services."""
    address = f"unix:{directory}/authority"
    async with (
        parts.serving(Elixir(), address),
        parts.worker(Hostile, address, directory) as stub,
        rpc.aio_channel(f"unix:{directory}/worker") as channel,
    ):
        yield stub, BufferServiceStub(channel)


async def executed(stub: Any, tool: str, **arguments: Any) -> Any:
    """Call a tool as an Elixir authority does, and return its result, or its error."""
    request = bridge_pb.ExecuteToolRequest(tool_name=tool, parameters=parts.raw(**arguments))
    response = await stub.ExecuteTool(request)
    return orjson.loads(response.result.value if response.success else response.error_message)


@pytest.mark.usefixtures("as_before")
async def test_elixir_gets_lists_and_copies(capture: Capture, short_path: Path) -> None:
    """For a peer that knows no requests arrays are lists as ever; large ones are kept for it to read, once."""
    async with called_by_elixir(short_path) as (stub, buffers):
        assert await executed(stub, "make", length=3) == [0, 1, 2]
        assert fallbacks(capture) == {}
        made = await executed(stub, "make", length=400_000)
        assert (made[ZERO_COPY], made["copy"], made["owner"], made["kind"]) == (True, True, "python", "dlpack")
        assert (made["bytes"], made["shape"], made["dtype"], made["device"]) == (3_200_000, [400_000], "float64", "cpu")
        assert fallbacks(capture) == {("python", "dlpack", "foreign_peer"): 1}
        chunks = [chunk.data async for chunk in buffers.Read(pb.ReadRequest(ref=made["ref"]))]
        assert [len(chunk) for chunk in chunks] == [1 << 20, 1 << 20, 1 << 20, 3_200_000 % (1 << 20)]
        assert b"".join(chunks) == np.arange(400_000, dtype="f8").tobytes()
        with pytest.raises(aio.AioRpcError, match="ReferenceReleased"):
            await buffers.Read(pb.ReadRequest(ref=made["ref"])).read()


@pytest.mark.usefixtures("as_before")
async def test_elixir_gets_copies_in_streams(capture: Capture, short_path: Path) -> None:
    """Chunks of a stream are the same."""
    given = form("a" * 32, metadata={"data": base64.b64encode(np.ones(12).tobytes()).decode()}, copy=True)
    async with called_by_elixir(short_path) as (stub, _):
        request = bridge_pb.ExecuteToolRequest(tool_name="several", parameters=parts.raw(t=given))
        chunks = [orjson.loads(chunk.data) async for chunk in stub.ExecuteStreamingTool(request) if chunk.data]
        assert [chunk["part"][0] for chunk in chunks] == [[1.0] * 3, [2.0] * 3, [3.0] * 3]
    assert fallbacks(capture) == {}


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("metadata", [{}, {"anything": [1]}, 5, "data", None], ids=str)
async def test_elixir_descriptions_can_be_read_but_not_opened(short_path: Path, metadata: Any) -> None:
    """A description of an Elixir authority without shared memory reaches the tool, and opening it is an error."""
    given = {
        ZERO_COPY: True,
        "kind": "dlpack",
        "device": "cuda",
        "dtype": "bfloat16",
        "shape": [2, 3],
        "owner": "elixir",
        "ref": base64.b64encode(b"a reference of Elixir's own").decode(),
        "copy": False,
        "bytes": 12,
        "metadata": metadata,
    }
    async with called_by_elixir(short_path) as (stub, _):
        counts = await executed(stub, "what", t=given)
        assert counts == {
            "type": "DescribedReference",
            "kind": "dlpack",
            "dtype": "bfloat16",
            "shape": [2, 3],
            "copy": False,
        }
        failed = await executed(stub, "total", t=given)
        assert failed["context"]["snakepit_error"] == "ZeroCopyUnavailable"
        assert "has no memory here" in failed["message"]


async def test_copies_and_shared_memory_go_side_by_side(capture: Capture) -> None:
    """Callers that share and callers that do not are served at the same time, by the same workers."""
    async with (
        Snakepit(Hostile, workers=2, server=TCP) as pit,
        Client(str(pit.address)) as far,
        Client(pit.socket) as near,
    ):
        sides = [(pit, False), (near, False), (far, True)]
        await asyncio.gather(*(both_ways(caller, copied=copied) for caller, copied in sides for _ in range(3)))
        await until(lambda: held(pit) == 0)
    assert fallbacks(capture) == {key: 3 * count for key, count in of_caller("unreachable").items()}
