"""Spans on their way out: those of our own scope encoded already, and everybody else's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext

from snakepit_otel._version import VERSION
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry.export.ledger import Account
from snakepit_otel.telemetry.export.outbox import Batching, Outbox, Sent
from snakepit_otel.telemetry.export.parts import deliver, sent
from snakepit_otel.telemetry.export.peer import Peer
from snakepit_otel.telemetry.export.weights import of_span
from snakepit_otel.telemetry.spans import otlp


class SpanPipeline(SpanProcessor):
    """A span processor that queues, batches and accounts for every span.

    `take_encoded` takes spans' OTLP bytes; None for exporters that want objects.
    """

    signal = "traces"

    def __init__(self, peer: Peer, resource: Resource, account: Account, batching: Batching) -> None:
        self._peer = peer
        self.outbox = Outbox("traces", self._send, peer.abort, account, batching, of_span)
        self.take_encoded: Callable[[list[bytes]], None] | None = None
        if peer.takes_bytes:
            self.take_encoded = self.outbox.put_all
            # One empty span's request has the resource and the scope as OpenTelemetry encodes them.
            scope = InstrumentationScope("snakepit_otel", VERSION, names.SCHEMA_URL)
            empty = ReadableSpan("", SpanContext(1, 1, False), resource=resource, instrumentation_scope=scope)
            (of_resource,) = encode_spans([empty]).resource_spans
            self._resource = of_resource.resource.SerializeToString()
            self._resource_schema = of_resource.schema_url
            self._scope = of_resource.scope_spans[0].scope.SerializeToString()

    def on_end(self, span: ReadableSpan) -> None:
        """See `SpanProcessor`."""
        context = span.get_span_context()
        if context is not None and context.trace_flags.sampled:
            self.outbox.put(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See `SpanProcessor`."""
        return self.outbox.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """See `SpanProcessor`."""
        self.outbox.close(3.0)

    def _send(self, batch: list[Any]) -> Sent:
        if not self._peer.takes_bytes:
            return sent(self._peer.export(batch), len(batch))
        return deliver(batch, self._encode, self._peer.export_bytes, self.outbox.batching.batch_bytes)

    def _encode(self, batch: Sequence[Any]) -> bytes:
        encoded = [item for item in batch if item.__class__ is bytes]
        others = [item for item in batch if item.__class__ is not bytes]
        request = encode_spans(others).SerializeToString() if others else b""
        if encoded:
            scope_spans = otlp.scope_spans(self._scope, names.SCHEMA_URL, b"".join(encoded))
            # Messages that follow each other are one: protobuf's repeated fields add up.
            request += otlp.request(self._resource, self._resource_schema, scope_spans)
        return request
