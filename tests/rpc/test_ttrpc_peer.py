"""The local transport and containerd's own ttrpc, in Go, as each other's client and server."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, wrappers_pb2
from google.protobuf.wrappers_pb2 import StringValue

from snakepit_otel import rpc
from snakepit_otel.rpc import EOF, RpcError, StatusCode
from snakepit_otel.rpc.services import handlers_of, methods_of
from snakepit_otel.rpc.transports.local import LocalTransport
from tests.collector.conftest import installed

pytestmark = pytest.mark.matrix

SERVICE = "test.Echo"
ECHO, COUNT, JOIN, CHAT = METHODS = ("Echo", "Count", "Join", "Chat")
LARGE = 3 << 20


def _service() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/ttrpc_peer.proto", package="test", syntax="proto3", dependency=[wrappers_pb2.DESCRIPTOR.name]
    )
    service = file.service.add(name="Echo")
    for name in METHODS:
        service.method.add(
            name=name,
            input_type=".google.protobuf.StringValue",
            output_type=".google.protobuf.StringValue",
            client_streaming=name in (JOIN, CHAT),
            server_streaming=name in (COUNT, CHAT),
        )
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName(SERVICE)


ECHO_METHODS = methods_of(_service())


class Echo:
    """What main.go serves, served by us."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    async def Echo(self, request: StringValue, context: Any) -> StringValue:
        """One in, one out, as the text begins."""
        command, _, argument = request.value.partition(" ")
        if command == "fail":
            await context.abort(StatusCode.NOT_FOUND, argument)
        if command == "metadata":
            return StringValue(value=dict(context.invocation_metadata()).get(argument, ""))
        if command == "left":
            return StringValue(value=str(round(context.time_remaining() * 1000)))
        if command == "wait":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return request

    async def Count(self, request: StringValue, context: Any) -> None:
        """One in, many out."""
        if request.value == "fail":
            await context.write(StringValue(value="0"))
            await context.abort(StatusCode.DATA_LOSS, "after one")
        for number in range(int(request.value)):
            await context.write(StringValue(value=str(number)))

    async def Join(self, requests: Any, _context: Any) -> StringValue:
        """Many in, one out."""
        return StringValue(value=" ".join([request.value async for request in requests]))

    async def Chat(self, requests: Any, context: Any) -> None:
        """Many in, many out."""
        async for request in requests:
            await context.write(StringValue(value=request.value.upper()))


@pytest.fixture(scope="module")
def peer() -> Path:
    """The program of ttrpc_peer, built once on a machine."""
    return installed("install-ttrpc-peer")


@pytest.fixture
def path(short_path: Path) -> Path:
    """Where one listens and the other connects."""
    return short_path / "s"


