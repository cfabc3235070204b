"""Attacks by an anonymous peer on TCP, which go on until killed: python -m tests.hostile.attacks NAME PORT."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import grpc
import orjson
from google.protobuf.any_pb2 import Any
from grpc import aio

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto import snakepit_buffers_pb2 as buffers
from snakepit_otel.bridge.proto import snakepit_leases_pb2 as leases
from snakepit_otel.bridge.wire import methods
from tests.bridge.raw_http2 import RawClient, message

MB = 1_000_000
_JSON = "type.googleapis.com/google.protobuf.StringValue"
_PAUSE = 0.2
"""Seconds between two blows, so that it is the blow that hurts, and not the attacker's share of the processors."""
_REGISTER_TOOLS = "snakepit.bridge.BridgeService/RegisterTools"
_HOLD = "snakepit_otel.leases.LeaseService/Hold"

Attack = Callable[[int], Awaitable[None]]
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    """Let an attack be chosen by the name of its function, with dashes."""
    ATTACKS[function.__name__.replace("_", "-")] = function
    return function


def channel(port: int, **more: Any) -> aio.Channel:
    """Return a channel of its own connection, that sends whatever it is given."""
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    return aio.insecure_channel(f"127.0.0.1:{port}", options=options, **more)


async def call(of: aio.Channel, method: str, message: bytes, timeout: float = 20.0) -> None:
    """Make a call and ignore how it ends."""
    with suppress(aio.AioRpcError):
        await of.unary_unary(f"/{method}")(message, timeout=timeout)


def request(tool: str, raw: bytes, session: str = "") -> bytes:
    """Return a request for a tool, with one argument of raw JSON."""
    parameters = {"value": Any(type_url=_JSON, value=raw)}
    return pb.ExecuteToolRequest(tool_name=tool, session_id=session, parameters=parameters).SerializeToString()


async def _again_and_again(port: int, method: str, *messages: bytes, at_a_time: int = 1) -> None:
    async with channel(port) as of:
        while True:
            for message in messages:
                await asyncio.gather(*(call(of, method, message) for _ in range(at_a_time)))
                await asyncio.sleep(_PAUSE)


@attack
async def large_json(port: int) -> None:
    """Send 30 MB of JSON in shapes that cost the most to take apart, with and without the mark of references."""
    mark = b'["__snakepit_zero_copy__"'
    shapes = [
        mark + b",[]" * (10 * MB) + b"]",
        b'[{"__snakepit_zero_copy__":1}' + b',{"__snakepit_zero_copy__":1}' * MB + b"]",
        b"[" * 1_000 + b"]" * 1_000 + b" " * (30 * MB),
        b'"' + b"x" * (30 * MB) + b'"',
    ]
    requests = [request(tool, shape) for shape in shapes for tool in ("nobody-has-it", "echo", "quick")]
    await _again_and_again(port, methods.EXECUTE_TOOL, *requests)


@attack
async def large_state(port: int) -> None:
    """Have 20 MB kept as a session's state."""
    await _again_and_again(port, methods.EXECUTE_TOOL, request("keep", b'"' + b"x" * (20 * MB) + b'"', "hoarder"))


@attack
async def large_names(port: int) -> None:
    """Send ids and names of 20 MB, with characters that none may have."""
    long = "\x1b\u202e" * (4 * MB)
    await _again_and_again(
        port,
        methods.HEARTBEAT,
        pb.HeartbeatRequest(session_id=long).SerializeToString(),
    )


@attack
async def small_entries(port: int) -> None:
    """Send messages of millions of small parts."""
    parts = {f"{number:x}": "" for number in range(MB)}
    metadata = pb.ExecuteToolRequest(tool_name="echo", metadata=parts).SerializeToString()
    session = pb.InitializeSessionRequest(session_id="many", metadata=parts).SerializeToString()
    await asyncio.gather(
        _again_and_again(port, methods.EXECUTE_TOOL, metadata),
        _again_and_again(port, methods.INITIALIZE_SESSION, session),
    )


@attack
async def zipped(port: int) -> None:
    """Send 1 GB of zeros as a megabyte."""
    size = 1_000 * MB
    varint = bytes((size >> 7 * place) & 127 | (128 if size >> 7 * (place + 1) else 0) for place in range(5))
    async with channel(port, compression=grpc.Compression.Gzip) as of:
        while True:
            await call(of, methods.PING, b"\x0a" + varint + bytes(size))
            await asyncio.sleep(_PAUSE)


@attack
async def registrations(port: int) -> None:
    """Register tools with long descriptions for ever new sessions."""
    async with channel(port) as of:
        while True:
            session = secrets.token_hex(8)
            begin = pb.InitializeSessionRequest(session_id=session)
            await call(of, methods.INITIALIZE_SESSION, begin.SerializeToString())
            for size in (20_000, 20 * MB):
                tools = [pb.ToolRegistration(name=f"tool_{number}", description="x" * size) for number in range(3)]
                message = pb.RegisterToolsRequest(session_id=session, tools=tools, worker_id="mallory")
                await call(of, _REGISTER_TOOLS, message.SerializeToString())
            await asyncio.sleep(_PAUSE)


@attack
async def sessions(port: int) -> None:
    """Create sessions with as much metadata as they may have, for a month each, and never use them."""
    async with channel(port) as of:
        metadata = {f"key{number}": "x" * 1_000 for number in range(30)}
        while True:
            message = pb.InitializeSessionRequest(session_id=secrets.token_hex(60), metadata=metadata)
            with suppress(aio.AioRpcError):
                await of.unary_unary(f"/{methods.INITIALIZE_SESSION}")(
                    message.SerializeToString(), timeout=5, metadata=((methods.TTL_HEADER, "2592000"),)
                )
            await asyncio.sleep(0.005)


