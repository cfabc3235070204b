"""Adapters written for upstream's worker, in real workers of ours: with our stand-in, and with upstream's package."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from tests.compatibility.starting import KINDS, elixir
from tests.instrumentation.elixir import Answer, ElixirSnakepit
from tests.instrumentation.upstream import find
from tests.processes import run
from tests.waiting import until

DISPATCHING = "tests.compatibility.adapters.Dispatching"
TOOLS = {"double": lambda x: 2 * x, "broken": lambda: 1 / 0}
REFERENCE = {
    "__snakepit_zero_copy__": True,
    "kind": "dlpack",
    "device": "cpu",
    "dtype": "float32",
    "shape": [16],
    "owner": "elixir",
    "ref": "r-1",
    "copy": False,
    "bytes": 64,
    "metadata": {"of": "elixir"},
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Whose package the worker has."""
    return str(request.param)


@pytest.fixture
async def dispatching(tmp_path: Path, kind: str) -> AsyncIterator[ElixirSnakepit]:
    """A worker with the adapter that hands on what it gets."""
    async with elixir(DISPATCHING, tmp_path, kind, tools=TOOLS) as started:
        yield started


def told(answer: Answer) -> Any:
    """Return what an answer says, without what is another in each run."""
    if answer.ok:
        value = answer.value
        return {key: value[key] for key in value if key not in ("pid", "pgid")} if isinstance(value, dict) else value
    error = answer.error
    return error["type"], error["message"], sorted(error.keys()), error["context"]["tool_name"]


def read(data: bytes) -> Any:
    """Return what a chunk says: JSON has no one way to be written."""
    return json.loads(data) if data.startswith(b"{") else data


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("echo", {"a": 1, "b": ["x", {"y": None}]}),
    ("value", {"value": "text"}),
    ("value", {"value": 1.5}),
    ("value", {"value": True}),
    ("value", {"value": [1, 2]}),
    ("fail", {"words": "told so"}),
    ("missing", {}),
    ("make_reference", {}),
    ("take_reference", {"reference": REFERENCE}),
    ("ask", {"name": "double", "parameters": {"x": 21}}),
    ("ask", {"name": "double", "parameters": {"x": "ab"}}),
    ("emit", {}),
]


async def test_the_same_adapter_answers_as_it_does_in_upstreams_worker(tmp_path: Path, kind: str) -> None:
    """What an adapter returns, raises and streams is the same on the wire, and so are its phases and their order."""

    async def play(started: ElixirSnakepit, notes: Path) -> list[Any]:
        answers = [told(await started.execute(tool, arguments, correlation_id="c-1")) for tool, arguments in CALLS]
        # Of calls alone: upstream cleans up after streams when it comes to it, and twice where one fails.
        answers.append(notes.read_text())
        for tool in ("count", "count_to_final", "bytes_and_text"):
            chunks = await started.chunks(tool)
            answers += [(made.chunk_id, read(made.data), made.is_final, made.metadata.get("of")) for made in chunks]
        answers.append((await started.execute("where", correlation_id="c-2")).value["correlation_id"])
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await started.chunks("count", {"fail_at": 2})
        answers.append((failed.value.code(), json.loads(failed.value.details() or "")["message"]))
        return answers

    async with elixir("Plain", tmp_path / "ours", kind, tools=TOOLS) as ours:
        got = await play(ours, tmp_path / "ours" / "notes")
    script = find().server_script()
    theirs = ElixirSnakepit(
        [sys.executable, script],
        "tests.instrumentation.adapters.Plain",
        tmp_path / "theirs",
        environ={"ADAPTER_NOTES": str(tmp_path / "theirs" / "notes"), "SNAKEPIT_OTEL_CONSOLE": "false"},
        tools=TOOLS,
    )
    async with theirs:
        assert got == await play(theirs, tmp_path / "theirs" / "notes")


async def test_coroutines_and_streams_that_a_plain_dispatcher_hands_on(dispatching: ElixirSnakepit) -> None:
    """A plain `execute_tool`, by keyword alone, may return what is to be awaited, or streams."""
    assert (await dispatching.execute("later", {"value": [1]})).value == [1]
    assert (await dispatching.execute("failing_later")).error["type"] == "OSError"
    assert [chunk.data for chunk in await dispatching.chunks("counting", {"to": 3})] == [b"1", b"2", b"3", b""]
    on_main = await dispatching.execute("later", {"value": 2}, metadata={"thread_sensitive": "true"})
    assert on_main.value == 2


async def test_elixirs_tools_from_a_coroutine_with_upstreams_errors(dispatching: ElixirSnakepit) -> None:
    """`call_elixir_tool` may block in a coroutine; it raises RuntimeError, and ValueError for a tool there is not."""
    assert (await dispatching.execute("asking", {"x": 4})).value == 8
    assert (await dispatching.execute("asking", {"name": "broken"})).value == ["RuntimeError", ["broken", "double"]]
    assert (await dispatching.execute("asking", {"name": "no"})).value == ["ValueError", ["broken", "double"]]


