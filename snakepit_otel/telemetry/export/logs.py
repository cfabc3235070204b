"""Log records on their way out."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk.resources import Resource

from snakepit_otel.telemetry.export.ledger import Account
from snakepit_otel.telemetry.export.outbox import Batching, Outbox, Sent
from snakepit_otel.telemetry.export.parts import deliver, sent
from snakepit_otel.telemetry.export.peer import Peer
from snakepit_otel.telemetry.export.weights import of_log


class LogPipeline(LogRecordProcessor):
    """A log record processor that queues, batches and accounts for every record."""

    signal = "logs"

    def __init__(self, peer: Peer, account: Account, batching: Batching) -> None:
        self._peer = peer
        self.outbox = Outbox("logs", self._send, peer.abort, account, batching, of_log)

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """See `LogRecordProcessor`."""
        # Without its context, which would keep a request's objects alive for as long as the record waits.
        record = copy(log_record.log_record)
        record.context = Context()
        self.outbox.put(
            ReadableLogRecord(
                log_record=record,
                resource=log_record.resource or Resource.get_empty(),
                instrumentation_scope=log_record.instrumentation_scope,
                limits=log_record.limits,
            )
        )

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See `LogRecordProcessor`."""
        return self.outbox.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """See `LogRecordProcessor`."""
        self.outbox.close(3.0)

    def _send(self, batch: list[Any]) -> Sent:
        if self._peer.takes_bytes:
            return deliver(batch, _encode, self._peer.export_bytes, self.outbox.batching.batch_bytes)
        try:
            return sent(self._peer.export(batch), len(batch))
        except Exception:  # noqa: BLE001 - whatever the encoder raises, it is about one record or more of these
            if len(batch) == 1:
                return Sent(unencodable=1)
        middle = len(batch) // 2
        parts = (self._send(batch[:middle]), self._send(batch[middle:]))
        return Sent(*(sum(figures) for figures in zip(*parts, strict=True)))


def _encode(batch: Sequence[ReadableLogRecord]) -> bytes:
    return encode_logs(batch).SerializeToString()