async def test_their_client_calls_our_server(peer: Path, path: Path) -> None:
    """Containerd's client has the results, statuses, metadata, deadlines and streams that our handlers gave."""
    service = Echo()
    listener = LocalTransport().listen(f"unix:{path}")
    listener.add(handlers_of(ECHO_METHODS, service))
    listener.bind()
    await listener.start()
    try:
        calling = await asyncio.create_subprocess_exec(
            peer, "call", path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await asyncio.wait_for(calling.communicate(), 30)
        await asyncio.wait_for(service.cancelled.wait(), 10)
    finally:
        await listener.stop(None)
    assert calling.returncode == 0, errors.decode()
    outcomes = {name: (found["values"], found["code"], found["message"]) for name, found in json.loads(output).items()}
    (left,) = outcomes.pop("left")[0]
    assert 15_000 < int(left) <= 20_000
    assert outcomes.pop("unknown")[1] == "Unimplemented"
    assert outcomes.pop("deadline")[1] == "DeadlineExceeded"
    assert outcomes == {
        "unary": (["hello"], "OK", ""),
        "empty": ([""], "OK", ""),
        "large": (["x" * LARGE], "OK", ""),
        "error": ([""], "NotFound", "as asked"),
        "metadata": (["value"], "OK", ""),
        "stream": ([str(number) for number in range(300)], "OK", ""),
        "failing": (["0"], "DataLoss", "after one"),
        "upload": (["one  two"], "OK", ""),
        "both": (["ONE", "TWO"], "OK", ""),
        "after": (["still here"], "OK", ""),
    }


@pytest.fixture
def served(peer: Path, path: Path) -> Iterator[str]:
    """The address of containerd's server."""
    with subprocess.Popen([peer, "serve", path], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield f"unix:{path}"
        server.kill()


@pytest.fixture
async def connection(served: str) -> AsyncIterator[rpc.Connection]:
    """Our connection to it."""
    connection = LocalTransport().connect(served, [ECHO_METHODS])
    yield connection
    await connection.close()


async def _echo(connection: rpc.Connection, text: str, timeout: float | None = 20.0, **metadata: str) -> str:
    call = connection.call(f"{SERVICE}/{ECHO}", StringValue(value=text), timeout, list(metadata.items()))
    return str((await asyncio.wait_for(call, 30)).value)


async def test_our_unary_calls_to_their_server(connection: rpc.Connection) -> None:
    """Results, statuses with their text, metadata and deadlines cross to containerd's server and back."""
    assert await _echo(connection, "hello") == "hello"
    assert await _echo(connection, "") == ""
    assert await _echo(connection, "x" * LARGE) == "x" * LARGE
    assert await _echo(connection, "metadata key", key="value") == "value"
    assert 15_000 < int(await _echo(connection, "left")) <= 20_001
    assert await _echo(connection, "left", None) == ""
    with pytest.raises(RpcError) as failed:
        await _echo(connection, "fail as asked")
    assert (failed.value.code, failed.value.details) == (StatusCode.NOT_FOUND, "as asked")
    with pytest.raises(RpcError) as late:
        await _echo(connection, "wait", 0.2)
    assert late.value.code is StatusCode.DEADLINE_EXCEEDED
    assert await _echo(connection, "still here") == "still here"


async def test_a_frame_too_large_for_their_server_is_refused_here(connection: rpc.Connection) -> None:
    """Messages beyond ttrpc's limit of a frame are refused for a peer without parts, and other calls go on."""
    with pytest.raises(RpcError) as large:
        await _echo(connection, "x" * (5 << 20))
    assert large.value.code is StatusCode.RESOURCE_EXHAUSTED
    assert await _echo(connection, "still here") == "still here"


async def test_our_streams_to_their_server(connection: rpc.Connection) -> None:
    """Streams of their server, of ours and of both are read whole, with the status of one that fails."""
    taken: list[str] = []

    async def take(message: StringValue) -> None:
        taken.append(message.value)

    await asyncio.wait_for(connection.stream(f"{SERVICE}/{COUNT}", StringValue(value="300"), take), 10)
    assert taken == [str(number) for number in range(300)]
    taken.clear()
    with pytest.raises(RpcError) as failed:
        await asyncio.wait_for(connection.stream(f"{SERVICE}/{COUNT}", StringValue(value="fail"), take), 10)
    assert (taken, failed.value.code) == (["0"], StatusCode.DATA_LOSS)
    texts = [StringValue(value=text) for text in ("one", "", "two")]
    assert (await asyncio.wait_for(connection.upload(f"{SERVICE}/{JOIN}", texts), 10)).value == "one  two"
    dialogue = connection.bidirectional(f"{SERVICE}/{CHAT}")
    for text in ("one", "two"):
        await dialogue.write(StringValue(value=text))
        assert (await asyncio.wait_for(dialogue.read(), 10)).value == text.upper()
    await dialogue.done_writing()
    assert await asyncio.wait_for(dialogue.read(), 10) is EOF


async def test_many_calls_at_a_time_to_their_server(connection: rpc.Connection) -> None:
    """Calls of one connection do not get each other's answers."""
    texts = [f"text {number}" for number in range(500)]
    assert await asyncio.gather(*(_echo(connection, text) for text in texts)) == texts