async def test_elixirs_tools_in_a_session_that_elixir_lost(dispatching: ElixirSnakepit) -> None:
    """Call-backs go on after Elixir has lost the session, by itself or because the adapter's context ended it."""
    for lose in (lambda: dispatching.lose(dispatching.session_id), lambda: dispatching.execute("forget")) * 2:
        assert (await dispatching.execute("asking", {"x": 4})).value == 8
        assert (await dispatching.execute("stubbed", {"x": "4"})).value == 8
        if (lost := lose()) is not None:
            await lost
        assert (await dispatching.execute("stubbed", {"x": "4"})).value == 8
        dispatching.lose(dispatching.session_id)


async def test_elixirs_tools_that_are_not_exposed(dispatching: ElixirSnakepit) -> None:
    """A tool that Elixir does not expose is a ValueError, as in upstream's worker, and is not called."""
    dispatching.hidden = {"double"}
    assert (await dispatching.execute("asking", {"x": 4})).value == ["ValueError", ["broken"]]
    assert "ExecuteElixirTool" not in dispatching.calls


async def test_whose_package_it_is_can_be_told(dispatching: ElixirSnakepit, kind: str) -> None:
    """Our stand-in says that it is one, by its version, too; a real package is left as it is."""
    said = (await dispatching.execute("package")).value
    session = dispatching.session_id
    if kind == "ours":
        assert said == {
            "version": "2.0.0+snakepit.otel",
            "ours": True,
            "context": True,
            "session": [session, session],
        }
    else:
        assert not said["ours"]
        assert "snakepit.otel" not in said["version"]


async def test_references_are_upstreams_kind(dispatching: ElixirSnakepit) -> None:
    """A reference is a `ZeroCopyRef` as argument, its JSON further down, and comes back as it was sent."""
    arguments = {"outer": REFERENCE, "nested": {"deep": REFERENCE}}
    assert (await dispatching.execute("kinds", arguments)).value == {
        "outer": "ZeroCopyRef",
        "inner": "dict",
        "ref": "r-1",
    }
    assert (await dispatching.execute("give_back", {"reference": REFERENCE})).value == REFERENCE


async def test_the_context_as_a_block_ends_the_session(dispatching: ElixirSnakepit) -> None:
    """`with context:` has Elixir forget the session at its end."""
    session = (await dispatching.execute("forget")).value
    assert dispatching.last["CleanupSession"].session_id == session


async def test_events_go_to_elixir(dispatching: ElixirSnakepit) -> None:
    """What `telemetry.emit` is given arrives at Elixir, numbers as numbers, with the worker's own events."""
    assert (await dispatching.execute("tell", correlation_id="c-9")).value == "c-9"
    mine = await until(lambda: [e for e in dispatching.events if list(e.event_parts) == ["tool", "result_size"]])
    measured = mine[0].measurements
    assert (measured["bytes"].int_value, measured["note"].string_value, measured["yes"].int_value) == (7, "text", 1)
    assert dict(mine[0].metadata) == {"tool": "tell", "n": "1"}
    await until(lambda: any(list(e.event_parts) == ["tool", "execution", "stop"] for e in dispatching.events))
    assert "told" in dispatching.stderr


async def test_a_tool_that_emits_its_own_execution_has_one_event_of_each(tmp_path: Path, kind: str) -> None:
    """Elixir gets the tool's own start and stop or exception, as with upstream's worker, and ours of other tools."""
    start, stop = "tool.execution.start", "tool.execution.stop"
    async with elixir("Plain", tmp_path, kind) as started:
        await started.execute("emit", correlation_id="one")
        await started.execute("emit", {"words": "oh"}, correlation_id="two")
        await started.execute("value", {"value": 1}, correlation_id="three")

        def named(correlation_id: str) -> list[str]:
            return [".".join(event.event_parts) for event in started.events if event.correlation_id == correlation_id]

        await until(lambda: len(named("three")) == 2)
    assert named("one") == ["tool.result_size", start, stop]
    assert named("two") == ["tool.result_size", start, "tool.execution.exception"]
    assert named("three") == [start, stop]


async def test_marked_methods_are_registered(dispatching: ElixirSnakepit) -> None:
    """Methods that upstream's decorator has marked are registered once, with what it notes on them."""
    await dispatching.execute("package")
    await until(lambda: "RegisterTools" in dispatching.calls)
    tools = {made.name: made for made in dispatching.last["RegisterTools"].tools}
    assert tools.keys() == {
        *("later", "counting", "failing_later", "asking", "package"),
        *("kinds", "give_back", "forget", "tell", "stubbed"),
    }
    assert tools["counting"].supports_streaming
    assert tools["counting"].description == "Count, later."
    assert dict(tools["later"].metadata) == {
        "adapter_class": "Dispatching",
        "module": "tests.compatibility.adapters",
        "required_variables": "a,b",
    }


