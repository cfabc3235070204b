"""Identifiers that cannot be are refused before anything keeps them, or records them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from snakepit_otel.bridge.authority import dispatcher as dispatcher_module
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.worker.elixir_sessions import ElixirSessions
from snakepit_otel.bridge.worker.telemetry_stream import TelemetryStream
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from tests.bridge.parts import Authority, authority, error_name

LONG = "x" * 200_000
LONGEST_ATTRIBUTE = 1_024
LONGEST_ERROR = 4_000


@pytest.fixture
async def ours(short_path: Path) -> AsyncIterator[Authority]:
    """An authority without workers."""
    async with authority(short_path) as served:
        yield served


CALLS: dict[str, Any] = {
    "heartbeat": lambda stub: stub.Heartbeat(pb.HeartbeatRequest(session_id=LONG)),
    "get": lambda stub: stub.GetSession(pb.GetSessionRequest(session_id=LONG)),
    "initialize": lambda stub: stub.InitializeSession(pb.InitializeSessionRequest(session_id=LONG)),
    "cleanup": lambda stub: stub.CleanupSession(pb.CleanupSessionRequest(session_id=LONG)),
    "register": lambda stub: stub.RegisterTools(pb.RegisterToolsRequest(session_id=LONG)),
    "control characters": lambda stub: stub.Heartbeat(pb.HeartbeatRequest(session_id="\x1b\n" * 100_000)),
    "execute": lambda stub: stub.ExecuteTool(pb.ExecuteToolRequest(session_id=LONG, tool_name="get_session_state")),
    "stream": lambda stub: stub.ExecuteStreamingTool(pb.ExecuteToolRequest(session_id=LONG, tool_name="t")).read(),
    "tool": lambda stub: stub.ExecuteTool(pb.ExecuteToolRequest(tool_name=LONG)),
    "pool": lambda stub: stub.ExecuteTool(pb.ExecuteToolRequest(tool_name="t", metadata={"snakepit_pool": LONG})),
    "call-back": lambda stub: stub.ExecuteElixirTool(
        pb.ExecuteElixirToolRequest(session_id=LONG, tool_name="get_session_state")
    ),
    "exposed tool": lambda stub: stub.ExecuteElixirTool(pb.ExecuteElixirToolRequest(tool_name=LONG)),
}


@pytest.mark.parametrize("call", list(CALLS))
async def test_what_is_refused_is_not_recorded(ours: Authority, capture: Capture, call: str) -> None:
    """Neither spans nor trails have a long identifier, errors repeat the beginning of it, and no session is made."""
    capture.clear()
    said = ""
    try:
        response = await CALLS[call](ours.stub)
        said = getattr(response, "error_message", "")
    except aio.AioRpcError as error:
        said = error.details() or ""
    assert len(said) < LONGEST_ERROR
    for span in capture.spans():
        assert names.SESSION_ID not in span.attributes
        assert all(len(str(value)) <= LONGEST_ATTRIBUTE for value in span.attributes.values())
    assert all(len(key) <= 256 for key in dispatcher_module._requests_of_session._last)
    assert ours.sessions.stats_snapshot().live == 0


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (pb.ExecuteToolRequest(session_id="a" * 257), "InvalidSession"),
        (pb.ExecuteToolRequest(session_id="a", tool_name="t" * 257), "ToolNotFound"),
        (pb.ExecuteToolRequest(tool_name="t", metadata={"k": "v" * (64 << 10)}), "ValueRefused"),
        (pb.ExecuteToolRequest(tool_name="t", metadata={str(n): "" for n in range(4_097)}), "ValueRefused"),
        (
            pb.ExecuteToolRequest(session_id="a" * 256, tool_name="t" * 256, metadata={"k": "v" * 60_000}),
            "PoolNotStarted",
        ),
    ],
    ids=["session", "tool", "metadata", "entries", "as long as can be"],
)
async def test_a_request_that_cannot_be_called_so(ours: Authority, request_: Any, name: str) -> None:
    """A request is refused by the limits of its identifiers, and at them it is not."""
    response = await ours.stub.ExecuteTool(request_)
    assert error_name(response.error_message) == name
    context = json.loads(response.error_message)["context"]
    assert all(len(str(value)) <= 256 for value in context.values())


def test_a_worker_remembers_no_long_session() -> None:
    """An authority of somebody else's may have ids of any length; long ones are used, and not remembered."""
    sessions = ElixirSessions(lambda _: None)
    sessions.begun("short")
    sessions.begun(LONG)
    assert list(sessions._sessions) == ["short"]


async def test_a_worker_keeps_no_large_event() -> None:
    """A tool's name and a correlation id are cut in events, and an event of more than 64 KiB is dropped."""
    stream = TelemetryStream()
    stream._listener = type("Listener", (), {"takes_events": True})()  # somebody who takes nothing
    with stream.tool_execution(LONG, {"correlation_id": LONG}):
        pass
    stream.emit("a.b", {}, {"text": LONG})
    assert (len(stream._buffer), stream.dropped) == (2, 1)
    assert all(event.ByteSize() < 1_000 for event in stream._buffer)
