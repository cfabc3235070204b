"""Our authority, with a worker of ours behind it, under plain gRPC clients and our own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from opentelemetry import trace

from snakepit_otel import AuthorityContext, Client, SessionStore, ToolError, authority_tool
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.methods import EXECUTE_TOOL
from snakepit_otel.errors import (
    AuthorityUnavailable,
    DeadlineExceeded,
    InvalidArguments,
    InvalidSession,
    PoolNotStarted,
    SessionQuotaExceeded,
    ToolNotFound,
)
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture, tree
from tests.bridge.painting import Painting
from tests.bridge.parts import Authority, authority, connected, raw
from tests.waiting import until

tracer = trace.get_tracer(__name__)
BRIDGE = "snakepit.bridge.BridgeService"


@authority_tool(exposed=False)
def secret(context: AuthorityContext, n: int) -> str:
    """For callers, not for adapters."""
    return f"secret {n} of {context.session_id}"


@pytest.fixture
async def ours(short_path: Path) -> AsyncIterator[Authority]:
    """Our authority, with one worker."""
    sessions = SessionStore(default_ttl=60, max_sessions=3)
    async with authority(short_path, Painting, sessions=sessions, tools=(secret,)) as served:
        yield served


@pytest.fixture
async def client(ours: Authority) -> AsyncIterator[Client]:
    """Our own client."""
    async with Client(ours.address) as connected:
        yield connected


def asking(tool: str, session_id: str = "alice", **parameters: Any) -> pb.ExecuteToolRequest:
    """Return a request as any gRPC client may make it."""
    return pb.ExecuteToolRequest(session_id=session_id, tool_name=tool, parameters=raw(**parameters))


async def test_a_plain_client_creates_a_session_and_executes(ours: Authority) -> None:
    """Any gRPC client begins a session, runs tools that remember in it, and ends it."""
    assert (await ours.stub.InitializeSession(pb.InitializeSessionRequest(session_id="alice"))).success
    for total in (2, 4):
        response = await ours.stub.ExecuteTool(asking("count", by=2))
        assert response.success, response.error_message
        assert json.loads(response.result.value) == total
    session = await ours.sessions.get("alice")
    assert session.last_worker_id == "worker-1"
    assert (await ours.stub.CleanupSession(pb.CleanupSessionRequest(session_id="alice"))).success
    assert json.loads((await ours.stub.ExecuteTool(asking("count", by=2))).result.value) == 2


async def test_a_request_begins_its_session(ours: Authority) -> None:
    """A request that names a session which is not live creates it; one that names none has none."""
    await ours.stub.ExecuteTool(asking("echo", "new", value=1))
    assert await ours.sessions.exists("new")
    await ours.stub.ExecuteTool(asking("echo", "", value=1))
    assert (await ours.sessions.stats()).created == 1


async def test_a_plain_client_streams(ours: Authority) -> None:
    """Chunks pass through the authority as the worker sent them."""
    call = ours.stub.ExecuteStreamingTool(asking("strokes", values=[1, "text"]))
    received = [(chunk.chunk_id, chunk.data, chunk.is_final) async for chunk in call]
    assert received == [("strokes-1", b"1", False), ("strokes-2", b"text", False), ("strokes-3", b"", True)]


async def test_tools_of_the_authority_itself(ours: Authority, client: Client) -> None:
    """A caller may run the authority's own tools, exposed to adapters or not; an adapter only what is."""
    assert await client.execute("secret", {"n": 7}, session_id="alice") == "secret 7 of alice"
    with pytest.raises(InvalidArguments, match="secret: argument 'n' is missing"):
        await client.execute("secret")
    with pytest.raises(ToolNotFound, match="'secret' is not exposed"):
        await client.execute("call", {"tool_name": "secret"}, session_id="alice")


async def test_our_client_executes(client: Client, ours: Authority) -> None:
    """Values and bytes go there and back as they are; state is kept between calls."""
    for value in (None, 2**70, "text", [1, {"a": None}], b"\x00\xff"):
        assert await client.execute("echo", {"value": value}) == value
    assert await client.execute("picture") == b"\x89PNG"
    assert [await client.execute("count", session_id="alice") for _ in range(2)] == [1, 2]


async def test_our_client_streams(client: Client) -> None:
    """Chunks come as what the tool made of them: text stays text, bytes bytes, numbers numbers."""
    values = [1, "1", "null", "", {"a": 1}, None, "text"]
    assert [chunk async for chunk in client.stream("strokes", {"values": values})] == values
    assert [chunk async for chunk in client.stream("picture")] == [b"\x89PNG"]


async def test_our_client_leaves_a_stream(client: Client) -> None:
    """A stream that is left is closed in the worker by the time it is left."""
    async with aclosing(client.stream("endless")) as stream:
        async for chunk in stream:
            if chunk == 3:
                break
    await until(Painting.closed.is_set)
    assert await client.execute("add", {"a": 1}) == 2


