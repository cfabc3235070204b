"""Behaviour of upstream's workers: tested on the double always, and on the real ones if there is a checkout."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from tests.instrumentation.conftest import Notes, Snakepit
from tests.instrumentation.elixir import CORRELATION, ElixirSnakepit
from tests.instrumentation.upstream import DOUBLE, PROJECT, Upstream, find, python_path, run_inside
from tests.waiting import until

BOTH = pytest.mark.parametrize("threaded", [False, True], ids=["plain", "threaded"])
LIFE = ["build", "set_session_context", "initialize"]
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def adapter(threaded: bool) -> str:
    """Return the adapter with all tools that the server takes."""
    return "ThreadSafe" if threaded else "Plain"


def script(upstream: Upstream, *arguments: str, threaded: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the script to its end."""
    return subprocess.run(
        [sys.executable, upstream.server_script(threaded), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=upstream.root,
        env={**os.environ, "PYTHONPATH": python_path(upstream, PROJECT), "SNAKEPIT_OTEL_CONSOLE": "false"},
    )


# The script


def test_health_check_says_by_its_exit_status_whether_the_adapter_can_be_imported(upstream: Upstream) -> None:
    """`--health-check` exits with 0 if the adapter can be imported, else with 1, without Elixir."""
    there = script(upstream, "--health-check", "--adapter", "tests.instrumentation.adapters.Plain")
    missing = script(upstream, "--health-check", "--adapter", "tests.instrumentation.adapters.Missing")
    assert (there.returncode, missing.returncode) == (0, 1), there.stderr


@pytest.mark.parametrize(
    ("threaded", "arguments"),
    [
        (False, ("--elixir-address", "127.0.0.1:1")),
        (False, ("--adapter", "a.B")),
        (True, ("--elixir-address", "127.0.0.1:1")),
        (True, ("--adapter", "a.B")),
        # The threaded server has neither of these.
        (True, ("--adapter", "a.B", "--elixir-address", "127.0.0.1:1", "--health-check")),
        (True, ("--adapter", "a.B", "--elixir-address", "127.0.0.1:1", "--heartbeat-enabled")),
    ],
)
def test_bad_command_lines_are_refused(upstream: Upstream, threaded: bool, arguments: tuple[str, ...]) -> None:
    """A script that lacks an argument it needs, or has one it does not know, exits with 2."""
    assert script(upstream, *arguments, threaded=threaded).returncode == 2


@BOTH
async def test_a_worker_becomes_ready_leads_a_group_and_ends_with_0_by_sigterm(
    snakepit: Snakepit, threaded: bool
) -> None:
    """A worker tells its port by a file that is never half written, leads a process group, and obeys SIGTERM."""
    async with snakepit(adapter(threaded), threaded=threaded) as elixir:
        assert elixir.calls[0] == "Ping"
        assert elixir.last["Ping"].message == "connection_test"
        assert not elixir.ready_file.with_name(f"{elixir.ready_file.name}.tmp").exists()
        answer = await elixir.ping("hello")
        assert re.fullmatch(r"Pong from (threaded )?Python.*: hello", answer.message)
        where = (await elixir.execute("where")).value
        assert where["pid"] == where["pgid"] == elixir.pid
        assert await elixir.stop(signal.SIGTERM) == 0


@BOTH
async def test_a_worker_that_is_not_told_to_stays_in_the_group_and_ends_with_0_by_sigint(
    snakepit: Snakepit, threaded: bool
) -> None:
    """Without SNAKEPIT_PROCESS_GROUP a worker stays in its starter's process group; SIGINT is as good as SIGTERM."""
    async with snakepit(adapter(threaded), threaded=threaded, process_group=False) as elixir:
        assert (await elixir.execute("where")).value["pgid"] == os.getpgrp()
        assert await elixir.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(("name", "threaded"), [("Missing", False), ("Missing", True), ("Plain", True)])
async def test_a_worker_whose_adapter_will_not_do_ends_with_1(snakepit: Snakepit, name: str, threaded: bool) -> None:
    """A worker ends with 1 if there is no such adapter, or the threaded server gets one that is not thread-safe."""
    with pytest.raises(AssertionError, match="ended with 1 before it was ready"):
        async with snakepit(name, threaded=threaded):
            pass


async def test_spans_are_printed_unless_somebody_says_no(snakepit: Snakepit) -> None:
    """Upstream prints its spans to standard output by default."""
    async with snakepit(environ={"SNAKEPIT_OTEL_CONSOLE": "true"}) as loud:
        await loud.execute("echo")
        assert await loud.stop() == 0
    assert '"name": "BridgeService/ExecuteTool"' in loud.stdout


# Requests


@BOTH
async def test_phases_come_in_order_on_a_fresh_adapter_for_every_request(
    snakepit: Snakepit, notes: Notes, threaded: bool
) -> None:
    """Each request builds an adapter, gives it its context, initializes it, runs the tool, and cleans up."""
    async with snakepit(adapter(threaded), threaded=threaded) as elixir:
        assert (await elixir.execute("echo", {"x": [1, "a", None]})).value == {"x": [1, "a", None]}
        await until(lambda: len(notes.lines) == 5)
        await elixir.execute("echo")
        await until(lambda: len(notes.lines) == 10)
    assert notes.lines == [*LIFE, "execute echo", "cleanup"] * 2


@BOTH
async def test_phases_may_be_coroutines(snakepit: Snakepit, notes: Notes, threaded: bool) -> None:
    """Phases that are coroutines are awaited, in the same order."""
    async with snakepit("ThreadSafeAsync" if threaded else "Async", threaded=threaded) as elixir:
        assert (await elixir.execute("echo", {"x": 1})).value == {"x": 1}
        assert (await elixir.execute("fail")).error["type"] == "ValueError"
        await until(lambda: len(notes.lines) == 10)
    assert notes.lines == [*LIFE, "execute echo", "cleanup", *LIFE, "execute fail", "cleanup"]


@pytest.mark.parametrize(
    ("name", "tool", "ended"),
    [
        ("FailsToBuild", "echo", ["build"]),
        ("FailsToInitialize", "echo", [*LIFE, "cleanup"]),
        ("Plain", "fail", [*LIFE, "execute fail", "cleanup"]),
    ],
)
async def test_an_adapter_that_was_built_is_cleaned_up_whatever_fails(
    snakepit: Snakepit, notes: Notes, name: str, tool: str, ended: list[str]
) -> None:
    """A failing phase ends the request; an adapter that was built is cleaned up."""
    async with snakepit(name) as elixir:
        assert not (await elixir.execute(tool)).ok
        await until(lambda: len(notes.lines) == len(ended))
    assert notes.lines == ended


async def test_a_failing_cleanup_changes_nothing_for_the_caller(snakepit: Snakepit, notes: Notes) -> None:
    """What cleanup raises is logged, and the answer stays what it was."""
    async with snakepit("FailsToCleanUp") as elixir:
        assert (await elixir.execute("echo", {"x": 1})).value == {"x": 1}
    assert notes.lines[-1] == "cleanup"


@BOTH
async def test_a_failure_is_told_as_json(snakepit: Snakepit, threaded: bool) -> None:
    """A tool that raises is no gRPC error: the answer has the type, message, traceback and context as JSON."""
    async with snakepit(adapter(threaded), threaded=threaded) as elixir:
        error = (await elixir.execute("fail", {"words": "bad", "library": "numpy"})).error
    assert set(error) == {"type", "message", "stacktrace", "traceback", "context"}
    assert (error["type"], error["message"]) == ("ValueError", "bad")
    assert error["context"] == {"tool_name": "fail", "session_id": elixir.session_id, "library": "numpy"}
    assert error["traceback"] == "".join(error["stacktrace"])
    assert "adapters.py" in error["traceback"]


@BOTH
async def test_results_travel_as_json_under_a_name_of_their_type(snakepit: Snakepit, threaded: bool) -> None:
    """What a tool returns is named by its type, whole numbers are floats, and what is neither is text."""
    expected: list[tuple[Any, str, Any]] = [
        (True, "boolean", True),
        ({"a": 1}, "map", {"a": 1}),
        ("text", "string", "text"),
        (2, "float", 2.0),
        ([1], "list", [1]),
        (None, "string", "None"),
    ]
    async with snakepit(adapter(threaded), threaded=threaded) as elixir:
        for given, kind, value in expected:
            answer = await elixir.execute("value", {"value": given})
            assert answer.response.result.type_url == f"type.googleapis.com/snakepit.{kind}"
            assert answer.value == value
        assert (await elixir.execute("value", binary={"value": b"ab"})).value == "b'ab'"


@pytest.mark.parametrize(("name", "raised"), [("Toolless", "RpcError"), ("ThreadSafeToolless", "NotImplementedError")])
async def test_an_adapter_without_execute_tool_fails(snakepit: Snakepit, name: str, raised: str) -> None:
    """An adapter that has no `execute_tool` runs nothing, tools or not."""
    async with snakepit(name, threaded=name != "Toolless") as elixir:
        assert (await elixir.execute("echo")).error["type"] == raised


async def test_an_adapter_needs_no_base_class(snakepit: Snakepit) -> None:
    """An adapter with nothing but `set_session_context` and `execute_tool` will do; it registers no tools."""
    async with snakepit("Bare") as elixir:
        answer = await elixir.execute("any", {"x": 1})
        assert answer.value == {"tool": "any", "arguments": {"x": 1}, "session": elixir.session_id}
        assert "RegisterTools" not in elixir.calls


@BOTH
async def test_tools_run_in_threads_of_the_plain_server_unless_they_are_sensitive(
    snakepit: Snakepit, threaded: bool
) -> None:
    """The plain server runs a tool in a thread, or where it is if told so; the threaded server on its event loop."""
    async with snakepit(
        adapter(threaded), threaded=threaded, environ={"SNAKEPIT_THREAD_SENSITIVE": "torch, lib.run"}
    ) as elixir:

        async def stays(arguments: dict[str, str] | None = None, **metadata: str) -> bool:
            where = (await elixir.execute("where", arguments, metadata=metadata)).value
            return bool(where["main_thread"])

        assert await stays() is threaded
        assert await stays({"library": "lib", "function": "walk"}) is threaded
        assert await stays(thread_sensitive="true")
        assert await stays({"library": "torch"})
        assert await stays({"library": "lib", "function": "run"})


@BOTH
async def test_what_elixir_sends_about_a_request_reaches_the_adapter(snakepit: Snakepit, threaded: bool) -> None:
    """Adapters see the request's metadata and correlation id, and the worker's own session id, whoever asks."""
    async with snakepit(adapter(threaded), threaded=threaded) as elixir:
        answer = await elixir.execute("where", in_session="callers", correlation_id="cid-1", metadata={"a": "b"})
        assert answer.value["session_id"] == elixir.session_id
        assert answer.value["request_metadata"] == {"correlation_id": "cid-1", "a": "b"}
        assert answer.value["correlation_id"] == "cid-1"
        assert (await elixir.execute("where", session_id="other")).value["session_id"] == "other"


@BOTH
async def test_headers_go_on_to_elixir_by_the_threaded_server_only(snakepit: Snakepit, threaded: bool) -> None:
    """The plain server makes a request's session without any headers; the threaded one hands on all that came."""
    async with snakepit(adapter(threaded), threaded=threaded) as elixir:
        before = len(elixir.metadata)
        await elixir.execute("echo", correlation_id="cid-1", headers={"traceparent": TRACEPARENT})
        sent = [headers for name, headers in elixir.metadata[before:] if name == "InitializeSession"]
        assert [headers.get("traceparent") for headers in sent] == [TRACEPARENT if threaded else None]
        assert [headers.get(CORRELATION) for headers in sent] == ["cid-1" if threaded else None]
        await elixir.initialize("new")
        assert elixir.metadata[-1][0] in {"InitializeSession", "Heartbeat"}


@BOTH
async def test_tools_are_registered_with_the_session(snakepit: Snakepit, threaded: bool) -> None:
    """The plain server registers tools once per session; the threaded one at each request, refused or not."""
    async with snakepit(adapter(threaded), threaded=threaded) as elixir:
        for session in ("one", "one", "two"):
            assert (await elixir.execute("echo", session_id=session)).ok
        assert elixir.calls.count("RegisterTools") == (3 if threaded else 2)
        assert set(elixir.registered) == {"one", "two"}
        assert {"echo", "count", "execute_tool"} <= set(elixir.registered["one"])
        tools = {tool.name: tool for tool in elixir.last["RegisterTools"].tools}
    assert tools["count"].supports_streaming
    assert not tools["echo"].supports_streaming
    assert tools["echo"].description == "Return what came."
    assert [(one.name, one.type, one.required) for one in tools["value"].parameters] == [
        ("value", "any", False),
        ("context", "any", False),
    ]


@BOTH
async def test_sessions_are_elixirs(snakepit: Snakepit, threaded: bool) -> None:
    """Calls about sessions are passed on to Elixir, and so is what it answers."""
    async with snakepit(adapter(threaded), threaded=threaded) as elixir:
        assert (await elixir.initialize("s")).success
        assert "s" in elixir.sessions
        assert (await elixir.get_session("s")).metadata == {"kept": "by elixir"}
        assert (await elixir.heartbeat("s")).session_valid
        assert not (await elixir.heartbeat("unknown")).session_valid
        assert (await elixir.cleanup_session("s")).resources_cleaned == 1
        assert "s" not in elixir.sessions


@BOTH
async def test_an_adapter_calls_elixir_back(snakepit: Snakepit, threaded: bool) -> None:
    """Numbers go to Elixir as JSON, text as text; what fails there, or is not there, is raised in the adapter."""

    def refuse() -> None:
        raise ValueError("not today")

    tools = {"double": lambda x: 2 * x, "greet": lambda who: f"hello {who}", "refuse": refuse}
    async with snakepit(adapter(threaded), threaded=threaded, tools=tools) as elixir:
        assert (await elixir.execute("ask", {"name": "double", "parameters": {"x": 4}})).value == 8
        assert elixir.last["ExecuteElixirTool"].session_id == elixir.session_id
        assert elixir.last["ExecuteElixirTool"].parameters["x"].type_url.endswith("google.protobuf.Value")
        assert (await elixir.execute("ask", {"name": "greet", "parameters": {"who": "you"}})).value == "hello you"
        assert elixir.last["ExecuteElixirTool"].parameters["who"].type_url.endswith("google.protobuf.StringValue")
        error = (await elixir.execute("ask", {"name": "refuse"})).error
        assert (error["type"], "not today" in error["message"]) == ("RuntimeError", True)
        assert (await elixir.execute("ask", {"name": "unknown"})).error["type"] == "ValueError"


@BOTH
async def test_a_reference_is_an_object_inside_and_a_payload_outside(snakepit: Snakepit, threaded: bool) -> None:
    """A zero-copy payload becomes a ZeroCopyRef in the worker, and a ZeroCopyRef a payload on its way out."""
    async with snakepit(adapter(threaded), threaded=threaded) as elixir:
        made = (await elixir.execute("make_reference", {"ref": "r-1", "size": 16})).value
        assert made["__snakepit_zero_copy__"] is True
        assert (made["ref"], made["bytes"], made["owner"]) == ("r-1", 16, "python")
        taken = (await elixir.execute("take_reference", {"reference": made})).value
        assert taken == {"type": "ZeroCopyRef", "ref": "r-1", "bytes": 16}


# Streams


@pytest.mark.parametrize("name", ["Plain", "Async", "ThreadSafe", "ThreadSafeAsync"])
async def test_a_stream_has_numbered_chunks_and_an_empty_last_one(snakepit: Snakepit, notes: Notes, name: str) -> None:
    """Chunks are numbered from one; where the tool marks none as final, an empty one is added."""
    async with snakepit(name, threaded=name.startswith("Thread")) as elixir:
        chunks = await elixir.chunks("count", {"to": 2})
        await until(lambda: notes.lines[-1:] == ["cleanup"])
    assert [(chunk.chunk_id, chunk.is_final) for chunk in chunks] == [
        ("count-1", False),
        ("count-2", False),
        ("count-3", True),
    ]
    assert [chunk.data and json.loads(chunk.data) for chunk in chunks] == [{"number": 1}, {"number": 2}, b""]
    assert notes.lines == [*LIFE, "execute count", "stream closed", "cleanup"]


@BOTH
async def test_a_tool_may_say_which_chunk_is_final_and_what_it_is(snakepit: Snakepit, threaded: bool) -> None:
    """Chunks with `data`, `is_final` and `metadata` are taken apart; bytes and text are sent as they are."""
    async with snakepit(adapter(threaded), threaded=threaded) as elixir:
        marked = await elixir.chunks("count_to_final", {"to": 2})
        assert [(json.loads(chunk.data)["number"], chunk.is_final) for chunk in marked] == [(1, False), (2, True)]
        assert [dict(chunk.metadata) for chunk in marked] == [{"of": "2"}] * 2
        assert [chunk.data for chunk in await elixir.chunks("bytes_and_text")] == [b"\x00\xff", b"text", b""]
        assert [chunk.data for chunk in await elixir.chunks("value", {"value": 7})] == [b"7", b""]


@pytest.mark.parametrize("name", ["Plain", "Async", "ThreadSafe", "ThreadSafeAsync"])
async def test_a_stream_that_fails_is_aborted_and_cleaned_up_twice(snakepit: Snakepit, notes: Notes, name: str) -> None:
    """A failing stream ends as INTERNAL with the JSON of a failure, and the adapter is cleaned up twice."""
    async with snakepit(name, threaded=name.startswith("Thread")) as elixir:
        stream = elixir.stream("count", {"fail_at": 2})
        assert (await anext(stream)).chunk_id == "count-1"
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await anext(stream)
        await until(lambda: notes.lines.count("cleanup") == 2)
    assert failure.value.code() is grpc.StatusCode.INTERNAL
    error = json.loads(failure.value.details() or "")
    assert (error["type"], error["message"]) == ("ValueError", "no 2")
    assert notes.lines == [*LIFE, "execute count", "stream closed", "cleanup", "cleanup"]


@BOTH
async def test_a_stream_that_fails_before_its_first_chunk_is_cleaned_up_once(
    snakepit: Snakepit, notes: Notes, threaded: bool
) -> None:
    """A streaming tool that raises before there is a stream ends as INTERNAL, and is cleaned up once."""
    async with snakepit(adapter(threaded), threaded=threaded) as elixir:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await elixir.chunks("fail")
        await until(lambda: notes.lines[-1:] == ["cleanup"])
    assert failure.value.code() is grpc.StatusCode.INTERNAL
    assert notes.lines == [*LIFE, "execute fail", "cleanup"]


@BOTH
async def test_a_stream_whose_reader_leaves_is_closed_and_cleaned_up(
    snakepit: Snakepit, notes: Notes, tmp_path: Path, threaded: bool
) -> None:
    """A reader who leaves cancels the tool's generator; the adapter is cleaned up, and the worker goes on."""
    async with snakepit("ThreadSafeAsync" if threaded else "Async", threaded=threaded) as elixir:
        stream = elixir.stream("stream_and_wait", {"path": str(tmp_path / "never")})
        assert json.loads((await anext(stream)).data) == {"waiting": True}
        await until(lambda: "waiting" in notes.lines)
        await stream.aclose()
        await until(lambda: {"stream closed", "cleanup"} <= set(notes.lines))
        assert (await elixir.execute("echo")).ok
        assert await elixir.stop() == 0


@BOTH
async def test_a_streaming_tool_that_is_not_streamed_runs_to_nothing(snakepit: Snakepit, threaded: bool) -> None:
    """A generator that ExecuteTool gets is refused by the plain server, and turned into text by the threaded."""
    async with snakepit(adapter(threaded), threaded=threaded) as elixir:
        value = (await elixir.execute("count")).value
    if threaded:
        assert value.startswith("<generator object")
    else:
        assert set(value) == {"error"}


async def test_a_session_that_elixir_lost_is_begun_with_the_next_request(snakepit: Snakepit) -> None:
    """Each request begins its session, so a call-back finds it there."""
    async with snakepit(tools={"double": lambda x: 2 * x}) as elixir:
        for _ in range(2):
            assert (await elixir.execute("ask", {"name": "double", "parameters": {"x": 2}})).value == 4
            elixir.lose(elixir.session_id)


async def test_a_tool_that_elixir_does_not_expose(snakepit: Snakepit) -> None:
    """A tool that is not listed is not called: the worker refuses it, as Elixir would not."""
    async with snakepit(tools={"double": lambda x: 2 * x}) as elixir:
        elixir.hidden = {"double"}
        assert (await elixir.execute("ask", {"name": "double", "parameters": {"x": 2}})).error["type"] == "ValueError"
        assert "ExecuteElixirTool" not in elixir.calls


# Heartbeats and telemetry


async def test_the_plain_worker_beats_for_every_session_it_meets(snakepit: Snakepit) -> None:
    """Heartbeats come for the worker's session and for those of requests, until a session is cleaned up."""
    async with snakepit(heartbeat={"interval_ms": 20}) as elixir:
        beaten: list[str] = []
        note = elixir._note

        def hear(name: str, request: Any, context: Any) -> None:
            if name == "Heartbeat":
                beaten.append(request.session_id)
            note(name, request, context)

        elixir._note = hear  # type: ignore[method-assign]
        await elixir.execute("echo", session_id="other")
        await until(lambda: beaten.count(elixir.session_id) > 1 and beaten.count("other") > 1)
        await elixir.cleanup_session("other")
        beaten.clear()
        await until(lambda: beaten.count(elixir.session_id) > 2)
        assert "other" not in beaten


async def test_a_dependent_worker_ends_when_elixir_does_not_answer(snakepit: Snakepit) -> None:
    """A worker whose heartbeats are missed as often as it bears ends by itself, with 0."""
    async with snakepit(heartbeat={"interval_ms": 20, "timeout_ms": 500, "max_missed_heartbeats": 2}) as elixir:
        assert elixir._server is not None
        assert elixir.process is not None
        await elixir._server.stop(None)
        await until(lambda: elixir.exit_status is not None)
        assert elixir.exit_status == 0


async def test_the_threaded_worker_neither_beats_nor_streams_telemetry(snakepit: Snakepit) -> None:
    """The threaded server has no heartbeats and no telemetry stream."""
    async with snakepit("ThreadSafe", threaded=True, heartbeat={"interval_ms": 1}) as elixir:
        assert (await elixir.execute("emit")).ok
        await until(lambda: elixir.telemetry_status)
        # INTERNAL is gRPC's word on our side if the stream is refused while we write the first control.
        assert elixir.telemetry_status in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL}
        assert "Heartbeat" not in elixir.calls
        assert elixir.events == []


