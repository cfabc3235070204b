"""Traces that the collector keeps when chance keeps none."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import Span, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import INVALID_SPAN, StatusCode, Tracer, set_span_in_context

from tests.collector.landscape import Landscape, landscape, serve_some_requests
from tests.waiting import until

pytestmark = [pytest.mark.collector, pytest.mark.timeout(1800), pytest.mark.asyncio(loop_scope="module")]

SECOND = 1_000_000_000
ROOT_CONTEXT = set_span_in_context(INVALID_SPAN)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def land(otelcol: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Landscape]:
    """A collector that keeps no ordinary trace."""
    async with landscape(otelcol, tmp_path_factory.mktemp("land"), percentage=0) as running:
        yield running


@pytest.fixture
def tracer(land: Landscape) -> Iterator[Tracer]:
    """Makes spans that are at the collector as soon as they have ended."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(land.otlp, insecure=True)))
    yield provider.get_tracer("tests")
    provider.shutdown()


def started(tracer: Tracer, name: str, seconds: float = 0.01, parent: Span | None = None) -> tuple[Span, int]:
    """Start a span that is to take so long, and return it with the time to end it at."""
    now = time.time_ns()
    context = ROOT_CONTEXT if parent is None else set_span_in_context(parent)
    span = tracer.start_span(name, context, start_time=now - int(seconds * SECOND))
    assert isinstance(span, Span)
    return span, now


async def kept(land: Landscape, tracer: Tracer) -> list[str]:
    """Return the names of the spans that the back end has, once what came before is decided and sent."""
    # Traces are decided in the order of their roots, all of one second together and in any order: the second of two
    # that are kept, one after the other, arrives after everything that came before the first.
    for _ in range(2):
        sign, end = started(tracer, "a sign")
        sign.set_status(StatusCode.ERROR)
        sign.end(end)
        span_id = f"{sign.get_span_context().span_id:016x}"
        await until(lambda span_id=span_id: span_id in {span.span_id for span in land.sink.spans})
    return [span.name for span in land.sink.spans]


async def test_failed_requests_are_kept_and_ordinary_ones_are_not(
    land: Landscape, tracer: Tracer, short_path: Path
) -> None:
    """Of a real deployment's requests the bad one arrives whole, and so does the one that made strict mode warn."""
    await serve_some_requests(land, short_path)
    await kept(land, tracer)
    requests = [span for span in land.sink.spans if span.name == "execute request"]
    told = sorted((span.attributes["snakepit.tool.name"], span.attributes.get("strict_mode")) for span in requests)
    assert told == [("echo", True), ("fail", None)]
    (bad,) = [span for span in requests if not span.ok]
    trace = [span for span in land.sink.spans if span.trace_id == bad.trace_id]
    assert {"dispatch request", "handle request", "execute tool", "clean up adapter"} <= {span.name for span in trace}
    assert not [span for span in land.sink.spans if span.attributes.get("session.id") == "ordinary"]


async def test_what_keeps_a_trace(land: Landscape, tracer: Tracer) -> None:
    """An error, a long time, and strict mode on a span or on its event keep a trace, with all of its spans."""
    slow, end = started(tracer, "slow", seconds=61)
    slow.end(end)
    bad, end = started(tracer, "bad")
    child, _ = started(tracer, "ordinary child of a bad one", parent=bad)
    child.end(end)
    bad.set_status(StatusCode.ERROR)
    bad.end(end)
    strict, end = started(tracer, "strict")
    strict.set_attribute("strict_mode", True)
    strict.end(end)
    lax, end = started(tracer, "not strict")
    lax.set_attribute("strict_mode", False)
    lax.end(end)
    event, end = started(tracer, "strict by an event")
    event.add_event("accumulation_warning", {"strict_mode": True})
    event.end(end)
    ordinary, end = started(tracer, "ordinary")
    ordinary.end(end)
    names = set(await kept(land, tracer))
    expected = {"slow", "bad", "ordinary child of a bad one", "strict", "strict by an event"}
    assert expected <= names
    assert not {"ordinary", "not strict"} & names


async def test_late_spans_go_the_way_of_their_trace(land: Landscape, tracer: Tracer) -> None:
    """A span that comes after the decision is kept if its trace was, and not if it was not."""
    bad, end = started(tracer, "failed in time")
    bad.set_status(StatusCode.ERROR)
    bad.end(end)
    ordinary, end = started(tracer, "ordinary, in time")
    ordinary.end(end)
    await kept(land, tracer)
    for parent in (ordinary, bad):
        late, end = started(tracer, "late", parent=parent)
        late.end(end)
    found = await until(lambda: [span for span in land.sink.spans if span.name == "late"])
    assert [span.parent_id for span in found] == [f"{bad.get_span_context().span_id:016x}"]
