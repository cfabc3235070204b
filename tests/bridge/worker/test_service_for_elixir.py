"""Tool calls and streams of our worker for an Elixir authority."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from tests.bridge.elixir import Elixir
from tests.bridge.painting import Painting, TakesAny, Untidy
from tests.bridge.parts import error_name, raw, serving, worker
from tests.waiting import until


@pytest.fixture
async def elixir(short_path: Path) -> AsyncIterator[Elixir]:
    """An Elixir authority."""
    peer = Elixir(double=lambda x: 2 * x)
    async with serving(peer, f"unix:{short_path}/elixir"):
        yield peer


@pytest.fixture
async def stub(elixir: Elixir, short_path: Path) -> AsyncIterator[Any]:
    """Our worker, as the authority calls it."""
    async with worker(Painting, f"unix:{short_path}/elixir", short_path) as called:
        yield called


def asking(tool: str, metadata: dict[str, str] | None = None, **parameters: Any) -> pb.ExecuteToolRequest:
    """Return a request of session `alice` as the authority makes it."""
    return pb.ExecuteToolRequest(
        session_id="alice", tool_name=tool, parameters=raw(**parameters), metadata=metadata or {}
    )


async def result(stub: Any, request: pb.ExecuteToolRequest, **more: Any) -> Any:
    """Return what a tool returned."""
    response = await stub.ExecuteTool(request, **more)
    assert response.success, response.error_message
    return json.loads(response.result.value)


async def failure(stub: Any, request: pb.ExecuteToolRequest) -> dict[str, Any]:
    """Return how a tool failed."""
    response = await stub.ExecuteTool(request)
    assert not response.success
    assert not response.HasField("result")
    return json.loads(response.error_message)  # type: ignore[no-any-return]


async def chunks(stub: Any, request: pb.ExecuteToolRequest) -> list[pb.ToolChunk]:
    """Return all chunks of a stream."""
    return [chunk async for chunk in stub.ExecuteStreamingTool(request)]


async def test_ping(stub: Any) -> None:
    """A worker answers a ping in upstream's words, with the time."""
    response = await stub.Ping(pb.PingRequest(message="hello"))
    assert response.message == "Pong from Python: hello"
    assert response.server_time.seconds > 1_700_000_000


@pytest.mark.parametrize("value", [None, True, 7, 2**70, 1.5, "text", "", "\n9123456789", [1, {"a": None}], {"a": []}])
@pytest.mark.parametrize("tool", ["echo", "echo_async"])
async def test_values_come_back(stub: Any, tool: str, value: Any) -> None:
    """Raw JSON goes in and JSON under `snakepit.<type>` comes out."""
    assert await result(stub, asking(tool, value=value)) == value


async def test_the_answer_to_a_call(stub: Any) -> None:
    """Success has the typed result and the time the tool took; there is no error message."""
    response = await stub.ExecuteTool(asking("add", a=2, b=3))
    assert response.result.type_url == "type.googleapis.com/snakepit.integer"
    assert response.result.value == b"5"
    assert response.error_message == ""
    assert response.execution_time_ms >= 0


async def test_a_failed_tool_is_an_answer(stub: Any) -> None:
    """A tool that raises is no gRPC error: type, message, stack, traceback and context are JSON."""
    described = await failure(stub, asking("fail", message="no paint"))
    assert described["type"] == "ValueError"
    assert described["message"] == "no paint"
    assert described["context"] == {"tool_name": "fail", "session_id": "alice", "phase": "execute"}
    (frame,) = described["stacktrace"]
    assert "in fail\n" in frame
    assert described["traceback"].endswith("ValueError: no paint\n")


