"""Our authority under workers that we did not write: upstream's Python worker, as the wire page has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.wrappers_pb2 import StringValue
from grpc import aio

from snakepit_otel import AuthorityContext, authority_tool
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.sessions import SessionStore
from snakepit_otel.testing import FakeClock
from tests.bridge.parts import STRING, VALUE, Authority, authority, error_name


@authority_tool
def greet(context: AuthorityContext, name: str, times: int = 1) -> str:
    """Greet somebody."""
    return " ".join([f"hello {name}"] * times)


@authority_tool
def blob(context: AuthorityContext) -> bytes:
    """Return bytes."""
    return b"\x00"


@authority_tool
def vector(context: AuthorityContext, length: int) -> Any:
    """Return an array."""
    return np.arange(length)


@authority_tool(exposed=False)
async def hidden(context: AuthorityContext) -> str:
    """Not for adapters."""
    return "hidden"


@pytest.fixture
async def ours(short_path: Path, clock: FakeClock) -> AsyncIterator[Authority]:
    """Our authority, with tools of its own and a clock that stands still."""
    sessions = SessionStore(clock=clock, default_ttl=60, max_sessions=3)
    async with authority(short_path, sessions=sessions, tools=(greet, blob, vector, hidden)) as served:
        yield served


def upstream(**parameters: Any) -> dict[str, AnyMessage]:
    """Return parameters as upstream's worker sends them: numbers as JSON under Value, the rest as StringValue."""
    sent = {}
    for name, value in parameters.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            sent[name] = AnyMessage(type_url=VALUE, value=json.dumps(value).encode())
        else:
            sent[name] = AnyMessage()
            sent[name].Pack(StringValue(value=str(value)))
    return sent


async def call(ours: Authority, tool: str, session_id: str = "alice", **parameters: Any) -> Any:
    """Call a tool of the authority as upstream's worker does."""
    request = pb.ExecuteElixirToolRequest(session_id=session_id, tool_name=tool, parameters=upstream(**parameters))
    return await ours.stub.ExecuteElixirTool(request)


async def refusal(method: Any, request: Any) -> aio.AioRpcError:
    """Return how a call was refused."""
    with pytest.raises(aio.AioRpcError) as raised:
        await method(request)
    return raised.value


async def test_ping(ours: Authority) -> None:
    """A worker that waits for its authority gets an answer."""
    response = await ours.stub.Ping(pb.PingRequest(message="connection_test"))
    assert "connection_test" in response.message
    assert response.server_time.seconds > 1_700_000_000


async def test_initialize_session_is_idempotent(ours: Authority) -> None:
    """A live session is returned as it is: created once, with its first metadata, and told the same tools."""
    for metadata in ({"first": "yes"}, {"second": "yes"}):
        request = pb.InitializeSessionRequest(session_id="alice", metadata=metadata)
        response = await ours.stub.InitializeSession(request)
        assert response.success
        assert "get_session_state" in response.available_tools
        assert "hidden" not in response.available_tools
    assert (await ours.sessions.get("alice")).metadata == {"first": "yes"}
    assert (await ours.sessions.stats()).created == 1


async def test_initialize_session_is_safe_at_once(ours: Authority) -> None:
    """Many workers that begin one session at once all succeed, and there is one."""
    request = pb.InitializeSessionRequest(session_id="alice")
    responses = await asyncio.gather(*(ours.stub.InitializeSession(request) for _ in range(50)))
    assert all(response.success for response in responses)
    assert (await ours.sessions.stats()).created == 1


async def test_the_quota_is_a_status(ours: Authority) -> None:
    """At the quota a new session is RESOURCE_EXHAUSTED, in the wire's word; a live one is not."""
    for name in ("a", "b", "c"):
        await ours.stub.InitializeSession(pb.InitializeSessionRequest(session_id=name))
    refused = await refusal(ours.stub.InitializeSession, pb.InitializeSessionRequest(session_id="d"))
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (refused.details() or "").startswith("session_quota_exceeded: ")
    assert (await ours.stub.InitializeSession(pb.InitializeSessionRequest(session_id="a"))).success


async def test_get_session(ours: Authority) -> None:
    """A live session is told with metadata, age and the tools workers brought; any other is NOT_FOUND."""
    await ours.sessions.create("alice", metadata={"k": "v"})
    tools = [pb.ToolRegistration(name=name) for name in ("paint", "draw")]
    await ours.stub.RegisterTools(pb.RegisterToolsRequest(session_id="alice", tools=tools))
    response = await ours.stub.GetSession(pb.GetSessionRequest(session_id="alice"))
    assert (response.session_id, dict(response.metadata), response.tool_count) == ("alice", {"k": "v"}, 2)
    assert response.created_at.seconds == 1_700_000_000
    refused = await refusal(ours.stub.GetSession, pb.GetSessionRequest(session_id="bob"))
    assert refused.code() is grpc.StatusCode.NOT_FOUND
    assert "not_found: session 'bob' not found" in (refused.details() or "")


async def test_heartbeats_touch(ours: Authority, clock: FakeClock) -> None:
    """A heartbeat keeps a session alive past its TTL, and tells when it is not; an expired one is gone at once."""
    await ours.sessions.create("alice")
    request = pb.HeartbeatRequest(session_id="alice")
    for _ in range(3):
        clock.advance(59)
        assert (await ours.stub.Heartbeat(request)).session_valid
    clock.advance(60)
    assert not (await ours.stub.Heartbeat(request)).session_valid
    assert not (await ours.stub.Heartbeat(pb.HeartbeatRequest(session_id=""))).session_valid
    assert (await refusal(ours.stub.GetSession, pb.GetSessionRequest(session_id="alice"))).code().name == "NOT_FOUND"


