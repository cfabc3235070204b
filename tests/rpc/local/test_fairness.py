"""Order of frames while large bodies are sent to a peer that reads slowly."""

from __future__ import annotations

import asyncio
from typing import Any

from snakepit_otel import rpc
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.methods import PING
from snakepit_otel.rpc.transports.local import LocalTransport, frames
from snakepit_otel.rpc.transports.local.frames import HEADER, PART_BYTES
from snakepit_otel.rpc.transports.local.link import Link
from tests.rpc.local.conftest import HELLO, RawPeer, RawServer, frame
from tests.rpc.test_transports import SERVICES
from tests.waiting import until

LARGE = 20 << 20


def ping(message: str) -> bytes:
    """Return the body of a request."""
    return frames.request_body(frames.names_of(PING), pb.PingRequest(message=message).SerializeToString(), None, None)


async def order_of(peer: RawPeer, count: int) -> list[tuple[int, int]]:
    """Return the streams and sizes of frames, up to the end of so many bodies."""
    found = []
    while count:
        kind, stream, flags, body = await peer.frame()
        if kind in (frames.REQUEST, frames.RESPONSE):
            found.append((stream, len(body)))
            count -= not flags & frames.MORE
    return found


def check(found: list[tuple[int, int]], small: int, on_their_way: int) -> None:
    """Check that a small frame came first after what the socket had, and the part that was begun."""
    at = [stream for stream, _ in found].index(small)
    before = sum(size + HEADER.size for _, size in found[:at])
    assert before <= on_their_way + PART_BYTES + HEADER.size
    assert sum(size for _, size in found) > LARGE
    assert max(size for _, size in found) <= PART_BYTES


async def test_a_small_request_passes_a_large_one(raw_server: RawServer, address: str) -> None:
    """It is sent before the rest of a request that its server is slow to read."""
    connection: Any = LocalTransport().connect(address, SERVICES)
    large = asyncio.ensure_future(connection.call(PING, pb.PingRequest(message="x" * LARGE)))
    peer = await raw_server.accept()
    link: Link = await until(lambda: connection._calling and connection._calling.link)
    await until(lambda: link.unsent)
    before = link.unsent
    small = asyncio.ensure_future(connection.call(PING, pb.PingRequest(message="small")))
    await until(lambda: link.unsent > before)
    check(await order_of(peer, 2), 3, LARGE - before + 1000 * HEADER.size)
    large.cancel()
    small.cancel()
    await connection.close()


async def test_a_small_answer_passes_a_large_one(raw_peer: RawPeer, listener: Any) -> None:
    """So is a small answer to a peer that reads slowly."""
    await raw_peer.send(HELLO)
    (served,) = await until(lambda: listener._links)
    body = ping("x" * LARGE)
    parts = [body[start : start + PART_BYTES] for start in range(0, len(body), PART_BYTES)]
    for part in parts[:-1]:
        await raw_peer.send(frame(frames.REQUEST, 1, frames.MORE, part))
    await raw_peer.send(frame(frames.REQUEST, 1, 0, parts[-1]))
    await until(lambda: served.link.unsent > LARGE // 2)
    before = served.link.unsent
    served.answer(3, frames.response_body(b""))
    check(await order_of(raw_peer, 2), 3, LARGE - before + 1000 * HEADER.size)


async def test_large_bodies_take_turns(raw_server: RawServer, address: str) -> None:
    """Large requests that are sent at the same time get a part each."""
    connection: rpc.Connection = LocalTransport().connect(address, SERVICES)
    calls = [asyncio.ensure_future(connection.call(PING, pb.PingRequest(message="x" * (4 << 20)))) for _ in range(3)]
    found = await order_of(await raw_server.accept(), 3)
    streams = [stream for stream, _ in found]
    # The first one begins alone, with what the socket takes at once.
    turns = streams[streams.index(3) :][: 3 * 20]
    assert all(len(set(turns[at : at + 3])) == 3 for at in range(len(turns) - 2))
    for call in calls:
        call.cancel()
    await connection.close()