@pytest.mark.parametrize(
    ("request_", "kind", "words"),
    [
        (asking("pant"), "ToolNotFound", "has no tool 'pant'; it has add, "),
        (asking("add", a="2"), "InvalidArguments", "argument 'a': input should be a valid integer, got '2'"),
        (asking("add", aa=1), "InvalidArguments", "'aa' (did you mean 'a'?)"),
        (asking("strokes", values=[]), "ToolRefused", "call it with stream"),
        (asking("odd", what="surrogate"), "ValueRefused", "cannot be sent"),
        (asking("leave"), "SystemExit", "3"),
        (asking("echo", {"timeout_ms": "soon"}, value=1), "ValueRefused", "timeout_ms is 'soon'"),
        (asking("echo", {"timeout_ms": "0"}, value=1), "ValueRefused", "positive whole number"),
        (asking("echo", {"timeout_ms": "²"}, value=1), "ValueRefused", "positive whole number"),
    ],
    ids=lambda value: value.tool_name if isinstance(value, pb.ExecuteToolRequest) else "",
)
async def test_what_cannot_be_run_is_an_answer_too(
    stub: Any, request_: pb.ExecuteToolRequest, kind: str, words: str
) -> None:
    """Whatever keeps a tool from running or answering is told in the same shape, and the worker serves on."""
    described = await failure(stub, request_)
    assert error_name(json.dumps(described)) == kind
    assert words in described["message"]
    assert await result(stub, asking("add", a=1)) == 2


async def test_a_value_json_cannot_carry(stub: Any) -> None:
    """NaN travels as text under `float`, an opaque object as a marker with its type."""
    nan = await stub.ExecuteTool(asking("odd", what="nan"))
    assert (nan.result.type_url.rpartition(".")[2], nan.result.value) == ("float", b'"NaN"')
    assert await result(stub, asking("odd", what="opaque")) == {
        "__ffi_unserializable__": True,
        "__type__": "_thread.lock",
    }


async def test_binary_parameters_and_results(stub: Any) -> None:
    """Bytes come in beside the parameters and go out beside the result."""
    request = asking("length")
    request.binary_parameters["data"] = b"\x00\xff"
    assert await result(stub, request) == 2
    response = await stub.ExecuteTool(asking("picture"))
    assert response.binary_result == b"\x89PNG"


async def test_the_request_reaches_the_tool(stub: Any) -> None:
    """Session, metadata and the correlation header are on the tool's context."""
    headers = (("x-snakepit-correlation-id", "c-7"),)
    seen = await result(stub, asking("request", {"tenant": "t"}), metadata=headers)
    assert seen == {"session_id": "alice", "metadata": {"tenant": "t", "correlation_id": "c-7"}, "main": False}
    own = await result(stub, asking("request", {"correlation_id": "own"}), metadata=headers)
    assert own["metadata"] == {"correlation_id": "own"}


@pytest.mark.parametrize(
    ("value", "main"), [("true", True), ("1", True), ("True", True), ("false", False), ("", False)]
)
async def test_thread_sensitive_requests_run_on_the_main_thread(stub: Any, value: str, main: bool) -> None:
    """`thread_sensitive` in a request's metadata decides where it runs."""
    assert (await result(stub, asking("request", {"thread_sensitive": value})))["main"] is main


@pytest.mark.parametrize("tool", ["wait", "block"])
async def test_timeout_ms(stub: Any, tool: str) -> None:
    """A tool that takes longer than the request's `timeout_ms` is left, cancelled if it is a coroutine."""
    described = await failure(stub, asking(tool, {"timeout_ms": "30"}))
    assert described["context"]["snakepit_error"] == "DeadlineExceeded"
    assert "timeout_ms passed while the tool ran" in described["message"]
    assert Painting.closed.is_set() is (tool == "wait")


async def test_a_clean_up_that_fails_is_told_beside_the_result(elixir: Elixir, short_path: Path) -> None:
    """The result is kept; the response's metadata have the clean-up's error."""
    async with worker(Untidy, f"unix:{short_path}/elixir", short_path) as stub:
        response = await stub.ExecuteTool(asking("paint"))
    assert response.success
    assert json.loads(response.result.value) == "painted"
    error = json.loads(response.metadata["cleanup_error"])
    assert (error["type"], error["message"], error["context"]["phase"]) == ("OSError", "disk full", "cleanup")