def names_of(elixir: ElixirSnakepit, correlation_id: str) -> list[str]:
    """Return the names of the events of one request, in order."""
    return [".".join(event.event_parts) for event in elixir.events if event.correlation_id == correlation_id]


async def test_events_come_over_the_stream_as_elixir_wants_them(snakepit: Snakepit) -> None:
    """What adapters emit arrives with its measurements, metadata and correlation id, unless Elixir filters it out."""
    async with snakepit() as elixir:
        await elixir.execute("emit", correlation_id="one")
        await elixir.execute("emit", {"words": "oh"}, correlation_id="two")
        await until(lambda: len(names_of(elixir, "two")) == 3)
        start, stop = "tool.execution.start", "tool.execution.stop"
        assert names_of(elixir, "one") == ["tool.result_size", start, stop]
        assert names_of(elixir, "two") == ["tool.result_size", start, "tool.execution.exception"]
        size = await elixir.event("tool.result_size")
        assert size.measurements["bytes"] == pb.TelemetryValue(int_value=5)
        assert size.metadata == {"tool": "emit"}
        stopped = await elixir.event(stop)
        assert stopped.measurements["duration"].int_value > 0
        failed = await elixir.event("tool.execution.exception")
        assert dict(failed.metadata) == {"tool": "emit", "error_type": "ValueError", "error_message": "oh"}

        await elixir.filter(deny=["*.result_size"])
        for number in range(1000):
            # The controls have a stream of their own, which requests may overtake.
            await elixir.execute("emit", correlation_id=f"filtered-{number}")
            await until(lambda: names_of(elixir, f"filtered-{number}")[-1:] == [stop])  # noqa: B023
            if names_of(elixir, f"filtered-{number}") == [start, stop]:
                break
        else:
            pytest.fail("the filter changed nothing")


