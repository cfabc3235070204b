"""From a real deployment through the real collector to a back end, and to Prometheus and back by PromQL."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from semconv import generate, prometheus_names
from tests.collector.landscape import Landscape, get, serve_some_requests
from tests.waiting import until

pytestmark = [pytest.mark.collector, pytest.mark.timeout(1800), pytest.mark.asyncio(loop_scope="module")]

SIGNALS = ("spans", "log_records", "metric_points")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def after(land: Landscape) -> Landscape:
    """The landscape after a deployment has come and gone, with everything decided, sent and scraped."""
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as folder:
        await serve_some_requests(land, Path(folder))
    for what in SIGNALS:
        accepted = land.own(f"otelcol_receiver_accepted_{what}")
        await until(lambda what=what, accepted=accepted: land.own(f"otelcol_exporter_sent_{what}") == accepted > 0)
    await until(lambda: land.value("sum(snakepit_request_duration_seconds_count)") == 4)
    return land


async def test_health_check_answers(land: Landscape) -> None:
    """A probe hears that the collector serves."""
    assert "Server available" in (get(land.health_port, "/") or "")


async def test_otlp_comes_in_over_http_as_well(land: Landscape) -> None:
    """The other port takes what the gRPC port takes."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{land.otlp_http}/v1/traces")))
    provider.get_tracer("tests").start_span("over HTTP", set_span_in_context(INVALID_SPAN)).end()
    provider.shutdown()
    await until(lambda: "over HTTP" in {span.name for span in land.sink.spans})


async def test_requests_are_counted_and_timed(after: Landscape) -> None:
    """PromQL gives the counts by tool, by error, and by bucket."""
    by_tool = after.query("sum by (snakepit_tool_name) (snakepit_request_duration_seconds_count)")
    counts = {series["metric"]["snakepit_tool_name"]: series["value"][1] for series in by_tool}
    assert counts == {"add": "2", "echo": "1", "fail": "1"}
    assert after.value('sum(snakepit_request_duration_seconds_count{error_type="ValueError"})') == 1
    assert after.value('sum(snakepit_request_duration_seconds_bucket{le="+Inf"})') == 4
    slowest = after.value("histogram_quantile(1, sum by (le) (snakepit_request_duration_seconds_bucket))")
    assert slowest is not None
    assert 0 < slowest < 60


async def test_sessions_are_gauges(after: Landscape) -> None:
    """Live sessions and their quota are there as they were, and created ones as a counter."""
    assert after.value("snakepit_session_count") == 2
    assert after.value("snakepit_session_limit") == 2
    assert after.value("snakepit_session_count / snakepit_session_limit") == 1
    assert after.value("snakepit_session_created_total") == 2


async def test_series_say_whose_they_are(after: Landscape) -> None:
    """Service, instance and side of the bridge are labels, so no join is needed; what no panel selects by is not."""
    (series,) = after.query("snakepit_session_count")
    labels = series["metric"]
    instance = labels.pop("service_instance_id")
    assert labels.pop("service_version")
    assert labels.pop("snakepit_session_store").startswith("memory-")
    assert labels == {
        "__name__": "snakepit_session_count",
        "service_name": "shop",
        "service_namespace": "web",
        "snakepit_role": "authority",
        "job": "web/shop",
        "instance": instance,
    }
    assert after.value("count(count by (service_instance_id) ({service_name='shop'}))") == 2


async def test_names_are_those_of_the_page(after: Landscape) -> None:
    """Every series is called, and has the labels, that the table in docs/collector.md says."""
    registry = generate.Registry.load()
    named: dict[str, dict[str, Any]] = {
        prometheus_names.series_name(group["metric_name"], group["instrument"], group["unit"]): group
        for group in registry.metrics
    }
    series = [one["metric"] for one in after.query('{service_name="shop", __name__!="target_info"}')]
    assert len({one["__name__"] for one in series}) > 20
    of_all = {"__name__", "service_name", "service_namespace", "service_version", "service_instance_id"}
    of_all |= {"snakepit_role", "job", "instance", "le"}
    for labels in series:
        name = labels["__name__"]
        group = named.get(name) or named.get(re.sub("_(bucket|sum|count)$", "", name))
        assert group is not None, f"{name} is of no metric in the registry"
        own = {prometheus_names.label_name(attribute) for attribute in generate.attribute_names(group)}
        assert set(labels) - of_all <= own, name


async def test_exemplars_lead_to_traces(after: Landscape) -> None:
    """A histogram's exemplar has the id of a trace that the back end has."""
    exemplars = await until(lambda: after.exemplars("snakepit_request_duration_seconds_bucket"))
    sent = {span.trace_id for span in after.sink.spans}
    for exemplar in exemplars:
        assert exemplar["labels"]["trace_id"] in sent
        assert exemplar["labels"]["span_id"] in {span.span_id for span in after.sink.spans}


async def test_traces_arrive_whole(after: Landscape) -> None:
    """The failing request's trace is at the back end, with the spans of both processes."""
    (request,) = (s for s in after.sink.spans if s.name == "execute request" and not s.ok)
    trace = [span for span in after.sink.spans if span.trace_id == request.trace_id]
    assert {"dispatch request", "handle request", "execute tool", "clean up adapter"} <= {span.name for span in trace}
    ids = {span.span_id for span in trace}
    assert [span.name for span in trace if span.parent_id not in ids] == ["snakepit.bridge.BridgeService/ExecuteTool"]


async def test_events_arrive(after: Landscape) -> None:
    """The warning that the quota is reached is at the back end, by name and with its attributes."""
    name = "snakepit.bridge.session.accumulation_warning"
    warnings = await until(lambda: [event for event in after.sink.events if event.name == name])
    (warning,) = (event for event in warnings if event.attributes["reason"] == "quota_exceeded")
    assert warning.attributes["strict_mode"] is True
    assert warning.attributes["current_sessions"] == 2
    # For stores that keep attributes only.
    assert warning.attributes["event.name"] == name
    assert warning.service == "shop"


async def test_collector_loses_nothing_and_says_so(after: Landscape) -> None:
    """What came in went out, by the collector's own metrics, and the back end has all of it."""
    own = after.own
    for what in SIGNALS:
        await until(lambda what=what: own(f"otelcol_exporter_sent_{what}") == own(f"otelcol_receiver_accepted_{what}"))
        assert own(f"otelcol_receiver_accepted_{what}") > 0
    assert len(after.sink.spans) == own("otelcol_receiver_accepted_spans")
    assert len(after.sink.events) == own("otelcol_receiver_accepted_log_records")
    text = get(after.own_port, "/metrics") or ""
    lost = re.findall(r"^otelcol_\w*(?:refused|failed|dropped)\w*(?:\{.*\})? (\S+)$", text, re.MULTILINE)
    assert lost
    assert set(lost) == {"0"}


async def test_collectors_own_metrics_are_in_prometheus(after: Landscape) -> None:
    """What a panel on the telemetry's health asks for is there."""
    assert await until(lambda: after.value("sum(otelcol_receiver_accepted_spans)"))