async def test_cleanup_session_is_idempotent(ours: Authority) -> None:
    """A session is deleted, and one that is not there is as good as deleted; what workers brought goes too."""
    await ours.sessions.create("alice")
    tools = [pb.ToolRegistration(name="paint")]
    assert (await ours.stub.RegisterTools(pb.RegisterToolsRequest(session_id="alice", tools=tools))).success
    for _ in range(2):
        response = await ours.stub.CleanupSession(pb.CleanupSessionRequest(session_id="alice"))
        assert (response.success, response.resources_cleaned) == (True, 1)
    assert not await ours.sessions.exists("alice")
    await ours.sessions.create("alice")
    assert (await ours.stub.GetSession(pb.GetSessionRequest(session_id="alice"))).tool_count == 0


async def test_register_tools(ours: Authority) -> None:
    """Tools are registered once for a session; again is `duplicate_tool`, which upstream takes for done."""
    await ours.sessions.create("alice")
    request = pb.RegisterToolsRequest(
        session_id="alice", worker_id="w", tools=[pb.ToolRegistration(name="paint"), pb.ToolRegistration(name="draw")]
    )
    first = await ours.stub.RegisterTools(request)
    assert first.success
    assert set(first.tool_ids) == {"paint", "draw"}
    again = await ours.stub.RegisterTools(request)
    assert not again.success
    assert "duplicate_tool" in again.error_message


@pytest.mark.parametrize(
    ("session_id", "name", "words"),
    [("bob", "paint", "not_found"), ("alice", "no good", "tool name 'no good' is refused"), ("", "paint", "empty")],
)
async def test_a_registration_that_is_refused(ours: Authority, session_id: str, name: str, words: str) -> None:
    """A session that is not live, a bad name and no session are told in the response."""
    await ours.sessions.create("alice")
    tools = [pb.ToolRegistration(name=name)]
    response = await ours.stub.RegisterTools(pb.RegisterToolsRequest(session_id=session_id, tools=tools))
    assert not response.success
    assert words in response.error_message


async def test_exposed_tools_are_listed(ours: Authority) -> None:
    """A worker learns what it may call, with parameters; the guide's tools are among it, hidden ones are not."""
    response = await ours.stub.GetExposedElixirTools(pb.GetExposedElixirToolsRequest(session_id="alice"))
    known = {spec.name: spec for spec in response.tools}
    assert {"get_session_state", "set_session_state", "greet"} < set(known)
    assert "hidden" not in known
    assert [(spec.name, spec.type, spec.required) for spec in known["greet"].parameters] == [
        ("name", "str", True),
        ("times", "int", False),
    ]


async def test_the_guides_tools_from_upstream(ours: Authority) -> None:
    """State set by upstream's worker is read back by it, as raw JSON under StringValue."""
    await ours.sessions.create("alice")
    for value in ("text", "", "123456789", '{"looks": "like json"}', 7, 1.5):
        written = await call(ours, "set_session_state", key="my_state", value=value)
        assert written.success, written.error_message
        assert written.result.type_url == STRING
        read = await call(ours, "get_session_state", key="my_state")
        assert json.loads(read.result.value) == value
        assert await ours.sessions.get_state("alice", "my_state") == value
    missing = await call(ours, "get_session_state", key="other")
    assert json.loads(missing.result.value) is None


async def test_a_tool_of_our_own(ours: Authority) -> None:
    """Values arrive typed and results leave as JSON or, where they are bytes, beside it."""
    response = await call(ours, "greet", name="alice", times=2)
    assert json.loads(response.result.value) == "hello alice hello alice"
    assert response.execution_time_ms >= 0
    assert (await call(ours, "blob")).binary_result == b"\x00"


@pytest.mark.parametrize(
    ("tool", "session_id", "parameters", "kind", "words"),
    [
        ("nothing", "alice", {}, "ToolNotFound", "the authority has no tool 'nothing'; adapters may call"),
        ("hidden", "alice", {}, "ToolNotFound", "'hidden' is not exposed to adapters"),
        ("greet", "alice", {}, "InvalidArguments", "argument 'name' is missing"),
        ("greet", "alice", {"name": "x", "times": "2"}, "InvalidArguments", "'times': input should be a valid integer"),
        ("get_session_state", "bob", {"key": "k"}, "SessionNotFound", "session 'bob' not found"),
        ("get_session_state", "", {"key": "k"}, "NoSession", "belongs to no session"),
        ("set_session_state", "alice", {"key": "", "value": 1}, "StateRefused", "key is non-empty text"),
    ],
)
async def test_a_call_that_fails_is_an_answer(
    ours: Authority, tool: str, session_id: str, parameters: dict[str, Any], kind: str, words: str
) -> None:
    """What a worker may not call, or calls wrongly, is told in the response as JSON."""
    await ours.sessions.create("alice")
    response = await call(ours, tool, session_id, **parameters)
    assert not response.success
    described = json.loads(response.error_message)
    assert error_name(response.error_message) == kind
    assert words in described["message"]
    assert described["context"]["tool_name"] == tool


@pytest.mark.parametrize("length", [3, 10_000])
async def test_arrays_for_workers_without_references(ours: Authority, length: int) -> None:
    """A worker that knows nothing of requests gets an array as a list, however long."""
    response = await call(ours, "vector", length=length)
    assert response.success
    assert json.loads(response.result.value) == list(range(length))
