"""Work as data: lifecycle points and a user's own spans, to be done the same way by every maker."""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from copy import deepcopy
from dataclasses import dataclass, field
from types import MethodType
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st
from opentelemetry import context as context_api
from opentelemetry import propagate, sdk, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from snakepit_otel.telemetry import (
    Operation,
    _decorators,
    _guard,
    _instruments,
    _lean_spans,
    _operation,
    _request_steps,
    names,
    observed,
)
from snakepit_otel.telemetry._attributes import AttributeSet, Details
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry.export.export_queue import BatchSettings
from snakepit_otel.telemetry.export.exporters import ExportResult
from snakepit_otel.telemetry.export.ledger import Ledger
from snakepit_otel.telemetry.export.spans import SpanPipeline
from snakepit_otel.telemetry.spans import select
from snakepit_otel.telemetry.spans.base import SpanMaker
from snakepit_otel.telemetry.spans.fast import batch, compat
from snakepit_otel.telemetry.spans.fast import maker as maker_module
from snakepit_otel.telemetry.spans.fast import span as fast_span
from snakepit_otel.telemetry.spans.sdk import SdkSpanMaker

# ---- what is done


class Word(enum.StrEnum):
    ONE = "one"


class Number(enum.IntEnum):
    TWO = 2


class Named:
    """What OpenTelemetry asks for its text."""

    def __str__(self) -> str:
        return "named"


@dataclass(frozen=True)
class Call:
    """A call on the current span."""

    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class UserSpan:
    """A span of another tracer."""

    name: str
    attributes: Mapping[str, Any]
    calls: tuple[Call, ...] = ()
    children: tuple[Node, ...] = ()


@dataclass(frozen=True)
class OperationNode:
    """An operation through a lifecycle point."""

    point: Point
    name: str | None = None
    parent: SpanContext | None = None
    labels: Mapping[Any, Any] = field(default_factory=dict)
    details: Mapping[Any, Any] | None = None
    links: tuple[SpanContext, ...] = ()
    calls: tuple[Call, ...] = ()
    children: tuple[Node, ...] = ()
    late: tuple[Mapping[Any, Any], ...] = ()
    late_links: tuple[SpanContext, ...] = ()
    fails: tuple[str, str] | None = None
    raises: Exception | None = None
    how: str = "block"
    """As a block; in `steps`, as a stream is observed; as a call that `arrives` with metadata; or by decorators.

    These know no more than the labels, the details and what is raised: as a `function`, or as a `request` with
    the steps that an adapter's have, in the third of which all happens.
    """


Node = OperationNode | UserSpan