async def test_the_telemetry_stream_ends_by_its_deadline(snakepit: Snakepit) -> None:
    """Elixir's stream ends after its time, without events from then on; the worker goes on."""
    async with snakepit(telemetry_timeout=1.0) as elixir:
        await until(lambda: elixir.telemetry_status)
        assert elixir.telemetry_status is grpc.StatusCode.DEADLINE_EXCEEDED
        before = len(elixir.events)
        assert (await elixir.execute("emit")).ok
        assert len(elixir.events) == before


async def test_a_worker_that_stops_ends_its_telemetry_stream(snakepit: Snakepit) -> None:
    """The telemetry stream of a worker that is told to end is ended in order."""
    async with snakepit() as elixir:
        assert (await elixir.execute("emit")).ok
        await until(lambda: elixir.events)  # the stream is open by then
        assert await elixir.stop() == 0
        await until(lambda: elixir.telemetry_status)
        assert elixir.telemetry_status is grpc.StatusCode.OK


# In an interpreter of its own


def test_values_go_through_the_serializer_by_static_methods(upstream: Upstream) -> None:
    """`TypeSerializer` encodes what JSON has no word for, and decodes it again."""
    code = """
    import datetime, math
    from snakepit_bridge.serialization import TypeSerializer
    from snakepit_bridge.zero_copy import ZeroCopyRef

    def there_and_back(value, kind):
        message, binary = TypeSerializer.encode_any(value, kind)
        assert binary is None
        back = TypeSerializer.decode_any(message)
        return [message.value.decode(), back.to_payload() if isinstance(back, ZeroCopyRef) else str(back)]

    result = [
        there_and_back(math.inf, "float"),
        there_and_back(3, "integer"),
        there_and_back(ZeroCopyRef({"__snakepit_zero_copy__": True, "ref": "r"}), "map"),
        there_and_back({"at": datetime.date(2026, 1, 2), "what": object()}, "map"),
    ]
    """
    infinity, three, reference, odd = run_inside(code, upstream=upstream)
    assert infinity == ['"Infinity"', str(math.inf)]
    assert three == ["3", "3"]
    assert reference[1] == {"__snakepit_zero_copy__": True, "ref": "r"}
    assert json.loads(odd[0]) == {
        "at": "2026-01-02",
        "what": {"__ffi_unserializable__": True, "__type__": "builtins.object"},
    }


