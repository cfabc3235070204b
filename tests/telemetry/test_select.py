"""Selection of a span maker, for every kind of provider an application may have."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import (
    ConcurrentMultiSpanProcessor,
    Span,
    SpanLimits,
    SpanProcessor,
    SynchronousMultiSpanProcessor,
    TracerProvider,
)
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    AlwaysRecordSampler,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import NonRecordingSpan, set_span_in_context

from snakepit_otel.telemetry import Operation, _controls, _guard, names, outgoing
from snakepit_otel.telemetry.export.export_queue import BatchSettings
from snakepit_otel.telemetry.export.ledger import Ledger
from snakepit_otel.telemetry.export.spans import SpanPipeline
from snakepit_otel.telemetry.spans import select
from snakepit_otel.telemetry.spans.fast import compat, otlp
from snakepit_otel.telemetry.spans.sdk import SdkSpanMaker
from tests.telemetry.scripted import REMOTE, ListeningPeer, provided

Use = Callable[[Any], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Make a provider the application's, as if nothing had been chosen yet."""
    for name, value in {"_provider": None, "_maker": None, "_logged": set()}.items():
        monkeypatch.setattr(select, name, value)
    return lambda provider: monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)


def way() -> str:
    """How the next root's spans are made."""
    maker = select.span_maker()
    if maker is None:
        return "none"
    if isinstance(maker, SdkSpanMaker):
        return "plain"
    return "adopted" if maker.take is None else "direct"


def ours(**settings: Any) -> tuple[TracerProvider, ListeningPeer, SpanPipeline]:
    """A provider as our set-up makes it."""
    provider, peer = provided(**settings), ListeningPeer()
    pipeline = SpanPipeline(peer, provider.resource, Ledger()["traces"], BatchSettings())
    provider.add_span_processor(pipeline)
    return provider, peer, pipeline


def stock(**settings: Any) -> tuple[TracerProvider, InMemorySpanExporter]:
    """A provider as most applications make it."""
    provider, memory = provided(**settings), InMemorySpanExporter()
    provider.add_span_processor(BatchSpanProcessor(memory))
    return provider, memory


def test_without_a_provider_nothing_is_made(use: Use) -> None:
    """Where there is no SDK there are no spans, and the caller's context goes on to whom we call."""
    use(trace.ProxyTracerProvider())
    assert way() == "none"
    parent = set_span_in_context(NonRecordingSpan(REMOTE[0]))
    with Operation(names.REQUEST, parent=parent) as operation:
        assert operation.span is None
        assert dict(outgoing())["traceparent"].split("-")[2] == f"{REMOTE[0].span_id:016x}"


def test_a_provider_that_comes_late_is_noticed(use: Use) -> None:
    """The choice is made anew when the application sets its provider."""
    use(trace.ProxyTracerProvider())
    assert way() == "none"
    use(stock()[0])
    assert way() == "adopted"


def test_our_own_setup_is_direct(use: Use) -> None:
    """With our exporter alone, spans are encoded as they end."""
    use(ours()[0])
    assert way() == "direct"


@pytest.mark.parametrize("active", [SynchronousMultiSpanProcessor, ConcurrentMultiSpanProcessor])
def test_a_stock_provider_is_adopted(use: Use, active: Callable[[], Any]) -> None:
    """A provider with the SDK's batch processor gets our spans as objects."""
    provider, memory = stock(active_span_processor=active())
    use(provider)
    assert way() == "adopted"
    with Operation(names.REQUEST):
        pass
    assert provider.force_flush()
    assert [span.name for span in memory.get_finished_spans()] == ["execute request"]


def test_a_provider_without_processors_is_adopted(use: Use) -> None:
    """A provider that exports nothing, as some set up for propagation alone, is served cheaply."""
    use(provided())
    assert way() == "adopted"


def test_two_exporters_need_objects(use: Use) -> None:
    """Two pipelines of ours share spans, which are objects then, and both get all."""
    provider, peer, first = ours()
    other = ListeningPeer()
    second = SpanPipeline(other, provider.resource, Ledger()["traces"], BatchSettings())
    provider.add_span_processor(second)
    use(provider)
    assert way() == "adopted"
    with Operation(names.REQUEST):
        pass
    assert first.queue.close(10)
    assert second.queue.close(10)
    assert (len(peer.requests), len(other.requests)) == (1, 1)


