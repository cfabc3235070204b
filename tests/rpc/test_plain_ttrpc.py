"""The local transport and peers that have ttrpc's own frames only, played by bare sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.methods import PING
from snakepit_otel.bridge.wire.services import BRIDGE
from snakepit_otel.rpc import RpcError, StatusCode
from snakepit_otel.rpc.services import handlers_of
from snakepit_otel.rpc.transports.local import LocalTransport, frames
from snakepit_otel.rpc.transports.local.frames import HEADER

MIB = 1 << 20


async def receive(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
    """Return type, stream, flags and body of the next frame."""
    size, stream, kind, flags = HEADER.unpack(await asyncio.wait_for(reader.readexactly(HEADER.size), 10))
    return kind, stream, flags, await asyncio.wait_for(reader.readexactly(size), 10)


def frame(kind: int, stream: int, flags: int, body: bytes) -> bytes:
    """Return the bytes of a frame."""
    return HEADER.pack(len(body), stream, kind, flags) + body


class Service:
    async def Ping(self, request: pb.PingRequest, _context: Any) -> pb.PingResponse:
        """Answer with so many mebibytes."""
        return pb.PingResponse(message="x" * round(float(request.message) * MIB))


@pytest.fixture
async def server(short_path: Path) -> AsyncIterator[str]:
    """The path of a server of ours."""
    listener = LocalTransport().listen(f"unix:{short_path}/s")
    listener.add(handlers_of(BRIDGE, Service()))
    listener.bind()
    await listener.start()
    yield f"{short_path}/s"
    await listener.stop(None)


async def test_a_plain_client_gets_whole_frames(server: str) -> None:
    """Answers to a caller without a hello come in one frame each; one beyond ttrpc's limit is refused by a status."""
    reader, writer = await asyncio.open_unix_connection(server)
    for number, size in enumerate(("3.9", "4.1", "0")):
        request = frames.request_body(frames.names_of(PING), pb.PingRequest(message=size).SerializeToString(), None, ())
        writer.write(frame(frames.REQUEST, 2 * number + 1, 0, request))
    answers = {}
    for _ in range(3):
        kind, stream, flags, body = await receive(reader)
        assert (kind, flags) == (frames.RESPONSE, 0)
        answers[stream] = body
    assert len(answers[1]) > 3.9 * MIB
    assert frames.payload_in(answers[5]) == b""
    with pytest.raises(RpcError, match="of a peer without extensions") as large:
        frames.payload_in(answers[3])
    assert large.value.code is StatusCode.RESOURCE_EXHAUSTED
    writer.close()
    await writer.wait_closed()


async def test_a_plain_server_gets_no_extensions(short_path: Path) -> None:
    """A server that answers the hello with an error is called in whole frames; larger messages are refused here."""
    seen: list[tuple[int, int, int]] = []
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                kind, stream, flags, body = await receive(reader)
            except asyncio.IncompleteReadError:
                writer.close()
                await writer.wait_closed()
                left.set()
                return
            seen.append((kind, stream, flags))
            if not stream % 2:
                writer.write(
                    frame(frames.RESPONSE, stream, 0, frames.failure_body(StatusCode.INVALID_ARGUMENT, "it is even"))
                )
            elif kind == frames.REQUEST:
                payload = frames.request_in(body)[2]
                writer.write(frame(frames.RESPONSE, stream, 0, frames.response_body(payload)))

    server = await asyncio.start_unix_server(serve, short_path / "s", limit=8 * MIB)
    connection = LocalTransport().connect(f"unix:{short_path}/s", [BRIDGE])
    try:
        for size in (1, 3 * MIB):
            assert len((await connection.call(PING, pb.PingRequest(message="x" * size), 10)).message) == size
        with pytest.raises(RpcError, match="of a peer without extensions") as large:
            await connection.call(PING, pb.PingRequest(message="x" * 5 * MIB), 10)
        assert large.value.code is StatusCode.RESOURCE_EXHAUSTED
        assert (await connection.call(PING, pb.PingRequest(message="there"), 10)).message == "there"
    finally:
        await connection.close()
        await asyncio.wait_for(left.wait(), 10)
        server.close()
    assert seen == [(frames.HELLO, 0, 0), *((frames.REQUEST, stream, 0) for stream in (1, 3, 5))]
