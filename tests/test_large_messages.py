"""Large messages of callers at a whole Snakepit: what the authority makes of them, and what others notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import orjson
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from grpc import aio

from snakepit_otel import BaseAdapter, Client, Snakepit, authority_tool, tool
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.wire import values
from snakepit_otel.bridge.wire.codec import STRING_VALUE
from snakepit_otel.common.json_keys import ZERO_COPY
from snakepit_otel.errors import StateRefused, ValueRefused
from snakepit_otel.sessions import _state as state

_CALL = "/snakepit.bridge.BridgeService/"
_SIZE = 4_000_000
_MARK = f'"{ZERO_COPY}"'.encode()


class Large(BaseAdapter):
    """Takes and makes large values."""

    @tool
    def length(self, value: Any) -> int:
        """Return how long a value is."""
        return len(value)

    @tool
    def text(self, size: int, of: str = "x") -> str:
        """Return as much text."""
        return of * size

    @tool
    def stream_text(self, size: int) -> Iterator[str]:
        """Yield as much text at once."""
        yield "x" * size

    @tool
    def fail(self, size: int) -> None:
        """Raise an error with as much text."""
        raise RuntimeError("x" * size)

    @tool
    def remember(self, size: int) -> None:
        """Write as much text to the session's state."""
        self.session_context.state["key"] = "x" * size


@authority_tool
def measure(_context: Any, value: Any = None) -> int:
    """Return how long a value is."""
    return len(value)


@pytest.fixture
async def pit() -> AsyncIterator[Snakepit]:
    """A Snakepit of one worker, on TCP, too."""
    server = {"listen": "127.0.0.1:0"}
    async with Snakepit(Large, workers=1, server=server, authority_tools=[measure]) as running:
        yield running


def _request(tool_name: str, value: bytes, **more: Any) -> bytes:
    parameters = {"value": AnyMessage(type_url=STRING_VALUE, value=value)}
    return pb.ExecuteToolRequest(tool_name=tool_name, parameters=parameters, **more).SerializeToString()


def _call_back(tool_name: str, value: bytes) -> bytes:
    parameters = {
        "key": AnyMessage(type_url=STRING_VALUE, value=b'"key"'),
        "value": AnyMessage(type_url=STRING_VALUE, value=value),
    }
    request = pb.ExecuteElixirToolRequest(session_id="alice", tool_name=tool_name, parameters=parameters)
    return request.SerializeToString()