async def test_our_client_keeps_sessions(client: Client, ours: Authority) -> None:
    """TTL, metadata, owner and the place that asked reach the authority; heartbeats and deletion work."""
    await client.create_session("alice", ttl=5, metadata={"k": "v"}, owner="team")
    session = await ours.sessions.get("alice")
    assert (session.ttl, session.metadata, session.owner) == (5.0, {"k": "v"}, "team")
    assert await client.heartbeat("alice")
    await client.delete_session("alice")
    await client.delete_session("alice")
    assert not await client.heartbeat("alice")


async def test_our_client_tells_what_was_wrong(client: Client) -> None:
    """What is refused comes back as the error it is."""
    with pytest.raises(ToolError, match="ValueError: no paint") as failed:
        await client.execute("fail")
    assert "in fail" in failed.value.traceback
    with pytest.raises(ToolNotFound, match="has no tool 'pant'"):
        await client.execute("pant")
    with pytest.raises(ToolError, match="ValueError: broke") as failed:
        _ = [chunk async for chunk in client.stream("drip", {"after": 1, "message": "broke"})]
    assert failed.value.context["phase"] == "execute"
    with pytest.raises(InvalidSession, match="must not be empty"):
        await client.create_session("")
    with pytest.raises(InvalidSession, match="ttl is 0; it must be above 0"):
        await client.create_session("alice", ttl=0)
    for name in "abc":
        await client.create_session(name)
    with pytest.raises(SessionQuotaExceeded, match="3 sessions are live"):
        await client.create_session("d")
    with pytest.raises(SessionQuotaExceeded, match="3 sessions are live"):
        await client.execute("add", {"a": 1}, session_id="d")


async def test_a_deadline_of_our_client(client: Client) -> None:
    """A call that takes longer than its timeout fails as such, and the tool is cancelled."""
    # Where the machine is so busy that the tool has not begun in time, once more.
    while not Painting.started.is_set():
        with pytest.raises(DeadlineExceeded, match="did not answer in time"):
            await client.execute("wait", timeout=0.2)
    await until(Painting.closed.is_set)


async def test_nobody_there(short_path: Path) -> None:
    """Where nobody answers, the error names the address."""
    async with Client(f"unix:{short_path}/nowhere") as client:
        with pytest.raises(AuthorityUnavailable, match=f"unix:{short_path}/nowhere cannot be reached"):
            await client.ping()


async def test_no_workers(short_path: Path) -> None:
    """An authority without workers says so, to calls and to streams."""
    async with authority(short_path) as served, Client(served.address) as client:
        with pytest.raises(PoolNotStarted, match="there are no workers"):
            await client.execute("add")
        with pytest.raises(PoolNotStarted, match="there are no workers"):
            _ = [chunk async for chunk in client.stream("add")]
        with pytest.raises(aio.AioRpcError) as raised:
            await served.stub.ExecuteStreamingTool(asking("add")).read()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


TREE = f"""\
caller
  {BRIDGE}/ExecuteTool
    {BRIDGE}/ExecuteTool
      execute request
        create session
        {BRIDGE}/ExecuteTool
          {BRIDGE}/ExecuteTool
            handle request
              build adapter
              initialize adapter
              execute tool
                call authority
                  {BRIDGE}/ExecuteElixirTool
                    {BRIDGE}/ExecuteElixirTool
                      access session
                call authority
                  {BRIDGE}/ExecuteElixirTool
                    {BRIDGE}/ExecuteElixirTool
                      update session
              clean up adapter"""


async def test_one_trace_from_the_caller_to_the_call_back(ours: Authority, capture: Capture) -> None:
    """A caller's trace goes on through authority, worker, thread and call-back, as one tree."""
    with tracer.start_as_current_span("caller"):
        async with connected(ours.address) as connection:
            await connection.call(EXECUTE_TOOL, asking("count"))
    spans = capture.spans()
    assert tree(spans) == TREE
    assert len({span.trace_id for span in spans}) == 1
    assert all(span.ok for span in spans)


async def test_a_stream_is_one_trace_too(client: Client, capture: Capture) -> None:
    """A stream's spans are one tree, and none is current in its consumer between chunks."""
    with tracer.start_as_current_span("caller") as caller:
        async for _ in client.stream("strokes_async", {"values": [1, 2]}):
            assert trace.get_current_span() is caller
    await until(lambda: len(capture.spans(f"{BRIDGE}/ExecuteStreamingTool")) == 4)
    spans = capture.spans()
    assert len({span.trace_id for span in spans}) == 1
    (root,) = [span for span in spans if span.parent_id is None]
    assert root.name == "caller"
    assert [span for span in spans if not span.ok] == []


async def test_requests_of_one_session_are_different_traces(client: Client, capture: Capture) -> None:
    """Each request is a trace of its own."""
    for _ in range(2):
        await client.execute("add", {"a": 1}, session_id="alice")
    handled = capture.spans("handle request")
    assert len({span.trace_id for span in handled}) == 2
    assert {span.attributes[names.SESSION_ID] for span in handled} == {"alice"}


async def test_calls_at_once_do_not_mix(client: Client) -> None:
    """Many calls at once each get their own answer."""
    results = await asyncio.gather(*(client.execute("add", {"a": n}) for n in range(50)))
    assert results == [n + 1 for n in range(50)]
