"""Telemetry that users make in their tools: spans, metrics, attributes, baggage and log lines."""

from __future__ import annotations

import pytest

from snakepit_otel import Snakepit
from snakepit_otel.testing import OtlpSink, Span
from tests.processes import program


async def run_example(sink: OtlpSink) -> None:
    """Run the example, its output aside."""
    environ = {
        **sink.environment,
        "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true",
        "SNAKEPIT_LOG_LEVEL": "info",
    }
    async with program("-m", "examples.own_telemetry", environ=environ) as started:
        await started.process.communicate()
    assert started.process.returncode == 0


def named(spans: list[Span], name: str) -> Span:
    """Return the one span of a name."""
    (span,) = [span for span in spans if span.name == name]
    return span


async def test_the_example_exports_all_of_it() -> None:
    """The span is inside the tool's, the attributes where the page says, the metrics and the line in the same trace."""
    with OtlpSink() as sink:
        await run_example(sink)
        request, handled, executed = (
            named(sink.spans, n) for n in ("execute request", "handle request", "execute tool")
        )
        own = named(sink.spans, "look up prices")
        assert own.parent_id == executed.span_id
        assert own.attributes["shop.items"] == 2
        assert executed.attributes["shop.first_item"] == "apple"
        assert request.attributes["tenant.id"] == handled.attributes["tenant.id"] == "acme"
        assert (request.service, handled.service) == ("shop", "snakepit-worker")
        assert {span.trace_id for span in (request, handled, executed, own)} == {request.trace_id}
        points = {point.metric: point for point in sink.points}
        assert points["shop.orders"].value == 1
        assert (points["shop.order.amount"].count, points["shop.order.amount"].value) == (1, 1.25)
        (line,) = [event for event in sink.events if event.body == "order of 1.25 EUR"]
        assert (line.trace_id, line.span_id) == (executed.trace_id, executed.span_id)


@pytest.mark.parametrize(
    ("changes", "parents"),
    [
        ({"level": "full"}, {"execute tool"}),
        ({"level": "essential"}, {"snakepit.bridge.BridgeService/ExecuteTool"}),
        ({"level": "off"}, {None}),
        ({"sampling": 0.0}, set()),
    ],
)
async def test_own_spans_follow_the_level(changes: dict[str, object], parents: set[str | None]) -> None:
    """They are inside what is recorded at the level; of a trace that is not sampled, they are not recorded."""
    with OtlpSink() as sink:
        pool = {"size": 1, "environment": sink.environment}
        async with Snakepit("examples.own_telemetry:Shop", pool=pool) as pit:
            await pit.set_telemetry(**changes)  # type: ignore[arg-type]
            await pit.execute("order", {"items": ["apple"]})
        names = {span.span_id: span.name for span in sink.spans}
        found = {names.get(str(span.parent_id)) for span in sink.spans if span.name == "look up prices"}
        assert found == parents