STATE = TraceState([("vendor", "1"), ("other", "a:b")])
REMOTE = (
    SpanContext(0x1111 << 112 | 0x0123, 0xA1, True, TraceFlags(1), STATE),
    SpanContext(0x2222 << 112 | 0xF << 60, 0xA2, True, TraceFlags(3)),
    SpanContext(0x3333 << 112 | 0x0456, 0xA3, True, TraceFlags(0), STATE),
    SpanContext(0x4444 << 112 | 0xF << 60, 0xA4, True, TraceFlags(2)),
)
INVALID = SpanContext(0, 0, True)
INVALID_WITH_STATE = SpanContext(0, 0, False, TraceFlags(0), STATE)
LINKED = (*REMOTE, SpanContext(7 << 100, 0xA5, False), INVALID, INVALID_WITH_STATE)
ITSELF = object()
"""Stands for the context of the span that is current when the script comes there."""

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6) | st.sampled_from(["", "é🎉", "x" * 300])
TEXTS = st.text(max_size=6) | st.sampled_from(["", "🎉", "\ud800", "a\udfffb", "long " * 60])
NUMBERS = st.integers(-(2**70), 2**70) | st.sampled_from([0, 127, 128, -1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1])
SCALARS = (
    TEXTS | st.booleans() | NUMBERS | st.floats() | st.none() | st.binary(max_size=4)
    | st.sampled_from([Word.ONE, Number.TWO, Named()])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2) | st.tuples(inner, inner),
    max_leaves=4,
)
KEYS = st.sampled_from(
    ["a", "b", "c", "", "k\ud800", names.SNAKEPIT_TOOL_NAME, names.ERROR_TYPE, names.SNAKEPIT_OPERATION, 5]
)
USUAL = st.text("ab🎉", max_size=3) | st.booleans() | st.integers(-3, 300) | st.floats(0, 1)
ATTRIBUTES = st.dictionaries(st.sampled_from(["a", "b", "c"]), USUAL, max_size=3) | st.dictionaries(
    KEYS, VALUES, max_size=4
)
STATUSES = st.sampled_from([StatusCode.OK, StatusCode.ERROR, StatusCode.UNSET])
CALLS = st.one_of(
    st.builds(lambda key, value: Call("set_attribute", (key, value)), KEYS, VALUES),
    st.builds(lambda found: Call("set_attributes", (found,)), ATTRIBUTES),
    st.builds(
        lambda name, found, at: Call("add_event", (name, found, at)),
        NAMES, st.none() | ATTRIBUTES, st.none() | st.integers(0, 2**62),
    ),
    st.builds(lambda text, found: Call("record_exception", (ValueError(text), found)), TEXTS, st.none() | ATTRIBUTES),
    st.builds(lambda name: Call("update_name", (name,)), NAMES),
    st.builds(lambda code, text: Call("set_status", (code, text)), STATUSES, st.none() | NAMES),
    st.builds(lambda code: Call("set_status", (Status(code),)), STATUSES),
    st.builds(
        lambda to, found: Call("add_link", (to, found)), st.sampled_from([*LINKED, ITSELF]), st.none() | ATTRIBUTES
    ),
)  # fmt: skip
ERRORS = st.builds(lambda kind, text: kind(text), st.sampled_from([ValueError, KeyError, RuntimeError]), TEXTS)
POINTS = st.sampled_from(
    [names.SESSION_CREATE, names.ADAPTER_EXECUTE, names.RPC_CLIENT, names.RPC_SERVER, names.REQUEST]
)


