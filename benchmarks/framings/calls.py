"""Calls over frames: a caller's calls in flight, and a server that echoes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol

from benchmarks.framings.framing import STREAMING, UNARY, Framing
from benchmarks.framings.links import Link
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb

CHUNKS = 100
_CHUNK = b"x" * 100


class Caller(Protocol):
    """What a load calls, whatever carries it."""

    async def call(self, payload: bytes) -> bytes:
        """Return the payload of the response."""

    def stream(self, payload: bytes) -> AsyncIterator[bytes]:
        """Yield the parts of a stream."""


def answer(payload: bytes) -> bytes:
    """Return an echo of a request, parsed and built as a worker's are."""
    request = pb.ExecuteToolRequest.FromString(payload)
    return pb.ExecuteToolResponse(success=True, result=request.parameters["value"]).SerializeToString()


async def chunks(payload: bytes) -> AsyncIterator[bytes]:
    """Yield the messages of a stream, each in a turn of the loop of its own, as a tool's tokens come."""
    pb.ExecuteToolRequest.FromString(payload)
    for number in range(CHUNKS):
        yield pb.ToolChunk(chunk_id=str(number), data=_CHUNK).SerializeToString()
        await asyncio.sleep(0)


class Received:
    """The parts of one stream that have come and were not read yet; None is its end."""

    def __init__(self) -> None:
        self._parts: deque[bytes | None] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def append(self, part: bytes | None) -> None:
        """Add a part, and wake who waits for one."""
        self._parts.append(part)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while not self._parts:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
            if (part := self._parts.popleft()) is None:
                return
            yield part


class FrameCaller:
    """Calls over one connection."""

    def __init__(self, link: Link, framing: Framing) -> None:
        self._link, self._framing = link, framing
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._streams: dict[int, Received] = {}
        self._next = 1
        link.on_frame = self._on_frame

    async def call(self, payload: bytes) -> bytes:
        number, self._next = self._next, self._next + 2
        future = self._calls[number] = self._loop.create_future()
        self._link.in_flight += 1
        self._link.send(self._framing.request(number, UNARY, payload))
        return await future

    async def stream(self, payload: bytes) -> AsyncIterator[bytes]:
        number, self._next = self._next, self._next + 2
        received = self._streams[number] = Received()
        self._link.in_flight += 1
        self._link.send(self._framing.request(number, STREAMING, payload))
        async for part in received:
            yield part

    def _on_frame(self, stream: int, kind: int, flags: int, body: bytes) -> None:
        part = self._framing.open_answer(kind, flags, body)
        if (call := self._calls.pop(stream, None)) is not None:
            assert part is not None
            self._link.in_flight -= 1
            call.set_result(part)
        elif part is None:
            self._streams.pop(stream).append(None)
            self._link.in_flight -= 1
        else:
            self._streams[stream].append(part)


class FrameServer:
    """Answers the frames of one connection."""

    def __init__(self, link: Link, framing: Framing) -> None:
        self._link, self._framing = link, framing
        self._tasks: set[asyncio.Task[None]] = set()
        link.on_frame = self._on_frame

    def _on_frame(self, stream: int, kind: int, _flags: int, body: bytes) -> None:
        call = self._framing.open_request(kind, body)
        self._link.in_flight += 1
        if call.method == UNARY:
            self._link.send(self._framing.response(stream, answer(call.payload)))
            self._link.in_flight -= 1
            return
        task = asyncio.get_running_loop().create_task(self._stream(stream, call.payload))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stream(self, stream: int, payload: bytes) -> None:
        async for chunk in chunks(payload):
            self._link.send(self._framing.data(stream, chunk))
        self._link.send(self._framing.end(stream))
        self._link.in_flight -= 1