async def test_async_adapters_run(tmp_path: Path, kind: str) -> None:
    """Coroutines as phases and tools, and asynchronous streams."""
    async with elixir("Async", tmp_path, kind, tools=TOOLS) as started:
        assert (await started.execute("echo", {"a": 1})).value == {"a": 1}
        assert (await started.execute("ask", {"name": "double", "parameters": {"x": 2}})).value == 4
        assert len(await started.chunks("count", {"to": 2})) == 3
        assert (await started.execute("fail")).error["type"] == "ValueError"


async def test_bare_adapters_run(tmp_path: Path, kind: str) -> None:
    """An adapter without a base class runs as well."""
    async with elixir("Bare", tmp_path, kind) as started:
        answer = (await started.execute("any", {"x": 1})).value
    assert answer == {"tool": "any", "arguments": {"x": 1}, "session": started.session_id}


async def test_thread_safe_adapters_run_at_the_same_time(tmp_path: Path, kind: str) -> None:
    """With --max-workers, requests of a thread-safe adapter run side by side."""
    go = tmp_path / "go"
    arguments = ("--snakepit-bridge", "--max-workers", "2")
    async with elixir("ThreadSafe", tmp_path, kind, adapter_args=arguments) as started:
        waiting = asyncio.create_task(started.execute("wait", {"path": str(go)}))
        await until(lambda: (tmp_path / "notes").exists() and "waiting" in (tmp_path / "notes").read_text())
        assert (await started.execute("value", {"value": 1})).value == 1
        go.touch()
        assert (await waiting).value == "waited"


async def test_thread_sensitive_calls_by_what_their_arguments_name(tmp_path: Path, kind: str) -> None:
    """SNAKEPIT_THREAD_SENSITIVE goes by the module and function that the arguments name, as upstream's does."""
    environ = {"SNAKEPIT_THREAD_SENSITIVE": "torch, numpy.dot"}
    async with elixir("Plain", tmp_path, kind, environ=environ) as started:
        for given, on_main in (
            ({"python_module": "torch", "function": "any"}, True),
            ({"library": "numpy", "function": "dot"}, True),
            ({"library": "numpy", "function": "sum"}, False),
            ({}, False),
        ):
            assert (await started.execute("where", given)).value["main_thread"] is on_main


async def test_pickles_are_refused(tmp_path: Path, kind: str) -> None:
    """What upstream would unpickle is refused by name, and runs nothing."""
    async with elixir("Plain", tmp_path, kind) as started:
        mark = tmp_path / "ran"
        pickled = b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR."
        metadata = {"binary_format:data": "pickle"}
        refused = await started.execute("echo", {}, binary={"data": pickled}, metadata=metadata)
        assert "pickled" in refused.error["message"]
        assert not mark.exists()
        taken = await started.execute("value", {}, binary={"value": b"\x00\xff"})
        assert taken.response.binary_result == base64.b64decode("AP8=")


async def test_a_request_that_is_cancelled_is_cleaned_up(tmp_path: Path, kind: str) -> None:
    """A stream whose reader leaves is closed, and the adapter's clean-up runs."""
    go, notes = tmp_path / "go", tmp_path / "notes"
    async with elixir("Plain", tmp_path, kind) as started:
        async for _ in started.stream("stream_and_wait", {"path": str(go)}):
            break
        go.touch()
        await until(lambda: notes.read_text().endswith("stream closed\ncleanup\n"))


async def test_the_variable_asks_for_it_as_well(tmp_path: Path, kind: str) -> None:
    """SNAKEPIT_BRIDGE_COMPATIBILITY=1 does what --snakepit-bridge does."""
    environ = {"SNAKEPIT_BRIDGE_COMPATIBILITY": "1"}
    async with elixir("Plain", tmp_path, kind, adapter_args=(), environ=environ) as started:
        assert (await started.execute("value", {"value": 5})).value == 5
        assert isinstance(await started.ping(), pb.PingResponse)
        assert await started.stop(signal.SIGTERM) == 0


async def test_without_being_asked_the_error_names_the_flag(kind: str) -> None:
    """A worker that is not asked for it has no `snakepit_bridge` of ours; its error says how to ask."""
    environ = {} if kind == "ours" else {"PYTHONPATH": ":".join(map(str, find().python_path))}
    adapter = ("--adapter", "tests.instrumentation.adapters.Plain")
    status, _, complaint = await run("worker", "--health-check", *adapter, environ=environ)
    assert status == 1
    assert "--snakepit-bridge" in complaint
    assert "SNAKEPIT_BRIDGE_COMPATIBILITY=1" in complaint
    status, _, complaint = await run("worker", "--health-check", "--snakepit-bridge", *adapter, environ=environ)
    assert (status, "can be served" in complaint) == (0, True)