def test_upstreams_messages_and_ours_cannot_share_a_process(upstream: Upstream) -> None:
    """The stubs are upstream's to protobuf, which refuses ours beside them: what imports both is noticed."""
    code = """
    import grpc_server
    try:
        from snakepit_otel.bridge.proto import snakepit_bridge_pb2
    except TypeError as error:
        result = str(error)
    """
    assert "duplicate" in run_inside(code, upstream=upstream)


def test_code_that_fails_inside_shows_what_it_said(upstream: Upstream) -> None:
    """`run_inside` fails with what the other interpreter wrote, and calls functions by name, too."""
    with pytest.raises(AssertionError, match="ended with 1") as failure:
        run_inside("print('on the way')\nresult = 1 / 0", upstream=upstream)
    # In which order is for the interpreter's buffers to say.
    assert "on the way\n" in str(failure.value)
    assert "ZeroDivisionError" in str(failure.value)
    assert run_inside("os.path:join", "a", "b", upstream=upstream) == "a/b"
    assert run_inside(os.path.basename, "a/b", upstream=upstream) == "b"


def test_upstream_is_what_the_environment_names(tmp_path: Path) -> None:
    """A checkout or its `priv/python` will do; a folder that is neither is refused with what it lacks."""
    python = tmp_path / "priv" / "python"
    (python / "snakepit_bridge").mkdir(parents=True)
    (python / "grpc_server.py").touch()
    assert find(str(tmp_path)) == find(str(python)) == Upstream(python, (python,), real=True)
    assert find("").root == DOUBLE
    with pytest.raises(FileNotFoundError, match=r"UPSTREAM_PYTHON_DIR=/nowhere: .*grpc_server\.py"):
        find("/nowhere")


