"""Adapter to OpenTelemetry's SDK: the private names of the SDK that fast spans need are used here only."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

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
from snakepit_otel.telemetry.spans.fast import selfcheck
from snakepit_otel.telemetry.spans.fast.maker import FastSpanMaker
from snakepit_otel.telemetry.spans.fast.span import FastSpan
from snakepit_otel.telemetry.spans.sdk import KINDS, attributes_at_start, tracer_of

_END_ONLY = (SpanProcessor, BatchSpanProcessor, SimpleSpanProcessor)
_ON_START = tuple(kind.on_start for kind in _END_ONLY)
_ON_ENDING = tuple(kind._on_ending for kind in _END_ONLY)
_MIN_LIMIT = 32  # on attributes and links: the most that spans encoded here have


class Unsupported(Exception):
    """The provider needs spans of its own; the message names the reason."""


def maker_for(provider: object) -> FastSpanMaker:
    """Return the span maker for a provider. Raises `Unsupported` where only its own tracer will do."""
    if type(provider) is not TracerProvider:
        raise Unsupported(f"the tracer provider is a {type(provider).__qualname__}")
    tracer = tracer_of(provider)
    if type(tracer) is not Tracer or not tracer._is_enabled():
        raise Unsupported("tracing is disabled for us")
    if os.environ.get(OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED, "").strip().lower() == "true":
        raise Unsupported("the SDK counts its own spans")
    active: Any = tracer.span_processor
    if type(active) not in (SynchronousMultiSpanProcessor, ConcurrentMultiSpanProcessor):
        raise Unsupported(f"spans go to a {type(active).__qualname__}")
    # The SDK replaces this tuple when a processor is added.
    processors = active._span_processors
    for processor in processors:
        kind = type(processor)
        if kind.on_start not in _ON_START or kind._on_ending not in _ON_ENDING:
            raise Unsupported(f"a {kind.__qualname__} wants to see spans before they have ended")
    follows_parent, sample_root = _sampling(tracer.sampler)
    generator = tracer.id_generator
    own_ids = type(generator) is not RandomIdGenerator

    def maker(take: Callable[[list[bytes]], None] | None, processor: SpanProcessor = active) -> FastSpanMaker:
        return FastSpanMaker(
            _promoter(tracer, processor),
            take,
            None if take is None else getattr(processors[0], "take_joined", None),
            is_current=lambda: active._span_processors is processors,
            follows_parent=follows_parent,
            sample_root=sample_root,
            new_trace_id=generator.generate_trace_id if own_ids else None,
            new_span_id=generator.generate_span_id if own_ids else None,
            random_trace_ids=generator.is_trace_id_random(),
        )

    take = _encoded_span_consumer(processors, tracer._span_limits)
    if take is not None:
        difference = selfcheck.difference(lambda take, on_end: maker(take, _OnEnd(on_end)))
        if difference is not None:
            _guard.contain("encoding spans; OpenTelemetry's encoder is used", RuntimeError(difference))
            take = None
    return maker(take)


def _promoter(tracer: Tracer, processor: SpanProcessor) -> Callable[[FastSpan], Span]:
    """Return a function that makes the SDK's own span of a fast one; that span goes to `processor` when it ends."""

    def promote(span: FastSpan) -> Span:
        operation = span.owner.operation_for(span)
        sdk_span = _Span(
            name=operation.span_name,
            context=span.get_span_context(),
            parent=_parent_of(span),
            sampler=tracer.sampler,
            resource=tracer.resource,
            attributes=attributes_at_start(operation),
            span_processor=processor,
            kind=KINDS[operation.point.kind],
            links=[Link(link) for link in operation.links],
            instrumentation_info=tracer.instrumentation_info,
            limits=tracer._span_limits,
            instrumentation_scope=tracer._instrumentation_scope,
        )
        operation.links = []
        sdk_span.start(start_time=span.start)
        return sdk_span

    return promote


class _OnEnd(SpanProcessor):
    def __init__(self, on_end: Callable[[ReadableSpan], None]) -> None:
        self._on_end = on_end

    def on_end(self, span: ReadableSpan) -> None:
        self._on_end(span)


def _encoded_span_consumer(
    processors: tuple[SpanProcessor, ...], limits: SpanLimits
) -> Callable[[list[bytes]], None] | None:
    """Return the consumer of encoded spans, if our own exporter alone gets spans and no limit can touch them."""
    if len(processors) != 1 or limits.max_span_attribute_length is not None:
        return None
    if any(limit is not None and limit < _MIN_LIMIT for limit in (limits.max_span_attributes, limits.max_links)):
        return None
    return getattr(processors[0], "take_encoded", None)


def _sampling(sampler: Sampler) -> tuple[bool, Callable[[int], bool]]:
    follows_parent = isinstance(sampler, ParentBased)
    root = sampler
    if isinstance(sampler, ParentBased):
        # All but the root must be as in a sampler with the defaults.
        root = vars(sampler).get(_ROOT)  # type: ignore[assignment]
        if vars(sampler) != vars(ParentBased(root)) or type(sampler).should_sample is not ParentBased.should_sample:
            raise Unsupported(f"the sampler is {sampler.get_description()}")
    if isinstance(root, TraceIdRatioBased) and type(root).should_sample is TraceIdRatioBased.should_sample:
        bound, limit = root.bound, root.TRACE_ID_LIMIT
        return follows_parent, lambda trace_id: trace_id & limit < bound
    if isinstance(root, StaticSampler) and type(root).should_sample is StaticSampler.should_sample:
        decision = root.should_sample(None, 0, "").decision
        if decision.is_sampled() == decision.is_recording():
            sampled = decision.is_sampled()
            return follows_parent, lambda _: sampled
    raise Unsupported(f"the sampler is {sampler.get_description()}")


def _root_attribute() -> str:
    on, off = vars(ParentBased(ALWAYS_ON)), vars(ParentBased(ALWAYS_OFF))
    return next(name for name in on if on[name] is not off[name])


_ROOT = _root_attribute()


def _parent_of(span: FastSpan) -> SpanContext | None:
    if not span.parent_id:
        return None
    of = span.trace
    return SpanContext(of.trace_id, span.parent_id, span.remote_parent, TraceFlags(of.flags), of.state)
