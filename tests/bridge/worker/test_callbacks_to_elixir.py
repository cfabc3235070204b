"""Call-backs of our worker to an Elixir authority."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from opentelemetry import trace

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.methods import EXECUTE_TOOL, HEARTBEAT
from snakepit_otel.testing import Capture, tree
from tests.bridge.elixir import Elixir, Inspected
from tests.bridge.painting import Painting
from tests.bridge.parts import STRING, connected, error_name, raw, serving, worker
from tests.waiting import until

tracer = trace.get_tracer(__name__)


def refuse(**parameters: Any) -> None:
    """Refuse a call."""
    raise ValueError("not on a Sunday")


@pytest.fixture
async def elixir(short_path: Path) -> AsyncIterator[Elixir]:
    """An Elixir authority with tools."""
    peer = Elixir(double=lambda x: 2 * x, echo=lambda **parameters: parameters, refuse=refuse)
    async with serving(peer, f"unix:{short_path}/elixir"):
        yield peer


@pytest.fixture
async def stub(elixir: Elixir, short_path: Path) -> AsyncIterator[Any]:
    """Our worker, as the authority started it."""
    async with worker(Painting, f"unix:{short_path}/elixir", short_path) as called:
        yield called


@pytest.fixture
async def registering(elixir: Elixir, short_path: Path) -> AsyncIterator[Any]:
    """Our worker, told to register its tools."""
    async with worker(Painting, f"unix:{short_path}/elixir", short_path, register_tools=True) as called:
        yield called


def asking(tool: str, session_id: str = "alice", **parameters: Any) -> pb.ExecuteToolRequest:
    """Return a request as the authority makes it."""
    return pb.ExecuteToolRequest(session_id=session_id, tool_name=tool, parameters=raw(**parameters))


async def test_session_calls_are_passed_on(stub: Any, elixir: Elixir) -> None:
    """Sessions are the authority's affair: the worker passes such calls on, and the answers back."""
    started = await stub.InitializeSession(pb.InitializeSessionRequest(session_id="alice", metadata={"k": "v"}))
    assert started.success
    assert dict(elixir.last["InitializeSession"].metadata) == {"k": "v"}
    session = await stub.GetSession(pb.GetSessionRequest(session_id="alice"))
    assert (session.metadata["kept"], session.tool_count) == ("by elixir", 7)
    assert (await stub.Heartbeat(pb.HeartbeatRequest(session_id="alice"))).session_valid
    cleaned = await stub.CleanupSession(pb.CleanupSessionRequest(session_id="alice"))
    assert (cleaned.success, cleaned.resources_cleaned) == (True, 1)
    assert not (await stub.Heartbeat(pb.HeartbeatRequest(session_id="alice"))).session_valid


async def test_a_status_is_passed_on(stub: Any) -> None:
    """What the authority refuses, the worker refuses with the same status and words."""
    for method, request, code, words in (
        ("GetSession", pb.GetSessionRequest(session_id="bob"), grpc.StatusCode.NOT_FOUND, "Session not found: bob"),
        (
            "InitializeSession",
            pb.InitializeSessionRequest(session_id="refused"),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "session_quota_exceeded",
        ),
    ):
        with pytest.raises(aio.AioRpcError) as raised:
            await getattr(stub, method)(request)
        assert raised.value.code() is code
        assert raised.value.details() == words


async def test_an_authority_that_is_away(short_path: Path) -> None:
    """Without an authority session calls are UNAVAILABLE, call-backs an error of the tool, and tools run."""
    async with worker(Painting, f"unix:{short_path}/nowhere", short_path, register_tools=True) as stub:
        with pytest.raises(aio.AioRpcError) as raised:
            await stub.Heartbeat(pb.HeartbeatRequest(session_id="alice"))
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        for tool in ("call", "call_async"):
            response = await stub.ExecuteTool(asking(tool, tool_name="double"))
            described = json.loads(response.error_message)
            assert described["context"]["snakepit_error"] == "AuthorityUnavailable"
            assert f"the authority at unix:{short_path}/nowhere cannot be reached" in described["message"]
        assert (await stub.ExecuteTool(asking("add", a=1))).success