# The double's likeness

SURFACE = """
import asyncio, importlib, inspect

def described(function):
    return [[one.name, one.kind.name, repr(one.default)] for one in inspect.signature(function).parameters.values()]

def members(module):
    for name, thing in vars(module).items():
        home = getattr(thing, "__module__", "") or ""
        if name.startswith("_") or home != module.__name__:
            continue
        if inspect.isclass(thing):
            yield name, [base.__name__ for base in thing.__bases__]
            for inner, found in vars(thing).items():
                found = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
                found = found.fget if isinstance(found, property) else found
                if inspect.isfunction(found) and (inner == "__init__" or not inner.startswith("_")):
                    yield f"{name}.{inner}", described(found)
        elif inspect.isfunction(thing):
            yield name, described(thing)

result = {"calls": {}, "attributes": {}}
for module in arguments:
    for name, what in members(importlib.import_module(module)):
        result["calls"][f"{module}.{name}"] = what

class Adapter:
    __thread_safe__ = True

async def attributes():
    import grpc_server, grpc_server_threaded
    from snakepit_bridge.base_adapter import BaseAdapter
    from snakepit_bridge.session_context import SessionContext
    from snakepit_bridge.telemetry.stream import TelemetryStream
    from snakepit_bridge.zero_copy import ZeroCopyRef
    made = [
        grpc_server.BridgeServiceServicer(Adapter, "127.0.0.1:1"),
        grpc_server_threaded.ThreadedBridgeServiceServicer(Adapter, "127.0.0.1:1", 4),
        BaseAdapter(),
        SessionContext(None, "s"),
        TelemetryStream(),
        ZeroCopyRef({}),
    ]
    result["attributes"] = {
        type(one).__name__: sorted(name for name in vars(one) if name[0] != "_") for one in made
    }
    for one in made[:2]:
        await one.close()

asyncio.run(attributes())
"""