def few(strategy: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[tuple[Any, ...]]:
    """A short tuple, more often than not empty."""
    return st.just(()) | st.lists(strategy, max_size=most).map(tuple)


def _passages(children: st.SearchStrategy[tuple[Node, ...]], *ways: str) -> st.SearchStrategy[Node]:
    return st.builds(
        OperationNode,
        POINTS,
        st.none() | NAMES,
        st.none() | st.sampled_from([*REMOTE, INVALID]),
        ATTRIBUTES,
        st.none() | ATTRIBUTES,
        few(st.sampled_from(LINKED)),
        few(CALLS, 3),
        children,
        few(ATTRIBUTES),
        few(st.sampled_from(LINKED)),
        st.none() | st.tuples(st.sampled_from(["timeout", "refused"]), TEXTS),
        st.none() | ERRORS,
        st.sampled_from(ways or ("block", "steps", "arrives", "function", "request")),
    )


def _user_spans(children: st.SearchStrategy[tuple[Node, ...]]) -> st.SearchStrategy[Node]:
    return st.builds(UserSpan, NAMES, ATTRIBUTES, few(CALLS), children)


NODES: st.SearchStrategy[Node] = st.recursive(
    _passages(st.just(())) | _user_spans(st.just(())),
    lambda inner: _passages(few(inner)) | _user_spans(few(inner)),
    max_leaves=5,
)
SCRIPTS = st.lists(NODES, min_size=1, max_size=2)
REQUESTS = _passages(few(NODES, 1), "request")

# ---- how it is done


class Clock:
    """Both clocks of a process; stands still until `tick`."""

    def __init__(self) -> None:
        self._now = 1_700_000_000_000_000_000

    def tick(self) -> None:
        self._now += 1_000

    def __call__(self) -> int:
        return self._now


class Ids(IdGenerator):
    """Ids that can be foreseen; the low bits of trace ids are all over the place, for samplers by ratio."""

    def __init__(self, *, claims_random: bool = False) -> None:
        self.traces: list[int] = []
        self.spans: list[int] = []
        self._claims_random = claims_random

    def generate_trace_id(self) -> int:
        self.traces.append((len(self.traces) + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128)
        return self.traces[-1]

    def generate_span_id(self) -> int:
        self.spans.append(0xB00 + len(self.spans))
        return self.spans[-1]

    def is_trace_id_random(self) -> bool:
        return self._claims_random


@dataclass
class Run:
    """What was seen inside while a script was done, and what was exported."""

    seen: list[tuple[Any, ...]] = field(default_factory=list)
    exported: ExportTraceServiceRequest = field(default_factory=ExportTraceServiceRequest)


class _Performance:
    def __init__(self, provider: TracerProvider, clock: Clock, run: Run) -> None:
        self._tracer = provider.get_tracer("user", "1", "https://example.test/schema", {"of": "user"})
        self._clock = clock
        self._run = run

    def of(self, nodes: tuple[Node, ...]) -> None:
        for node in nodes:
            self._clock.tick()
            if isinstance(node, UserSpan):
                self._user_span(node)
            else:
                self._operation(node)
            self._clock.tick()

    def _user_span(self, node: UserSpan) -> None:
        with self._tracer.start_as_current_span(
            node.name, kind=SpanKind.PRODUCER, attributes=deepcopy(node.attributes)
        ):
            self._inside(node)

    def _operation(self, node: OperationNode) -> None:
        if node.how in ("function", "request"):
            self._decorated(node)
            return
        if node.how == "arrives":
            copy_context().run(self._arrival, node)
            return
        parent = None
        if node.parent is not None:
            parent = trace.set_span_in_context(NonRecordingSpan(node.parent), Context({"theirs": 1}))
        labels, details = deepcopy(node.labels), deepcopy(node.details)
        operation = Operation(
            node.point,
            AttributeSet(labels),
            None if details is None else lambda: details,
            span_name=node.name,
            parent=parent,
            links=list(node.links),
        )
        _spoil(labels)
        _spoil(details)
        if node.how == "steps":
            with operation.current():
                self._inside(node)
            self._outcome(operation, node)
            operation.end(node.raises)
            return
        try:
            with operation:
                self._inside(node)
                self._outcome(operation, node)
                if node.raises is not None:
                    raise node.raises
        except Exception as error:
            if error is not node.raises:
                raise
            error.__traceback__ = None

    def _arrival(self, node: OperationNode) -> None:
        metadata: dict[str, str] = {}
        if node.parent is not None:
            propagate.inject(metadata, trace.set_span_in_context(NonRecordingSpan(node.parent), Context()))
        details = None if node.details is None else Details(node.details)
        operation = Operation.from_start(node.point, AttributeSet(node.labels), details, 0)
        context_api.attach(Context())
        operation.start_remote(tuple(metadata.items()))
        self._inside(node)
        self._outcome(operation, node)
        if node.raises is None and not (node.late or node.fails):
            # As calls do that succeed; the cell makes it the short way.
            _instruments.cell_for(node.point, operation.labels, {})
            operation.end_labelled()
        else:
            operation.end(node.raises)

    def _decorated(self, node: OperationNode) -> None:
        labels, details = AttributeSet(deepcopy(node.labels)), deepcopy(node.details)

        def work() -> None:
            self._clock.tick()
            self._inside(node)
            self._clock.tick()
            if node.raises is not None:
                raise node.raises

        try:
            if node.how == "request":
                _to_its_end(_Requests(node, self._clock, labels, details).run(_request_steps.Stepped(), work))
            else:
                describe = None if details is None else lambda: details
                observed(node.point, labels=lambda: labels, details=describe)(work)()
        except Exception as error:
            if error is not node.raises:
                raise
            error.__traceback__ = None
        _spoil(details)

    def _inside(self, node: Node) -> None:
        context = trace.get_current_span().get_span_context()
        recording = trace.get_current_span().is_recording()
        self._run.seen.append((context.trace_id, context.trace_flags, context.trace_state.to_header(), recording))
        for call in node.calls:
            arguments = [
                trace.get_current_span().get_span_context() if argument is ITSELF
                # The SDK changes links in place, and exceptions are kept as they are.
                else argument if isinstance(argument, Exception | SpanContext)
                else deepcopy(argument)
                for argument in call.arguments
            ]  # fmt: skip
            getattr(trace.get_current_span(), call.method)(*arguments)
            for argument in arguments:
                _spoil(argument)
        self.of(node.children)

    def _outcome(self, operation: Operation, node: OperationNode) -> None:
        self._clock.tick()
        for late in deepcopy(node.late):
            operation.set(late)
            _spoil(late)
        for link in node.late_links:
            operation.link(link)
        if node.fails is not None:
            operation.fail(*node.fails)


class _Requests:
    """What observes a request and its steps."""

    def __init__(self, node: OperationNode, clock: Clock, labels: AttributeSet, details: Any) -> None:
        described = None if details is None else Details(details)
        run = _request_steps.request(node.point, lambda *_: labels, lambda *_: described)(_Requests._run)
        self.run = MethodType(run, self)
        self._clock = clock

    async def _run(self, request: _request_steps.Stepped, work: Callable[[], None]) -> None:
        self._clock.tick()
        self._prepare(request)
        self._clock.tick()
        await self._wait(request)
        self._clock.tick()
        self._work(request, work)
        self._clock.tick()
        self._clean_up(request, "with a subject")

    @_request_steps.step(names.ADAPTER_CLEANUP, quiet=True)
    def _clean_up(self, request: _request_steps.Stepped, _subject: str) -> None:
        self._clock.tick()

    @_request_steps.step(names.ADAPTER_BUILD, quiet=True)
    def _prepare(self, request: _request_steps.Stepped) -> None:
        self._clock.tick()

    @_request_steps.step(names.ADAPTER_INITIALIZE)
    async def _wait(self, request: _request_steps.Stepped) -> None:
        self._clock.tick()

    @_request_steps.step(names.ADAPTER_EXECUTE)
    def _work(self, request: _request_steps.Stepped, work: Callable[[], None]) -> None:
        work()


def _to_its_end(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits for something")


def _spoil(value: Any) -> None:
    """Change what was handed over, as its owner may; nobody may notice."""
    if isinstance(value, list | tuple):
        for item in value:
            _spoil(item)
    if isinstance(value, list):
        value.append("spoilt")
    if isinstance(value, dict):
        for item in value.values():
            _spoil(item)
        value["spoilt"] = True


@contextmanager
def _times(clock: Clock) -> Iterator[None]:
    with ExitStack() as undo:
        for module in (_operation, _decorators, _request_steps, batch, fast_span, maker_module, _lean_spans, sdk.trace):
            for name in ("perf_counter_ns", "time_ns"):
                if hasattr(module, name):
                    undo.enter_context(patch.object(module, name, clock))
        yield


def perform(script: list[Node], provider: TracerProvider, maker: SpanMaker) -> Run:
    """Do the script's work by a maker; fails where telemetry contained a fault."""
    run, clock = Run(), Clock()
    before = _guard.fault_count
    with _times(clock), patch.object(select, "span_maker", lambda: maker):
        _Performance(provider, clock, run).of(tuple(script))
    assert _guard.fault_count == before
    return run


# ---- by which maker it is done

RESOURCE = Resource({"service.name": "s", "of": ("a", "b")}, "https://example.test/resource")
ProviderOf = Callable[[], TracerProvider]


class ListeningPeer:
    """Takes encoded requests, and keeps them."""

    takes_bytes = True

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    def export_bytes(self, request: bytes) -> ExportResult:
        self.requests.append(request)
        return ExportResult(True)

    def abort(self) -> None:
        """Nothing is ever under way."""


def provided(**settings: Any) -> TracerProvider:
    """A provider of the SDK's."""
    return TracerProvider(**{"resource": RESOURCE, "shutdown_on_exit": False, **settings})


Use = Callable[[SpanMaker], Any]
Exporting = Callable[[TracerProvider, Use], ExportTraceServiceRequest]


def sdk_spans(provider: TracerProvider, use: Use) -> ExportTraceServiceRequest:
    """Return what is exported of spans by the provider's own tracer: all others are held to them."""
    memory = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    use(SdkSpanMaker(provider))
    return encode_spans(memory.get_finished_spans())


def object_spans(provider: TracerProvider, use: Use) -> ExportTraceServiceRequest:
    """Return what is exported of fast spans, which end as objects."""
    memory = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    maker = compat.maker_for(provider)
    assert maker.take is None
    use(maker)
    return encode_spans(memory.get_finished_spans())


def encoded_spans(provider: TracerProvider, use: Use) -> ExportTraceServiceRequest:
    """Return what is exported of fast spans, which are encoded when they end."""
    peer = ListeningPeer()
    pipeline = SpanPipeline(peer, provider.resource, Ledger()["traces"], BatchSettings())
    provider.add_span_processor(pipeline)
    try:
        use(compat.maker_for(provider))
    finally:
        assert pipeline.queue.close(10)
    return ExportTraceServiceRequest.FromString(b"".join(peer.requests))


def _run(exporting: Exporting, script: list[Node], provider: TracerProvider) -> Run:
    runs: list[Run] = []
    exported = exporting(provider, lambda maker: runs.append(perform(script, provider, maker)))
    runs[0].exported = exported
    return runs[0]


def by_sdk(script: list[Node], provider: TracerProvider) -> Run:
    """Do a script by `sdk_spans`."""
    return _run(sdk_spans, script, provider)


def by_objects(script: list[Node], provider: TracerProvider) -> Run:
    """Do a script by `object_spans`."""
    return _run(object_spans, script, provider)


def by_encodings(script: list[Node], provider: TracerProvider) -> Run:
    """Do a script by `encoded_spans`."""
    return _run(encoded_spans, script, provider)


# ---- what came of it


def canonical(request: ExportTraceServiceRequest) -> dict[tuple[bytes, ...], list[tuple[str, bytes]]]:
    """The spans by resource and scope, in order of their start, with ids by their first appearance."""
    request = deepcopy(request)
    spans = [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]
    theirs = {link.span_id.to_bytes(8, "big") for link in LINKED}
    their_traces = {link.trace_id.to_bytes(16, "big") for link in LINKED}
    ids: dict[bytes, bytes] = {b"": b""} | {known: b"theirs" + known for known in theirs}
    traces = {known: b"theirs" + known for known in their_traces}
    for span in sorted(spans, key=lambda span: span.start_time_unix_nano):
        assert span.span_id not in ids, "two spans have one id"
        ids[span.span_id] = b"%d" % len(ids)
        traces.setdefault(span.trace_id, b"%d" % len(traces))
    found: dict[tuple[bytes, ...], list[Any]] = {}
    for resource in request.resource_spans:
        about = (resource.resource.SerializeToString(deterministic=True), resource.schema_url.encode())
        for scope in resource.scope_spans:
            key = (*about, scope.scope.SerializeToString(deterministic=True), scope.schema_url.encode())
            found.setdefault(key, []).extend(scope.spans)
    for of_scope in found.values():
        of_scope.sort(key=lambda span: span.start_time_unix_nano)
        for span in of_scope:
            span.span_id = ids[span.span_id]
            span.parent_span_id = ids[span.parent_span_id]
            span.trace_id = traces[span.trace_id]
            span.attributes.sort(key=lambda attribute: attribute.key)
            for link in span.links:
                link.span_id, link.trace_id = ids[link.span_id], traces[link.trace_id]
                link.attributes.sort(key=lambda attribute: attribute.key)
            for event in span.events:
                event.attributes.sort(key=lambda attribute: attribute.key)
    # As text first, for whoever has to read a difference; NaN is not itself there, so the bytes go along.
    return {key: [(str(span), span.SerializeToString(deterministic=True)) for span in of] for key, of in found.items()}