def test_a_processor_added_later_sees_the_next_trace(use: Use) -> None:
    """From direct to adopted, at the next root: a trace under way is finished as it was begun."""
    provider, peer, pipeline = ours()
    use(provider)
    memory = InMemorySpanExporter()
    with Operation(names.REQUEST):
        provider.add_span_processor(SimpleSpanProcessor(memory))
        with Operation(names.ADAPTER_EXECUTE):
            pass
    with Operation(names.SESSION_CREATE):
        assert way() == "adopted"
    assert pipeline.queue.close(10)
    assert [span.name for span in memory.get_finished_spans()] == ["create session"]
    request = b"".join(peer.requests)
    assert all(name in request for name in (b"execute request", b"execute tool", b"create session"))


class Starting(SpanProcessor):
    """Wants to see spans as they start."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        self.seen.append((span.name, dict(span.attributes or {})))


class ProcessExit(SpanProcessor):
    """Wants to change spans as they end."""

    def _on_ending(self, span: Span) -> None:
        span.set_attribute("seen", True)


class Stamping(BatchSpanProcessor):
    """A batch processor, and more."""

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        span.set_attribute("stamp", 1)


@pytest.mark.parametrize(
    "processor", [Starting(), ProcessExit(), Stamping(InMemorySpanExporter()), SynchronousMultiSpanProcessor()]
)
def test_processors_of_started_spans_get_the_real_ones(
    use: Use, processor: SpanProcessor, caplog: pytest.LogCaptureFixture
) -> None:
    """A processor that looks at spans before they have ended gets the SDK's own, and the log says once why."""
    caplog.set_level(logging.INFO, "snakepit_otel.telemetry")
    provider = provided()
    provider.add_span_processor(processor)
    use(provider)
    assert way() == "plain"
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    assert way() == "plain"
    assert [type(processor).__name__ in record.getMessage() for record in caplog.records] == [True]


def test_processors_see_at_the_start_what_is_known_then(use: Use) -> None:
    """Labels and details are there when a span starts."""
    provider, processor = provided(), Starting()
    provider.add_span_processor(processor)
    use(provider)
    with Operation(names.SESSION_CREATE, details=lambda: {"session.id": "s"}):
        pass
    assert processor.seen == [("create session", {"snakepit.operation": "create", "session.id": "s"})]


class OwnProvider(TracerProvider):
    """An application's own."""


class OwnActive(SynchronousMultiSpanProcessor):
    """An application's own way to its processors."""

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        """See all."""


class OwnSampler(Sampler):
    """An application's own, which marks what it samples."""

    def should_sample(self, *_: Any, **__: Any) -> SamplingResult:
        return SamplingResult(Decision.RECORD_AND_SAMPLE, {"rule": 7})

    def get_description(self) -> str:
        return "OwnSampler"


class OwnRatio(TraceIdRatioBased):
    """An application's own, of a known kind."""

    def should_sample(self, *arguments: Any, **named: Any) -> SamplingResult:
        return SamplingResult(Decision.DROP)


@pytest.mark.parametrize(
    "provider",
    [
        lambda: OwnProvider(shutdown_on_exit=False),
        lambda: provided(active_span_processor=OwnActive()),
        lambda: provided(sampler=OwnSampler()),
        lambda: provided(sampler=OwnRatio(0.5)),
        lambda: provided(sampler=ParentBased(OwnSampler())),
        lambda: provided(sampler=ParentBased(ALWAYS_ON, remote_parent_sampled=TraceIdRatioBased(0.1))),
        lambda: provided(sampler=ParentBased(ALWAYS_ON, local_parent_not_sampled=ALWAYS_ON)),
        lambda: provided(sampler=AlwaysRecordSampler(ALWAYS_OFF)),
        lambda: provided(sampler=StaticSampler(Decision.RECORD_ONLY)),
        lambda: provided(_tracer_configurator=lambda _: type("Off", (), {"is_enabled": False})()),
    ],
)
def test_what_is_not_stock_is_served_by_its_own_tracer(use: Use, provider: Callable[[], TracerProvider]) -> None:
    """Providers, samplers and switches whose workings we do not know do their own work; that is no fault."""
    before = _guard.fault_count
    use(provider())
    assert way() == "plain"
    assert _guard.fault_count == before