async def test_an_adapter_of_the_guides_kind(elixir: Elixir, short_path: Path) -> None:
    """`execute_tool` gets name, arguments and context, for calls and for streams."""
    async with worker(TakesAny, f"unix:{short_path}/elixir", short_path) as stub:
        assert await result(stub, asking("anything", x=1)) == ["anything", {"x": 1}, "alice"]
        (chunk, _) = await chunks(stub, asking("anything"))
        assert json.loads(chunk.data) == ["anything", {}, "alice"]


async def test_calls_run_beside_a_blocked_one(stub: Any) -> None:
    """A tool that blocks its thread holds up no coroutine tool."""
    blocked = asyncio.ensure_future(result(stub, asking("block")))
    await until(Painting.started.is_set)
    assert await result(stub, asking("echo_async", value=1)) == 1
    Painting.release.set()
    assert await blocked == "released"


@pytest.mark.parametrize("tool", ["strokes", "strokes_async"])
async def test_a_stream(stub: Any, tool: str) -> None:
    """Chunks are numbered from 1, JSON, text or bytes as they are; an empty final one closes the stream."""
    received = await chunks(stub, asking(tool, values=[{"n": 1}, "text", 2, None]))
    assert [chunk.chunk_id for chunk in received] == [f"{tool}-{number}" for number in range(1, 6)]
    assert [chunk.data for chunk in received] == [b'{"n":1}', b"text", b"2", b"", b""]
    assert [chunk.is_final for chunk in received] == [False] * 4 + [True]


async def test_a_tool_may_mark_its_final_chunk(stub: Any) -> None:
    """A chunk that says so is the last, and none is added; its metadata travel."""
    first, last = await chunks(stub, asking("finish"))
    assert (first.data, first.is_final, dict(first.metadata)) == (b'{"n":1}', False, {"layer": "base"})
    assert (last.data, last.is_final) == (b"done", True)


async def test_a_plain_tool_as_a_stream(stub: Any) -> None:
    """A tool that does not stream gives its result as one chunk."""
    first, last = await chunks(stub, asking("add", a=1))
    assert (first.data, first.is_final, last.data, last.is_final) == (b"2", False, b"", True)


@pytest.mark.parametrize("message", ["no paint", "é" * 100_000])
async def test_a_stream_that_fails(stub: Any, message: str) -> None:
    """What came before arrives; then the call ends INTERNAL, with the error as JSON however long it was."""
    call = stub.ExecuteStreamingTool(asking("drip", after=2, message=message))
    assert [(await call.read()).data for _ in range(2)] == [b"0", b"1"]
    with pytest.raises(aio.AioRpcError) as raised:
        await call.read()
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    described = json.loads(raised.value.details() or "")
    assert described["type"] == "ValueError"
    assert message.startswith(described["message"])
    assert described["context"] == {"tool_name": "drip", "session_id": "alice", "phase": "execute"}


@pytest.mark.parametrize("request_", [asking("pant"), asking("strokes", vals=[]), asking("leave")], ids=str)
async def test_a_stream_that_cannot_begin(stub: Any, request_: pb.ExecuteToolRequest) -> None:
    """Unknown tools, bad arguments and exits end a stream INTERNAL in the same shape."""
    with pytest.raises(aio.AioRpcError) as raised:
        await chunks(stub, request_)
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert error_name(raised.value.details() or "") in ("ToolNotFound", "InvalidArguments", "SystemExit")


@pytest.mark.parametrize("tool", ["endless"])
async def test_a_stream_that_is_cancelled(stub: Any, tool: str) -> None:
    """When the authority leaves a stream, the generator is closed and the worker serves on."""
    call = stub.ExecuteStreamingTool(asking(tool))
    assert json.loads((await call.read()).data) == 0
    call.cancel()
    await until(Painting.closed.is_set)
    assert await result(stub, asking("add", a=1)) == 2