async def test_headers_of_a_session_are_passed_on(stub: Any, elixir: Elixir) -> None:
    """Who asks for a session, its owner and its TTL reach the authority through the worker."""
    headers = (
        ("x-snakepit-session-ttl", "60.0"),
        ("x-snakepit-session-owner", "alice"),
        ("x-snakepit-call-site", "app.py:7"),
        ("x-other", "stays"),
    )
    await stub.InitializeSession(pb.InitializeSessionRequest(session_id="alice"), metadata=headers)
    assert elixir.headers["InitializeSession"].items() >= dict(headers[:3]).items()
    assert "x-other" not in elixir.headers["InitializeSession"]


async def test_nothing_is_asked_before_a_tool_runs(stub: Any, elixir: Elixir) -> None:
    """A tool that asks nothing runs without a single call to the authority."""
    for _ in range(3):
        assert (await stub.ExecuteTool(asking("add", a=1))).success
    assert elixir.calls == []


async def test_tools_are_registered_once_for_each_session(registering: Any, elixir: Elixir) -> None:
    """In the background the session is made sure of and the adapter's tools registered, once."""
    for session_id in ("alice", "alice", "bob", "alice"):
        assert (await registering.ExecuteTool(asking("add", session_id, a=1))).success
    await until(lambda: set(elixir.registered) == {"alice", "bob"})
    assert elixir.calls.count("RegisterTools") == 2
    assert elixir.sessions == {"alice", "bob"}
    assert "add" in elixir.registered["alice"]
    request = elixir.last["RegisterTools"]
    assert request.worker_id == "worker-1"
    made = {registration.name: registration for registration in request.tools}["strokes"]
    assert (made.description, made.supports_streaming) == ("Stream the values.", True)
    assert [(spec.name, spec.type, spec.required) for spec in made.parameters] == [("values", "list[any]", True)]


async def test_a_session_begun_by_the_authority_is_registered_too(registering: Any, elixir: Elixir) -> None:
    """`InitializeSession` through the worker registers its tools, and after a clean-up a session begins anew."""
    for times in (1, 2):
        await registering.InitializeSession(pb.InitializeSessionRequest(session_id="alice"))
        await until(lambda times=times: elixir.calls.count("RegisterTools") == times)
        await until(lambda: "alice" in elixir.registered)
        await registering.CleanupSession(pb.CleanupSessionRequest(session_id="alice"))


async def test_tools_that_are_there_already_are_no_complaint(
    registering: Any, elixir: Elixir, caplog: pytest.LogCaptureFixture
) -> None:
    """`duplicate_tool` means that the tools are registered; nothing is logged."""
    elixir.sessions.add("alice")
    elixir.registered["alice"] = ["add"]
    with caplog.at_level(logging.WARNING, "snakepit_otel"):
        await registering.ExecuteTool(asking("add", a=1))
        await until(lambda: "RegisterTools" in elixir.calls)
        await registering.ExecuteTool(asking("add", a=1))
    assert caplog.text == ""


async def test_a_registration_that_failed_is_tried_again(registering: Any, elixir: Elixir) -> None:
    """What the authority could not be told at a session's first request, it is told at a later one."""
    async with asyncio.timeout(10):
        while elixir.calls.count("InitializeSession") < 2:
            assert (await registering.ExecuteTool(asking("add", "refused", a=1))).success
    assert "RegisterTools" not in elixir.calls


@pytest.mark.parametrize("tool", ["call", "call_async"])
async def test_call_backs_carry_raw_json(stub: Any, elixir: Elixir, tool: str) -> None:
    """A call-back sends raw JSON under StringValue, with the session, and takes the same back."""
    values = {"text": "hey", "n": 7, "none": None, "deep": {"list": [1.5, True]}}
    response = await stub.ExecuteTool(asking(tool, tool_name="echo", parameters=values))
    assert json.loads(response.result.value) == values
    request = elixir.last["ExecuteElixirTool"]
    assert (request.session_id, request.tool_name) == ("alice", "echo")
    assert {message.type_url for message in request.parameters.values()} == {STRING}
    assert request.parameters["text"].value == b'"hey"'


