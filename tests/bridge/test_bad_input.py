"""Bad input of peers: each is refused with a text that helps, and the server goes on."""

from __future__ import annotations

import json
import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from grpc import aio

from snakepit_otel import Client, SessionStore
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.common.json_keys import ZERO_COPY
from snakepit_otel.errors import (
    InvalidSession,
    MessageTooLarge,
    ReferenceRefused,
    StateRefused,
    ToolError,
    ValueRefused,
)
from tests.bridge.painting import Painting
from tests.bridge.parts import MAX_MESSAGE_BYTES, STRING, Authority, authority, error_name, raw
from tests.waiting import until


class Explosive:
    def __reduce__(self) -> Any:
        return pytest.fail, ("it was unpickled",)


@pytest.fixture
async def ours(short_path: Path) -> AsyncIterator[Authority]:
    """An authority with one worker, small messages and small sessions; it serves on after the test."""
    sessions = SessionStore(max_session_bytes=1_000)
    async with authority(short_path, Painting, sessions=sessions) as served:
        yield served
        response = await served.stub.ExecuteTool(asking("add", a=1))
        assert response.success, response.error_message


@pytest.fixture
async def client(ours: Authority) -> AsyncIterator[Client]:
    """Our own client, which would send anything."""
    async with Client(ours.address) as connected:
        yield connected


def asking(tool: str, session_id: str = "alice", **parameters: Any) -> pb.ExecuteToolRequest:
    """Return a request."""
    return pb.ExecuteToolRequest(session_id=session_id, tool_name=tool, parameters=raw(**parameters))


async def failure(ours: Authority, request: pb.ExecuteToolRequest) -> tuple[str, str]:
    """Return the type and the message of a call that failed, having seen that a stream fails alike."""
    response = await ours.stub.ExecuteTool(request)
    assert not response.success
    name = error_name(response.error_message)
    with pytest.raises(aio.AioRpcError) as raised:
        await ours.stub.ExecuteStreamingTool(request).read()
    assert error_name(raised.value.details() or "") == name
    return name, json.loads(response.error_message)["message"]


@pytest.mark.parametrize(
    ("session_id", "words"),
    [
        ("a" * 257, "has 257 bytes; at most 256 are allowed"),
        ("é" * 129, "has 258 bytes; at most 256"),
        ("a\nb", "contains a control character"),
        ("\x00", "contains a control character"),
        ("a\x85", "contains a control character"),
        ("\u2028", "contains a control character"),
    ],
    ids=ascii,
)
async def test_session_ids(ours: Authority, client: Client, session_id: str, words: str) -> None:
    """An id that cannot be is refused everywhere, with what is wrong with it."""
    kind, message = await failure(ours, asking("add", session_id, a=1))
    assert kind == "InvalidSession"
    assert words in message
    for call in (client.create_session(session_id), client.delete_session(session_id)):
        with pytest.raises(InvalidSession, match=words):
            await call
    with pytest.raises(aio.AioRpcError) as raised:
        await ours.stub.GetSession(pb.GetSessionRequest(session_id=session_id))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not await client.heartbeat(session_id)


async def test_no_session_id(ours: Authority, client: Client) -> None:
    """A session without id is refused; a request without one belongs to none, and its state says so."""
    for call in (client.create_session(""), client.delete_session("")):
        with pytest.raises(InvalidSession, match="must not be empty"):
            await call
    response = await ours.stub.ExecuteTool(asking("count", ""))
    assert "belongs to no session and has no state" in json.loads(response.error_message)["message"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (AnyMessage(type_url=STRING, value=b"{"), "parameter 'value' is malformed: not JSON under 'StringValue'"),
        (AnyMessage(type_url=STRING, value=b"\x0a\xff"), "parameter 'value' is malformed: not a StringValue"),
        (AnyMessage(type_url="type.googleapis.com/other.Type"), "which the bridge does not know"),
        (AnyMessage(), "has the type '', which the bridge does not know"),
        (
            AnyMessage(type_url="type.googleapis.com/snakepit.tensor.binary", value=pickle.dumps(Explosive())),
            "parameter 'value' is pickled .*unpickling what a peer sent would run its code; send JSON, raw bytes",
        ),
    ],
    ids=["json", "string", "unknown", "none", "pickle"],
)
async def test_parameters(ours: Authority, message: AnyMessage, words: str) -> None:
    """A parameter that cannot be read is refused by name."""
    request = pb.ExecuteToolRequest(tool_name="echo", parameters={"value": message})
    kind, said = await failure(ours, request)
    assert kind == "ValueRefused"
    assert pytest.raises(ValueRefused, match=words).matches(ValueRefused(said))


async def test_a_pickled_binary_parameter(ours: Authority) -> None:
    """Upstream's pickled tensors are refused by name and never opened."""
    request = pb.ExecuteToolRequest(
        tool_name="length",
        binary_parameters={"data": pickle.dumps(Explosive())},
        metadata={"binary_format:data": "pickle"},
    )
    kind, said = await failure(ours, request)
    assert kind == "ValueRefused"
    assert "parameter 'data' is pickled; unpickling what a peer sent would run its code" in said


async def test_an_unknown_tool(ours: Authority) -> None:
    """A tool that nothing has is answered with those that the adapter has."""
    kind, said = await failure(ours, asking("pant"))
    assert kind == "ToolNotFound"
    assert "has no tool 'pant'; it has add, block, bulk, call" in said