def _many(head: bytes, part: bytes, tail: bytes) -> bytes:
    return head + part * (_SIZE // len(part)) + tail


def _entries(field: int, size: int) -> bytes:
    tag = bytes([field << 3 | 2])
    return b"".join(tag + b"\x0b\x0a\x07%07d\x12\x00" % number for number in range(size // 13))


_LISTS = _many(b"[" + _MARK, b",[]", b"]")
_SHAPES = {
    "a mark and lists": ("ExecuteTool", _request("nope", _LISTS)),
    "nearly marks": ("ExecuteTool", _request("nope", _many(b'"', b"_", b'"'))),
    "marks": ("ExecuteTool", _request("nope", _many(b"[1", b"," + _MARK, b"]"))),
    "a tool of the authority": ("ExecuteTool", _request("measure", _LISTS)),
    "state": ("ExecuteElixirTool", _call_back("set_session_state", _LISTS)),
    "metadata": ("ExecuteTool", _entries(4, _SIZE)),
    "names": ("ExecuteTool", _entries(3, _SIZE)),
    "bytes by name": ("ExecuteTool", _entries(6, _SIZE)),
    "a tool's name": ("ExecuteTool", _request("x" * _SIZE, b"1")),
    "a session's id": ("ExecuteTool", _request("nope", b"1", session_id="x" * _SIZE)),
    "tools": ("RegisterTools", b"\x0a\x01s" + b"\x12\x00" * (_SIZE // 2)),
    "a session's metadata": ("InitializeSession", b"\x0a\x01s" + _entries(2, _SIZE)),
    "an id of a heartbeat": ("Heartbeat", pb.HeartbeatRequest(session_id="x" * _SIZE).SerializeToString()),
}


class _Turns:
    """Measures the longest turn of the event loop, in the time that its thread has computed."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest = max(self.longest, now - before)
            before = now

    def stop(self) -> float:
        """Return the seconds of the longest."""
        self._task.cancel()
        return self.longest


@contextmanager
def _counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Yield the sizes of all JSON that this process decodes for messages and state."""
    sizes: list[int] = []

    class Counting:
        JSONDecodeError = orjson.JSONDecodeError

        def __getattr__(self, name: str) -> Any:
            return getattr(orjson, name)

        @staticmethod
        def loads(raw: Any) -> Any:
            sizes.append(len(raw))
            return orjson.loads(raw)

    with monkeypatch.context() as patched:
        for module in (values, state):
            patched.setattr(module, "orjson", Counting())
        yield sizes


async def _answer(channel: aio.Channel, method: str, raw: bytes) -> str:
    try:
        return (await channel.unary_unary(_CALL + method)(raw, timeout=60)).decode(errors="replace")
    except aio.AioRpcError as error:
        return f"{error.code().name} {error.details()}"


async def test_no_message_holds_up_others(pit: Snakepit) -> None:
    """The longest turn that a message takes of the loop is less than half of what reading its JSON would be."""
    await pit.sessions.create("alice")
    begun = time.thread_time()
    orjson.loads(_LISTS)
    reading = time.thread_time() - begun
    longest: dict[str, float] = {}
    async with aio.insecure_channel(str(pit.address), options=[("grpc.max_send_message_length", -1)]) as channel:
        for shape, (method, raw) in _SHAPES.items():
            turns = _Turns()
            answer = await _answer(channel, method, raw)
            refused = any(word in answer for word in ("Error", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "larger than"))
            assert refused or method == "Heartbeat", shape
            assert len(answer) < 2_000, shape
            longest[shape] = turns.stop()
    assert {shape: one / reading for shape, one in longest.items() if one > reading / 2} == {}


async def test_a_refusal_in_an_answer(pit: Snakepit) -> None:
    """Methods whose answers can say no say it there: no session has such an id, and no such tools are registered."""
    long = "x" * 2_000_000
    async with aio.insecure_channel(str(pit.address), options=[("grpc.max_send_message_length", -1)]) as channel:
        bridge = BridgeServiceStub(channel)
        heartbeat = await bridge.Heartbeat(pb.HeartbeatRequest(session_id=long))
        assert not heartbeat.session_valid
        tools = [pb.ToolRegistration(name="x", description=long)]
        registered = await bridge.RegisterTools(pb.RegisterToolsRequest(session_id="alice", tools=tools))
        assert not registered.success
        assert "larger than max" in registered.error_message


async def test_nothing_of_a_large_request_or_result_is_decoded(pit: Snakepit, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to a worker and comes from it is decoded there, and by the caller, and on the way by nobody."""
    size = 1_000_000
    async with aio.insecure_channel(str(pit.address), options=[("grpc.max_receive_message_length", -1)]) as channel:
        run = channel.unary_unary(_CALL + "ExecuteTool", response_deserializer=pb.ExecuteToolResponse.FromString)
        stream = channel.unary_stream(_CALL + "ExecuteStreamingTool", response_deserializer=pb.ToolChunk.FromString)
        with _counted(monkeypatch) as sizes:
            for mark in (b"", ZERO_COPY.encode()):
                response = await run(_request("length", b'"' + mark + b"x" * size + b'"'))
                assert response.result.value == b"%d" % (size + len(mark))
            sized = {"size": AnyMessage(type_url=STRING_VALUE, value=b"%d" % size)}
            response = await run(pb.ExecuteToolRequest(tool_name="text", parameters=sized).SerializeToString())
            assert len(response.result.value) == size + 2
            request = pb.ExecuteToolRequest(tool_name="stream_text", parameters=sized, stream=True)
            chunks = [chunk async for chunk in stream(request.SerializeToString())]
            assert sum(len(chunk.data) for chunk in chunks) == size
            response = await run(pb.ExecuteToolRequest(tool_name="fail", parameters=sized).SerializeToString())
            assert len(response.error_message) < 200_000
        assert max(sizes, default=0) < 200_000


async def test_large_values_arrive(pit: Snakepit) -> None:
    """Through the authority, by any way, a large value is what it was; with references, too."""
    text = "x" * 200_000
    for address in (pit.socket, str(pit.address)):
        async with Client(address) as client:
            assert await client.execute("length", {"value": [text, text]}) == 2
            assert await client.execute("text", {"size": 100_000}) == "x" * 100_000
            assert [chunk async for chunk in client.stream("stream_text", {"size": 100_000})] == ["x" * 100_000]
    assert await pit.execute("text", {"size": 100_000}) == "x" * 100_000
    assert [chunk async for chunk in pit.stream("stream_text", {"size": 100_000})] == ["x" * 100_000]


async def test_state_that_is_too_large_is_refused_unread(pit: Snakepit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that writes more state than there may be is refused by the size of what came."""
    with _counted(monkeypatch) as sizes, pytest.raises(StateRefused, match="max_session_bytes is 1048576"):
        await pit.execute("remember", {"size": 3_000_000}, session_id="alice")
    assert max(sizes, default=0) < 200_000
    with _counted(monkeypatch) as sizes, pytest.raises(StateRefused, match="max_session_bytes is 1048576"):
        await pit.sessions.set_state("alice", "key", [["x" * 3_000_000]])
    assert sizes == []
    await pit.execute("remember", {"size": 1_000_000}, session_id="alice")
    assert len(await pit.sessions.get_state("alice", "key")) == 1_000_000


async def test_tools_of_the_authority_take_so_much_json_of_others(pit: Snakepit) -> None:
    """What another process sends has a limit; what this process passes to its own tools has none."""
    text = "x" * 1_100_000
    assert await pit.execute("measure", {"value": text}) == len(text)
    async with Client(pit.socket) as client:
        assert await client.execute("measure", {"value": text[:1_000_000]}) == 1_000_000
        with pytest.raises(ValueRefused, match=r"server\.limits\.authority_tool_bytes is 1048576"):
            await client.execute("measure", {"value": text})
        with pytest.raises(ValueRefused, match=r"server\.limits\.authority_tool_bytes is 1048576"):
            async for _ in client.stream("measure", {"value": text}):
                pass
        # Bytes are not read, so they may be more.
        assert await client.execute("measure", {"value": text.encode()}) == len(text)


async def test_what_cannot_be_read_has_a_status(pit: Snakepit) -> None:
    """A request that is no message, too large for its method, or empty ends with a status that says so."""
    async with aio.insecure_channel(str(pit.address)) as channel:
        for method, raw, code, why in (
            ("ExecuteTool", b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "cannot be read"),
            ("ExecuteStreamingTool", b"\x0a\xff", grpc.StatusCode.INVALID_ARGUMENT, "cannot be read"),
            ("ExecuteTool", b"", grpc.StatusCode.INVALID_ARGUMENT, "empty"),
            ("GetSession", bytes(2_000_000), grpc.StatusCode.RESOURCE_EXHAUSTED, r"GetSession is larger than max"),
            ("Ping", b"\x0a\xff", grpc.StatusCode.INVALID_ARGUMENT, "Ping cannot be read"),
        ):
            with pytest.raises(aio.AioRpcError, match=why) as raised:
                await channel.unary_unary(_CALL + method)(raw, timeout=30)
            assert raised.value.code() is code