def modules() -> Iterator[str]:
    """Name the double's modules, but for those that have no counterpart."""
    for path in sorted(DOUBLE.rglob("*.py")):
        parts = path.relative_to(DOUBLE).with_suffix("").parts
        if parts[-1] == "__init__":
            yield ".".join(parts[:-1])
        elif not parts[-1].startswith("_"):
            yield ".".join(parts)


def test_the_double_has_the_surface_that_is_wrapped(upstream: Upstream) -> None:
    """All that is public in the double is upstream's, too: names, signatures, base classes and attributes."""
    double = run_inside(SURFACE, *modules(), upstream=find(""))
    assert {"adapter_class", "elixir_stub", "sync_elixir_stub", "telemetry_stream"} <= set(
        double["attributes"]["BridgeServiceServicer"]
    )
    if not upstream.real:
        return
    real = run_inside(SURFACE, *modules(), upstream=upstream)
    assert double["calls"] == {name: real["calls"].get(name) for name in double["calls"]}
    assert double["attributes"] == real["attributes"]


@BOTH
def test_the_double_has_upstreams_flags(upstream: Upstream, threaded: bool) -> None:
    """The double's scripts know the flags that upstream's know."""

    def flags(one: Upstream) -> set[str]:
        return set(
            re.findall(r"--[a-z-]+[a-z]", script(one, "--help", threaded=threaded).stdout.partition("options:")[2])
        )

    double = flags(find(""))
    assert {"--port", "--adapter", "--elixir-address", "--snakepit-run-id"} <= double
    if upstream.real:
        assert double == flags(upstream)