async def test_an_unknown_tool_of_endless_name(ours: Authority) -> None:
    """A name of many kilobytes does not come back whole."""
    kind, _ = await failure(ours, asking("x" * 100_000))
    assert kind == "ToolNotFound"


async def test_a_message_over_the_limit(ours: Authority, client: Client) -> None:
    """A request, a result and a chunk that are too large are told as such, and by which side."""
    large = "x" * (MAX_MESSAGE_BYTES + 1)
    with pytest.raises(MessageTooLarge, match=r"over the limit: .*larger than max \(\d+ vs\. 1048576\)"):
        await client.execute("echo", {"value": large})
    for size in (MAX_MESSAGE_BYTES, 3 * MAX_MESSAGE_BYTES):
        with pytest.raises(MessageTooLarge, match=r"over the limit: .*larger than max"):
            await client.execute("bulk", {"size": size})
        with pytest.raises(MessageTooLarge, match=r"over the limit: .*larger than max"):
            _ = [chunk async for chunk in client.stream("bulk", {"size": size})]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "k",
            {"tensor": {ZERO_COPY: True, "ref": "r"}},
            "zero-copy reference, which is valid within one request only",
        ),
        ("k", "x" * 2_000, "would take session 'alice' to .* bytes; max_session_bytes is 1000"),
        ("", 1, "a state key is non-empty text"),
        ("k" * 300, 1, "is longer than 256 bytes"),
    ],
    ids=["reference", "budget", "empty key", "long key"],
)
async def test_state_through_a_call_back(client: Client, ours: Authority, key: str, value: Any, words: str) -> None:
    """State that may not be kept is refused by name, whether the worker or the authority sees it."""
    if ZERO_COPY in str(value):
        # Made by hand, it does not even get to the tool.
        with pytest.raises(ReferenceRefused, match="ref of a reference is 'r'"):
            await client.execute("keep", {"key": key, "value": value}, session_id="alice")
    else:
        with pytest.raises(StateRefused, match=words):
            await client.execute("keep", {"key": key, "value": value}, session_id="alice")
    request = pb.ExecuteElixirToolRequest(
        session_id="alice", tool_name="set_session_state", parameters=raw(key=key, value=value)
    )
    response = await ours.stub.ExecuteElixirTool(request)
    assert error_name(response.error_message) == "StateRefused"
    assert await ours.sessions.list_state("alice") == {}


async def test_state_that_is_not_json(client: Client) -> None:
    """Bytes in state are refused where the tool writes them."""
    with pytest.raises(StateRefused, match=r"is a builtins\.bytes; state holds JSON only"):
        await client.execute("keep", {"key": "k", "value": b"\x00"}, session_id="alice")


async def test_a_stream_left_half_way(ours: Authority) -> None:
    """A client that goes in the middle of a stream ends the tool, through both servers."""
    call = ours.stub.ExecuteStreamingTool(asking("endless"))
    for number in range(3):
        assert json.loads((await call.read()).data) == number
    call.cancel()
    await until(Painting.closed.is_set)


async def test_a_deadline_that_passes(ours: Authority) -> None:
    """A call whose deadline passes is DEADLINE_EXCEEDED, and its coroutine is cancelled in the worker."""
    while not Painting.started.is_set():
        call = ours.stub.ExecuteTool(asking("wait"), timeout=0.2)
        if await call.code() is grpc.StatusCode.OK:
            # The authority's own answer was a moment earlier.
            assert "DeadlineExceeded" in (await call).error_message
        else:
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(Painting.closed.is_set)


async def test_bytes_that_are_no_message(ours: Authority, short_path: Path) -> None:
    """Bytes that no message begins with are their caller's mistake, and harm nobody."""
    async with aio.insecure_channel(ours.address) as channel:
        call = channel.unary_unary("/snakepit.bridge.BridgeService/ExecuteTool")
        with pytest.raises(aio.AioRpcError) as raised:
            await call(b"\xff\xff\xff")
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_method_that_is_not_there(ours: Authority) -> None:
    """A method that the service does not have is UNIMPLEMENTED."""
    async with aio.insecure_channel(ours.address) as channel:
        with pytest.raises(aio.AioRpcError) as raised:
            await channel.unary_unary("/snakepit.bridge.BridgeService/Nothing")(b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_ttl_that_is_none(ours: Authority) -> None:
    """A TTL header that is no number of seconds is refused by name."""
    request = pb.InitializeSessionRequest(session_id="alice")
    for text in ("soon", "nan", "-1", "1e99"):
        with pytest.raises(aio.AioRpcError) as raised:
            await ours.stub.InitializeSession(request, metadata=(("x-snakepit-session-ttl", text),))
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "ttl" in (raised.value.details() or "")


async def test_the_tool_error_of_a_huge_message(client: Client) -> None:
    """An error of a megabyte reaches the caller in part, for a call and for a stream."""
    with pytest.raises(ToolError) as called:
        await client.execute("fail", {"message": "x" * 900_000})
    with pytest.raises(ToolError) as streamed:
        _ = [chunk async for chunk in client.stream("drip", {"after": 0, "message": "x" * 900_000})]
    for error in (called.value, streamed.value):
        assert error.type == "ValueError"
        assert 1_000 < len(error.message) < 20_000
