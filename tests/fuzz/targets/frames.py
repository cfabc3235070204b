"""Frames of the local transport: their bodies, and bytes of a socket that are cut into frames."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from snakepit_otel.rpc.status import RpcError
from snakepit_otel.rpc.transports.local import frames
from snakepit_otel.rpc.transports.local.frames import HEADER, MAX_BODY, MORE, PART_BYTES, MalformedFrame
from snakepit_otel.rpc.transports.local.link import Link
from tests.fuzz.choices import Choices
from tests.fuzz.kit import insist, refusing, target


@target()
def frame_bodies(data: bytes) -> None:
    """A body of a frame is read, and is written again as what was read, or is malformed."""
    with refusing(MalformedFrame) as refused:
        service, name, payload, timeout, metadata = frames.request_in(data)
    if not refused:
        insist(timeout is None or timeout >= 0, "a time below nothing:", data)
        names = frames.names_of(f"{service}/{name}")
        again = frames.request_in(frames.request_body(names, payload, timeout, metadata))
        insist((again[2], again[4]) == (payload, metadata), "another request:", data)
        found = frames.names_in(data)
        insist(not found or frames.request_in(data, len(found))[2] == payload, "another payload:", data)
    with refusing(MalformedFrame):
        frames.has_long_metadata(data, 100)
    # What a server says of itself may be long, and is made printable where it is shown.
    try:
        insist(len(frames.payload_in(data)) <= len(data))
    except MalformedFrame as error:
        insist(len(str(error)) < 200)
    except RpcError as error:
        insist(len(error.details) <= len(data))
    with refusing(MalformedFrame):
        insist(frames.window_in_hello(data) > 0)
    with refusing(MalformedFrame):
        insist(frames.count_body(frames.count_in(data)) == data)
    frames.is_http2(data)


class _Keeping:
    """Takes frames; `most` bytes of a body are kept."""

    in_flight = 0

    def __init__(self, most: int) -> None:
        self.taken: list[tuple[int, int, int, bytes]] = []
        self._most = most

    def on_frame(self, kind: int, stream: int, flags: int, body: bytes) -> None:
        self.taken.append((kind, stream, flags, body))

    def on_part(self, kind: int, stream: int, size: int) -> bool:
        return size <= self._most

    def on_lost(self, why: str) -> None: ...


@target(largest=16_384)
def frame_streams(data: bytes) -> None:
    """Bytes are the same frames wherever they are cut, or are malformed; of a body no more is kept than is let."""
    choices = Choices(data)
    cuts = [1 + choices.below(200) for _ in range(choices.below(20))]
    most = choices.pick([0, PART_BYTES, 1 << 20])
    if choices.chance():
        raw = choices.rest()
    else:
        # Bodies in parts, whose bytes are the same, so that a small input makes large ones.
        raw = b"".join(
            HEADER.pack(size, 1 + choices.below(4), choices.pick([1, 2, 3, 0x80, 0x84]), choices.pick([0, MORE]))
            + bytes(size)
            for size in (choices.pick([0, 1, 4_095, 4_096, 5_000]) for _ in range(1 + choices.below(12)))
        )
    whole, taken = _frames(raw, [], most), _frames(raw, cuts, most)
    insist(whole == taken, "otherwise cut:", raw)
    insist(all(len(body) <= max(most, MAX_BODY) for _, _, _, body in whole[0]))


def _frames(raw: bytes, cuts: list[int], most: int) -> tuple[list[tuple[int, int, int, bytes]], bool]:
    ours, theirs = socket.socketpair()
    receiver = _Keeping(most)
    loop: Any = asyncio.new_event_loop()
    try:
        with ours, theirs:
            link = Link(ours, loop)
            link._receiver = receiver
            link._corked = True
            at = 0
            try:
                for size in (*cuts, len(raw)):
                    if at < len(raw):
                        link._take(raw[at : at + size])
                    at += size
            except MalformedFrame as error:
                insist(len(str(error)) < 200)
                return receiver.taken, True
            bodies = link._arriving.bodies.values()
            insist(all(sum(map(len, body.parts)) <= most for body in bodies), "more is kept than is let:", raw)
            return receiver.taken, False
    finally:
        loop.close()
