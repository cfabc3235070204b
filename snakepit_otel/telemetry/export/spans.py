"""The export pipeline of spans: encoded ones of our own scope, and objects of every other."""

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
from snakepit_otel.telemetry.export.batch import result_of, send_batch
from snakepit_otel.telemetry.export.export_queue import BatchResult, BatchSettings, ExportQueue
from snakepit_otel.telemetry.export.exporters import Exporter
from snakepit_otel.telemetry.export.ledger import Account
from snakepit_otel.telemetry.export.size_estimate import Joined, span_size
from snakepit_otel.telemetry.spans.fast import otlp


class SpanPipeline(SpanProcessor):
    """A span processor that queues, batches and counts every span.

    `take_encoded` queues the OTLP bytes of spans, `take_joined` those of several, one after the other, with their
    number; both are None for exporters of objects.
    """

    signal = "traces"

    def __init__(self, exporter: Exporter, resource: Resource, account: Account, settings: BatchSettings) -> None:
        self._exporter = exporter
        self.queue = ExportQueue("traces", self._send, exporter.abort, account, settings, span_size)
        self.take_encoded: Callable[[list[bytes]], None] | None = None
        self.take_joined: Callable[[bytes, int], None] | None = None
        if exporter.takes_bytes:
            self.take_encoded = self.queue.put_all
            self.take_joined = self.queue.put_joined
            # The request of one empty span has the resource and the scope as OpenTelemetry encodes them.
            scope = InstrumentationScope("snakepit_otel", VERSION, names.SCHEMA_URL)
            empty = ReadableSpan("", SpanContext(1, 1, False), resource=resource, instrumentation_scope=scope)
            (of_resource,) = encode_spans([empty]).resource_spans
            self._resource = of_resource.resource.SerializeToString()
            self._resource_schema = of_resource.schema_url
            self._scope = of_resource.scope_spans[0].scope.SerializeToString()

    def on_end(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        if context is not None and context.trace_flags.sampled:
            self.queue.put(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.queue.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        self.queue.close(3.0)

    def _send(self, batch: list[Any]) -> BatchResult:
        exporter = self._exporter
        if not exporter.takes_bytes:
            return result_of(exporter.export(batch), len(batch))
        return send_batch(batch, self._encode, exporter.export_bytes, self.queue.settings.batch_bytes)

    def _encode(self, batch: Sequence[Any]) -> bytes:
        encoded: list[bytes] = []
        others = []
        for item in batch:
            if item.__class__ is bytes:
                encoded.append(item)
            elif item.__class__ is Joined:
                encoded.append(item.data)
            else:
                others.append(item)
        request = encode_spans(others).SerializeToString() if others else b""
        if encoded:
            scope_spans = otlp.scope_spans(self._scope, names.SCHEMA_URL, b"".join(encoded))
            # Concatenated messages are one message: protobuf's repeated fields add up.
            request += otlp.request(self._resource, self._resource_schema, scope_spans)
        return request
