"""Serving a provider of OpenTelemetry's SDK by lean spans, where that changes nothing for it."""

from __future__ import annotations

import os
from collections.abc import Callable

from opentelemetry.sdk.environment_variables import OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED
from opentelemetry.sdk.trace import (
    ConcurrentMultiSpanProcessor,
    ReadableSpan,
    SpanLimits,
    SpanProcessor,
    SynchronousMultiSpanProcessor,
    Tracer,
    TracerProvider,
    _Span,
)
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, Span, SpanContext, TraceFlags

from snakepit_otel.telemetry import _guard
from snakepit_otel.telemetry.spans import selfcheck as selftest
from snakepit_otel.telemetry.spans.fast import LeanLane, LeanSpan
from snakepit_otel.telemetry.spans.sdk import KINDS, known_at_start, tracer_of

_ONLY_AT_THE_END = (SpanProcessor, BatchSpanProcessor, SimpleSpanProcessor)
_PASSIVE = tuple(kind.on_start for kind in _ONLY_AT_THE_END)
_PASSIVE_TOO = tuple(kind._on_ending for kind in _ONLY_AT_THE_END)
_ROOM_FOR_OURS = 32


class CannotServe(Exception):
    """A provider with something that lean spans would not do justice to; says what."""


def adopt(provider: object) -> LeanLane:
    """Return the lane for a provider. Raises `CannotServe` where only its own tracer will do."""
    if type(provider) is not TracerProvider:
        raise CannotServe(f"the tracer provider is a {type(provider).__qualname__}")
    tracer = tracer_of(provider)
    if type(tracer) is not Tracer or not tracer._is_enabled():
        raise CannotServe("tracing is disabled for us")
    if os.environ.get(OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED, "").strip().lower() == "true":
        raise CannotServe("the SDK counts its own spans")
    active = provider._active_span_processor
    if type(active) not in (SynchronousMultiSpanProcessor, ConcurrentMultiSpanProcessor):
        raise CannotServe(f"spans go to a {type(active).__qualname__}")
    processors = active._span_processors
    for processor in processors:
        kind = type(processor)
        if kind.on_start not in _PASSIVE or kind._on_ending not in _PASSIVE_TOO:
            raise CannotServe(f"a {kind.__qualname__} wants to see spans before they have ended")
    follows_parent, sample_root = _sampling(tracer.sampler)
    generator = tracer.id_generator
    own_ids = type(generator) is not RandomIdGenerator

    def lane(take: Callable[[list[bytes]], None] | None, processor: SpanProcessor = active) -> LeanLane:
        return LeanLane(
            _inflater(tracer, processor),
            take,
            follows_parent=follows_parent,
            sample_root=sample_root,
            new_trace_id=generator.generate_trace_id if own_ids else None,
            new_span_id=generator.generate_span_id if own_ids else None,
            random_trace_ids=generator.is_trace_id_random(),
        )

    take = _taker(processors, tracer._span_limits)
    if take is not None:
        difference = selftest.differs(lambda taking, giving: lane(taking, _Giving(giving)))
        if difference is not None:
            _guard.contain("encoding spans; OpenTelemetry's encoder is used", RuntimeError(difference))
            take = None
    return lane(take)


def _inflater(tracer: Tracer, processor: SpanProcessor) -> Callable[[LeanSpan], Span]:
    """Return what makes the SDK's own span of a lean one; it goes to `processor` when it ends."""

    def inflate(span: LeanSpan) -> Span:
        passage = span.tell(span)
        whole = _Span(
            name=passage.span_name,
            context=span.get_span_context(),
            parent=_parent_of(span),
            sampler=tracer.sampler,
            resource=tracer.resource,
            attributes=known_at_start(passage),
            span_processor=processor,
            kind=KINDS[passage.point.kind],
            links=[Link(link) for link in passage.links],
            instrumentation_info=tracer.instrumentation_info,
            limits=tracer._span_limits,
            instrumentation_scope=tracer._instrumentation_scope,
        )
        passage.links = []
        whole.start(start_time=span.start)
        return whole

    return inflate


class _Giving(SpanProcessor):
    def __init__(self, give: Callable[[ReadableSpan], None]) -> None:
        self._give = give

    def on_end(self, span: ReadableSpan) -> None:
        self._give(span)


def _taker(processors: tuple[SpanProcessor, ...], limits: SpanLimits) -> Callable[[list[bytes]], None] | None:
    """Return what takes encoded spans, if only our own exporter wants them and no limit can touch ours."""
    if len(processors) != 1:
        return None
    cut = limits.max_span_attribute_length is not None
    few = any(most is not None and most < _ROOM_FOR_OURS for most in (limits.max_span_attributes, limits.max_links))
    take: Callable[[list[bytes]], None] | None = getattr(processors[0], "take_encoded", None)
    return None if cut or few else take


def _sampling(sampler: Sampler) -> tuple[bool, Callable[[int], bool]]:
    """Return whether spans follow their parent's decision, and how roots are decided."""
    follows_parent = isinstance(sampler, ParentBased)
    root = sampler
    if isinstance(sampler, ParentBased):
        ours = (
            sampler._remote_parent_sampled is ALWAYS_ON
            and sampler._remote_parent_not_sampled is ALWAYS_OFF
            and sampler._local_parent_sampled is ALWAYS_ON
            and sampler._local_parent_not_sampled is ALWAYS_OFF
        )
        if not ours or type(sampler).should_sample is not ParentBased.should_sample:
            raise CannotServe(f"the sampler is {sampler.get_description()}")
        root = sampler._root
    if isinstance(root, TraceIdRatioBased) and type(root).should_sample is TraceIdRatioBased.should_sample:
        bound, limit = root.bound, root.TRACE_ID_LIMIT
        return follows_parent, lambda trace_id: trace_id & limit < bound
    if isinstance(root, StaticSampler) and type(root).should_sample is StaticSampler.should_sample:
        decision = root._decision
        if decision.is_sampled() == decision.is_recording():
            sampled = decision.is_sampled()
            return follows_parent, lambda _: sampled
    raise CannotServe(f"the sampler is {sampler.get_description()}")


def _parent_of(span: LeanSpan) -> SpanContext | None:
    if not span.parent_id:
        return None
    of = span.trace
    return SpanContext(of.trace_id, span.parent_id, span.remote_parent, TraceFlags(of.flags), of.state)