@attack
async def unfinished_buffers(port: int) -> None:
    """Begin to place references of 31 MB, and never end them."""

    async def place() -> None:
        description = {
            "__snakepit_zero_copy__": 1,
            "ref": secrets.token_hex(16),
            "kind": "tensor",
            "dtype": "uint8",
            "shape": [31 * MB],
            "strides": [1],
            "nbytes": 31 * MB,
        }

        async def parts() -> AsyncIterator[bytes]:
            yield buffers.WriteRequest(reference=orjson.dumps(description)).SerializeToString()
            for _ in range(30):
                yield buffers.WriteRequest(data=bytes(MB)).SerializeToString()
            await asyncio.Event().wait()

        with suppress(aio.AioRpcError):
            await of.stream_unary(f"/{methods.WRITE_BUFFER}")(parts(), timeout=60)
        await asyncio.sleep(_PAUSE)

    async with channel(port) as of:
        while True:
            await asyncio.gather(*(place() for _ in range(12)))


@attack
async def half_sent_messages(port: int) -> None:
    """Begin messages of 30 MB on many streams, and never end them."""
    half = message(30 * MB, 29 * MB)

    def send() -> None:
        while True:
            with suppress(OSError), RawClient(port) as raw:
                for _ in range(12):
                    raw.send(raw.call(f"/{methods.EXECUTE_TOOL}"), half, patience=2.0)
                for _ in range(100):
                    raw.look(0.1)
                    if raw.closed:
                        break
            time.sleep(_PAUSE)

    await asyncio.gather(*(asyncio.to_thread(send) for _ in range(3)))


@attack
async def waiting_requests(port: int) -> None:
    """Have many large requests wait."""
    more = b'"' + b"x" * (30 * MB) + b'"'
    parameters = {"seconds": Any(type_url=_JSON, value=b"3"), "more": Any(type_url=_JSON, value=more)}
    message = pb.ExecuteToolRequest(tool_name="rest", parameters=parameters).SerializeToString()
    await _again_and_again(port, methods.EXECUTE_TOOL, message, at_a_time=12)


@attack
async def unread_streams(port: int) -> None:
    """Ask for streams without an end, and read nothing of them."""
    parameters = {
        "count": Any(type_url=_JSON, value=b"1000000"),
        "size": Any(type_url=_JSON, value=b"1000000"),
    }
    message = pb.ExecuteToolRequest(tool_name="much", parameters=parameters, stream=True).SerializeToString()
    async with channel(port) as of:
        while True:
            calls = [of.unary_stream(f"/{methods.EXECUTE_STREAMING_TOOL}")(message) for _ in range(4)]
            await asyncio.sleep(2)
            for begun in calls[:3]:
                begun.cancel()
            await asyncio.sleep(_PAUSE)


@attack
async def connections(port: int) -> None:
    """Open connections, as many as there may be, and be silent on them."""
    held: list[socket.socket] = []
    while True:
        with suppress(OSError):
            one = socket.socket()
            one.setblocking(False)
            held.append(one)
            with suppress(BlockingIOError):
                one.connect(("127.0.0.1", port))
        if len(held) > 900:
            for one in held:
                one.close()
            held.clear()
        await asyncio.sleep(0.005)


@attack
async def resets(port: int) -> None:
    """Begin calls and cancel them at once."""

    def send() -> None:
        while True:
            with suppress(OSError), RawClient(port) as raw:
                while not raw.closed:
                    for _ in range(100):
                        raw.cancel(raw.call(f"/{methods.PING}"))
                    raw.look(0.01)
            time.sleep(_PAUSE)

    await asyncio.to_thread(send)


@attack
async def stuck_tools(port: int) -> None:
    """Ask for plain tools of the authority that are stuck, and go."""
    parameters = {"seconds": Any(type_url=_JSON, value=b"20")}
    message = pb.ExecuteToolRequest(tool_name="stuck", parameters=parameters).SerializeToString()
    async with channel(port) as of:
        while True:
            await asyncio.gather(*(call(of, methods.EXECUTE_TOOL, message, 0.3) for _ in range(40)))
            await asyncio.sleep(1)


@attack
async def lease_streams(port: int) -> None:
    """Hold ever more sessions over ever more streams."""

    async def hold(of: aio.Channel) -> None:
        async def parts() -> AsyncIterator[bytes]:
            for number in range(1, 100):
                create = leases.Create(owner="mallory", call_site="x" * 10_000, metadata={"key": "x" * 10_000})
                message = leases.HoldRequest(number=number, session_id=secrets.token_hex(30), create=create)
                yield message.SerializeToString()
                await asyncio.sleep(0.02)

        with suppress(aio.AioRpcError):
            async for _ in of.stream_stream(f"/{_HOLD}")(parts(), timeout=20):
                pass

    async with channel(port) as of:
        while True:
            await asyncio.gather(*(hold(of) for _ in range(20)))


@attack
async def junk(port: int) -> None:
    """Send what is no message, to every method there is, with metadata as long as may be."""
    every = [value for value in vars(methods).values() if isinstance(value, str) and "Service/" in value]
    metadata = tuple((f"key-{number}", "x" * 1_000) for number in range(200))
    async with channel(port) as of:
        while True:
            for method in (*every, _REGISTER_TOOLS, _HOLD, "no.such.Service/" + "x" * 1_000):
                with suppress(aio.AioRpcError):
                    await of.unary_unary(f"/{method}")(secrets.token_bytes(1_000), timeout=5, metadata=metadata)
            await asyncio.sleep(_PAUSE)


def main() -> None:
    """Attack until killed, with the least claim to the processors."""
    name, port = sys.argv[1:]
    os.nice(19)
    asyncio.run(ATTACKS[name](int(port)))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