@pytest.mark.parametrize("tool", ["call", "call_async"])
async def test_call_backs_carry_the_trace(
    stub: Any, elixir: Elixir, capture: Capture, short_path: Path, tool: str
) -> None:
    """A call-back has the caller's trace in its headers, and its span is inside the tool's."""
    with tracer.start_as_current_span("caller") as caller:
        async with connected(f"unix:{short_path}/worker") as connection:
            await connection.call(EXECUTE_TOOL, asking(tool, tool_name="double", parameters={"x": 2}))
    trace_id = f"{caller.get_span_context().trace_id:032x}"
    spans = capture.spans()
    (last,) = [span for span in spans if span.name.endswith("/ExecuteElixirTool")]
    assert elixir.headers["ExecuteElixirTool"]["traceparent"].startswith(f"00-{trace_id}-{last.span_id}-")
    assert {span.trace_id for span in spans} == {trace_id}
    assert (
        tree(spans)
        == """\
caller
  snakepit.bridge.BridgeService/ExecuteTool
    snakepit.bridge.BridgeService/ExecuteTool
      handle request
        build adapter
        initialize adapter
        execute tool
          call authority
            snakepit.bridge.BridgeService/ExecuteElixirTool
        clean up adapter"""
    )


async def test_calls_passed_on_carry_the_trace(stub: Any, elixir: Elixir, capture: Capture, short_path: Path) -> None:
    """A session call that the worker passes on stays in its caller's trace."""
    with tracer.start_as_current_span("caller") as caller:
        async with connected(f"unix:{short_path}/worker") as connection:
            await connection.call(HEARTBEAT, pb.HeartbeatRequest(session_id="alice"))
    assert f"{caller.get_span_context().trace_id:032x}" in elixir.headers["Heartbeat"]["traceparent"]
    heartbeat = "snakepit.bridge.BridgeService/Heartbeat"
    assert tree(capture.spans()) == f"caller\n  {heartbeat}\n    {heartbeat}\n      {heartbeat}"


async def test_what_elixir_refuses_is_an_error_in_the_tool(stub: Any) -> None:
    """The authority's plain words reach the caller as the message."""
    for name, words in (("nothing", "Tool nothing not found"), ("refuse", "not on a Sunday")):
        response = await stub.ExecuteTool(asking("call", tool_name=name))
        described = json.loads(response.error_message)
        assert (described["type"], described["message"]) == ("Error", words)


@pytest.mark.parametrize("tool", ["call", "call_async"])
@pytest.mark.parametrize("term", ["{:ok, 1}", "[a: 1]", '%{"a" => {1, 2}}', ":atom", "#PID<0.1.0>", "<<255>>", "{1}"])
async def test_a_result_without_json(stub: Any, elixir: Elixir, tool: str, term: str) -> None:
    """A tuple, or what else Elixir can only print, is refused by the tool's name and the term."""
    elixir.add("paint", lambda: Inspected(term))
    response = await stub.ExecuteTool(asking(tool, tool_name="paint"))
    assert error_name(response.error_message) == "ValueRefused"
    message = json.loads(response.error_message)["message"]
    assert f"tool 'paint' returned what has no JSON, and Elixir sent it as it prints it: {term!r}" in message
    assert "no tuple, such as {:ok, value}" in message


@pytest.mark.parametrize("tool", ["send_bytes", "send_bytes_async"])
async def test_bytes_are_not_for_call_backs(stub: Any, elixir: Elixir, tool: str) -> None:
    """There is no field for bytes in a call-back, and the tool is told so."""
    described = json.loads((await stub.ExecuteTool(asking(tool))).error_message)
    assert described["context"]["snakepit_error"] == "ValueRefused"
    assert described["message"] == "bytes cannot be passed to the authority's tool 'echo': data"
    assert elixir.calls == []


async def test_the_tools_of_elixir_are_listed(stub: Any) -> None:
    """`elixir_tools` has what the authority exposes, with descriptions and parameters."""
    known = json.loads((await stub.ExecuteTool(asking("known"))).result.value)
    assert known["double"] == {"name": "double", "description": "In Elixir.", "parameters": {"x": "integer"}}
