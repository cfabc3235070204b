"""Middleware around requests in a worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace

from snakepit_otel import BaseAdapter, Middleware, MiddlewareRequest, MiddlewareResult, RequestRefused, tool
from snakepit_otel.adapters._request import Request
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.bridge.worker.middleware_host import MiddlewareHost
from snakepit_otel.errors import InvalidArguments
from snakepit_otel.middleware._chain import MiddlewareChain
from snakepit_otel.testing import Capture, run_tool
from tests.adapters.hosting import request


class Painter(BaseAdapter):
    @tool
    def paint(self, colour: str = "red") -> str:
        return colour

    @tool
    async def paint_async(self, colour: str = "red") -> str:
        return colour

    @tool
    def strokes(self, count: int) -> Iterator[int]:
        yield from range(count)

    @tool
    def fail(self) -> None:
        raise ValueError("no paint")

    @tool
    def metadata(self) -> dict[str, str]:
        return self.session_context.request_metadata


class Tagging(Middleware):
    """Sets attributes and rewrites arguments."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.errors: list[BaseException] = []

    def before(self, request: MiddlewareRequest) -> None:
        assert request.side == "worker"
        request.set_attribute("tenant.id", "acme")
        if "colour" in request.arguments:
            request.arguments = {"colour": f"dark {request.arguments['colour']}"}

    def after(self, request: MiddlewareRequest, result: MiddlewareResult) -> None:
        self.results.append(result.value if result.chunks is None else f"{result.chunks} chunks")
        request.set_attribute("late", True)

    def on_error(self, request: MiddlewareRequest, error: BaseException) -> None:
        self.errors.append(error)
        request.set_attribute("late", True)


async def run(middleware: Middleware, job: Request, *, stream: bool = False) -> Any:
    """Run a request on a worker's host with one middleware."""
    with ToolThreads(1) as threads:
        host = MiddlewareHost(Painter, threads, middleware=MiddlewareChain([middleware]))
        if not stream:
            return (await host.run(job)).result
        chunks: list[Any] = []

        async def emit(chunk: Any) -> None:
            chunks.append(chunk)

        await host.stream(job, emit)
        return chunks


@pytest.mark.parametrize("name", ["paint", "paint_async"])
async def test_arguments_are_rewritten_before_they_are_checked(name: str) -> None:
    """The tool gets what the hooks have made of them, wherever it runs."""
    tagging = Tagging()
    assert await run(tagging, request(name, {"colour": "blue"})) == "dark blue"
    assert tagging.results == ["dark blue"]


async def test_a_stream_has_its_hooks_once() -> None:
    """After its last chunk, with their number."""
    tagging = Tagging()
    assert await run(tagging, request("strokes", {"count": 3}), stream=True) == [0, 1, 2]
    assert tagging.results == ["3 chunks"]


async def test_what_the_tool_raises_reaches_on_error_and_the_caller() -> None:
    """As it was raised; so does a refusal of its arguments."""
    tagging = Tagging()
    with pytest.raises(ValueError, match="no paint"):
        await run(tagging, request("fail"))
    with pytest.raises(InvalidArguments):
        await run(tagging, request("paint", {"size": 3}))
    assert [type(error) for error in tagging.errors] == [ValueError, InvalidArguments]


@pytest.mark.parametrize(("name", "session_id"), [("paint", "alice"), ("paint", None), ("fail", "alice")])
async def test_attributes_are_on_the_requests_span(capture: Capture, name: str, session_id: str | None) -> None:
    """Those of hooks after it as well, and beside what the span has of itself."""
    job = request(name, session_id=session_id)
    try:
        await run(Tagging(), job)
    except ValueError:
        assert name == "fail"
    (span,) = capture.spans("handle request")
    assert span.attributes["tenant.id"] == "acme"
    assert span.attributes["late"] is True
    assert span.attributes.get("session.id") == session_id
    assert span.attributes["snakepit.tool.name"] == name


async def test_attributes_are_on_the_requests_events(capture: Capture) -> None:
    """As on that of an exception, which comes out of the tool's thread."""
    with pytest.raises(ValueError, match="no paint"):
        await run(Tagging(), request("fail", session_id="alice"))
    (event,) = capture.events("snakepit.adapter.exception")
    assert event.attributes["tenant.id"] == "acme"
    assert event.attributes["exception.message"] == "no paint"


async def test_an_unsampled_request_runs_as_well() -> None:
    """Its attributes go to nobody."""
    unsampled = trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=True, trace_flags=trace.TraceFlags(0)))
    with trace.use_span(unsampled):
        assert await run(Tagging(), request("paint", {"colour": "blue"})) == "dark blue"


async def test_metadata_are_rewritten_for_the_tool() -> None:
    """What the bridge itself needs of them stays."""

    class Cleaning(Middleware):
        def before(self, request: MiddlewareRequest) -> None:
            assert request.metadata == {"token": "secret"}
            request.metadata = {"tenant": "acme"}

    job = request("metadata")
    job.context.request_metadata = {"token": "secret", "snakepit_pool": "gpu"}
    assert await run(Cleaning(), job) == {"snakepit_pool": "gpu", "tenant": "acme"}


async def test_run_tool_takes_middleware() -> None:
    """For users' tests, with the metadata of the request."""
    tagging = Tagging()
    metadata = {"tenant": "acme"}
    assert await run_tool(Painter, "metadata", middleware=[tagging], metadata=metadata) == metadata
    assert await run_tool(Painter, "paint", {"colour": "blue"}, middleware=[tagging]) == "dark blue"
    assert tagging.results == [metadata, "dark blue"]


async def test_a_refusal_builds_no_adapter() -> None:
    """The phase of the request says where it ended."""

    class Refusing(Middleware):
        def before(self, request: MiddlewareRequest) -> None:
            raise RequestRefused("no")

    job = request("paint")
    with pytest.raises(RequestRefused):
        await run(Refusing(), job)
    assert job.phase == "middleware"