def test_a_custom_sampler_is_asked_for_every_span(use: Use) -> None:
    """What an application's sampler adds to spans is there."""
    provider, memory = provided(sampler=OwnSampler()), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    use(provider)
    with Operation(names.REQUEST), Operation(names.ADAPTER_EXECUTE):
        pass
    assert [dict(span.attributes or {}) for span in memory.get_finished_spans()] == [{"rule": 7}, {"rule": 7}]


def test_the_sdks_own_counts_are_kept_right(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the SDK counts its spans, it makes them."""
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "True")
    use(ours()[0])
    assert way() == "plain"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_span_attributes": 31}, "adopted"),
        ({"max_attributes": 31}, "adopted"),
        ({"max_links": 31}, "adopted"),
        ({"max_span_attribute_length": 1_000_000}, "adopted"),
        ({"max_attribute_length": 10}, "adopted"),
        ({"max_span_attributes": 32, "max_links": 32}, "direct"),
        ({"max_events": 0, "max_event_attributes": 0, "max_link_attributes": 0}, "direct"),
        ({"max_span_attributes": SpanLimits.UNSET, "max_links": SpanLimits.UNSET}, "direct"),
    ],
)
def test_limits_that_could_touch_ours_need_objects(use: Use, limits: dict[str, int], expected: str) -> None:
    """Where a limit may cut what we encode ourselves, the SDK cuts it."""
    use(ours(span_limits=SpanLimits(**limits))[0])
    assert way() == expected


@pytest.mark.parametrize(
    ("broken", "by"),
    [("NO_STATUS", b"\x7a\x02\x18\x01"), ("identity", lambda *_, **__: b""), ("trace", lambda *_: b"\x0a\x01\x00")],
)
def test_an_encoding_that_differs_is_not_used(use: Use, monkeypatch: pytest.MonkeyPatch, broken: str, by: Any) -> None:
    """Should OpenTelemetry's encoding come to differ from ours, theirs is used, and a fault is counted."""
    before = _guard.fault_count
    monkeypatch.setattr(otlp, broken, by)
    use(ours()[0])
    assert way() == "adopted"
    assert _guard.fault_count == before + 1
    assert way() == "adopted"
    assert _guard.fault_count == before + 1


def test_an_adoption_that_breaks_leaves_the_plain_way(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the SDK's inner names change, spans are made by the API, and a fault is counted."""
    before = _guard.fault_count
    monkeypatch.setattr(compat, "_Span", None)
    use(ours()[0])
    assert way() == "plain"
    assert _guard.fault_count == before + 1


def test_the_choice_does_not_depend_on_the_share_that_is_kept(use: Use) -> None:
    """With the sampling turned down to nothing, the way is the same."""
    before = _guard.fault_count
    _controls.set_sampling(0)
    try:
        use(ours()[0])
        assert way() == "direct"
    finally:
        _controls.set_sampling(1)
    assert _guard.fault_count == before


def test_no_thread_goes_by_half_a_choice(use: Use) -> None:
    """While one thread chooses, another does not find that there is nobody to make spans for."""
    use(ours()[0])
    selecting, go_on = threading.Event(), threading.Event()
    found: list[Any] = []
    maker_for = compat.maker_for

    def slowly(provider: object) -> Any:
        selecting.set()
        go_on.wait(10)
        return maker_for(provider)

    with patch.object(compat, "maker_for", slowly):
        first = threading.Thread(target=select.span_maker)
        first.start()
        assert selecting.wait(10)
        second = threading.Thread(target=lambda: found.append(select.span_maker()))
        second.start()
        second.join(0.05)
        go_on.set()
        first.join(10)
        second.join(10)
    assert found[0] is not None
