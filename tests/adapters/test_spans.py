"""The spans and durations of a request, and that they are one trace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry import trace

from snakepit_otel.adapters import BaseAdapter, tool
from snakepit_otel.errors import ToolNotFound
from snakepit_otel.sessions import SessionStore
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture, Span, tree
from tests.adapters.hosting import authority_of, hosted, request

tracer = trace.get_tracer(__name__)


class Plain(BaseAdapter):
    @tool
    def paint(self) -> int:
        with tracer.start_as_current_span("brush"):
            return 7

    @tool
    async def paint_async(self) -> int:
        with tracer.start_as_current_span("brush"):
            return 7

    @tool
    def count(self) -> Any:
        self.session_context.state["count"] = 1
        return self.session_context.state["count"]

    @tool
    async def count_async(self) -> Any:
        await self.session_context.state.aset("count", 1)
        return await self.session_context.state.aget("count")

    @tool
    def numbers(self) -> Iterator[int]:
        yield 1
        with tracer.start_as_current_span("brush"):
            pass
        yield 2

    @tool
    async def later(self) -> AsyncIterator[int]:
        yield 1
        with tracer.start_as_current_span("brush"):
            pass
        yield 2

    @tool
    def fail(self) -> None:
        raise ValueError("no paint")


class AsyncHooks(Plain):
    async def initialize(self) -> None: ...


REQUEST = """\
caller
  handle request
    build adapter
    initialize adapter
    execute tool
      brush
    clean up adapter"""

CALLING_BACK = """\
caller
  handle request
    build adapter
    initialize adapter
    execute tool
      call authority
        update session
      call authority
        access session
    clean up adapter"""


async def spans_of(adapter: type, name: str, capture: Capture, on_main_thread: bool = False) -> list[Span]:
    """Run one request inside a span of the caller's, and return all spans there were."""
    sessions = SessionStore()
    await sessions.create("alice")
    authority = authority_of(sessions)
    capture.clear()

    async def take(chunk: Any) -> None: ...

    with hosted(adapter) as host:
        asked = request(name, session_id="alice", authority=authority, on_main_thread=on_main_thread)
        with tracer.start_as_current_span("caller"), suppress(ValueError):
            await (host.stream(asked, take) if host.tools[name].supports_streaming else host.run(asked))
    return capture.spans()


@pytest.mark.parametrize("adapter", [Plain, AsyncHooks])
@pytest.mark.parametrize("name", ["paint", "paint_async", "numbers", "later"])
async def test_a_request_is_one_tree(adapter: type, name: str, capture: Capture) -> None:
    """Every phase has its span, the tool's own are inside, and all are one trace through thread and loop."""
    spans = await spans_of(adapter, name, capture)
    assert tree(spans) == REQUEST
    assert len({span.trace_id for span in spans}) == 1


@pytest.mark.parametrize("name", ["paint", "numbers"])
async def test_a_request_on_the_main_thread_has_the_same_tree(name: str, capture: Capture) -> None:
    """Where a request runs does not show in its spans."""
    assert tree(await spans_of(Plain, name, capture, on_main_thread=True)) == REQUEST


@pytest.mark.parametrize("adapter", [Plain, AsyncHooks])
@pytest.mark.parametrize("name", ["count", "count_async"])
async def test_call_backs_belong_to_the_tool(adapter: type, name: str, capture: Capture) -> None:
    """A use of state is a call to the authority inside the tool's span, in the same trace, and back."""
    spans = await spans_of(adapter, name, capture)
    assert tree(spans) == CALLING_BACK
    assert len({span.trace_id for span in spans}) == 1


async def test_spans_say_which_tool_adapter_and_session(capture: Capture) -> None:
    """Each span of a request has the tool's name, the adapter's and the session's id."""
    spans = await spans_of(Plain, "paint", capture)
    ours = [span for span in spans if span.name not in ("caller", "brush")]
    assert len(ours) == 5
    for span in ours:
        assert span.attributes[names.SNAKEPIT_TOOL_NAME] == "paint"
        assert span.attributes[names.SNAKEPIT_ADAPTER_NAME] == f"{__name__}.Plain"
        assert span.attributes[names.SESSION_ID] == "alice"
        assert span.ok


async def test_what_fails_is_marked(capture: Capture) -> None:
    """The tool's span and the request's have the error's type; the phases that went well do not."""
    spans = await spans_of(Plain, "fail", capture)
    failed = {span.name: span.attributes.get(names.ERROR_TYPE) for span in spans if not span.ok}
    assert failed == {"execute tool": "ValueError", "handle request": "ValueError"}


async def test_durations_carry_no_session(capture: Capture) -> None:
    """Each phase has a duration with the tool, adapter and phase; metrics never carry ids."""
    await spans_of(Plain, "fail", capture)
    points = capture.metrics()[names.METRIC_ADAPTER_PHASE_DURATION.name]
    by_phase = {point.attributes[names.SNAKEPIT_PHASE]: point for point in points}
    assert set(by_phase) == {"build", "initialize", "execute", "cleanup"}
    assert all(point.count == 1 for point in points)
    assert all(names.SESSION_ID not in point.attributes for point in points)
    assert by_phase["execute"].attributes[names.ERROR_TYPE] == "ValueError"
    assert names.ERROR_TYPE not in by_phase["cleanup"].attributes


async def test_an_unknown_tool_makes_no_series_of_its_own(capture: Capture) -> None:
    """A name that is no tool is counted under `_OTHER`, so that callers cannot make up series."""
    with hosted(Plain) as host, pytest.raises(ToolNotFound):
        await host.run(request("made-up"))
    (point,) = capture.metrics()[names.METRIC_ADAPTER_REQUEST_DURATION.name]
    assert point.attributes[names.SNAKEPIT_TOOL_NAME] == "_OTHER"
    assert point.attributes[names.ERROR_TYPE] == "ToolNotFound"
