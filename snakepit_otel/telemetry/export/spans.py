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
from snakepit_otel.telemetry import names, otlp
from snakepit_otel.telemetry.export.ledger import Account
from snakepit_otel.telemetry.export.outbox import Batching, Outbox, Sent
from snakepit_otel.telemetry.export.peer import Peer


class SpanPipeline(SpanProcessor):
    """A span processor that queues, batches and accounts for every span.

    `take_encoded` takes spans' OTLP bytes; None for exporters that want objects.
    """

    signal = "traces"

    def __init__(self, peer: Peer, resource: Resource, account: Account, batching: Batching) -> None:
        self._peer = peer
        self.outbox = Outbox("traces", self._send, peer.abort, account, batching)
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
        encoded = [item for item in batch if item.__class__ is bytes]
        others = [item for item in batch if item.__class__ is not bytes]
        request, unencodable = _encode_each(others)
        if encoded:
            scope_spans = otlp.scope_spans(self._scope, names.SCHEMA_URL, b"".join(encoded))
            # Messages that follow each other are one: protobuf's repeated fields add up.
            request += otlp.request(self._resource, self._resource_schema, scope_spans)
        if not request:
            return Sent(unencodable=unencodable)
        return sent(self._peer.export_bytes(request), len(batch) - unencodable, unencodable)


def _encode_each(spans: Sequence[ReadableSpan]) -> tuple[bytes, int]:
    """Encode spans, if need be without those that cannot be, and say how many these are."""
    if not spans:
        return b"", 0
    try:
        return encode_spans(spans).SerializeToString(), 0
    except Exception:  # noqa: BLE001 - whatever the encoder raises, it is about one span or more of these
        if len(spans) == 1:
            return b"", 1
    # By halves, so that one bad span among thousands costs a dozen more turns.
    middle = len(spans) // 2
    (first, lost), (second, lost_too) = _encode_each(spans[:middle]), _encode_each(spans[middle:])
    return first + second, lost + lost_too


def sent(answer: Any, count: int, unencodable: int = 0) -> Sent:
    """Say what became of `count` items that a peer answered for."""
    if not answer.accepted:
        return Sent(failed=count, unencodable=unencodable)
    rejected = min(answer.rejected, count)
    return Sent(count - rejected, rejected, unencodable)
