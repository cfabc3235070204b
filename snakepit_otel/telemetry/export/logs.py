"""The export pipeline of log records."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.sdk import _logs
from opentelemetry.sdk.resources import Resource

from snakepit_otel.telemetry.export.batch import result_of, send_batch
from snakepit_otel.telemetry.export.export_queue import BatchResult, BatchSettings, ExportQueue
from snakepit_otel.telemetry.export.exporters import Exporter, ObjectExporter
from snakepit_otel.telemetry.export.ledger import Account
from snakepit_otel.telemetry.export.size_estimate import log_record_size


class LogPipeline(_logs.LogRecordProcessor):
    """A log record processor that queues, batches and counts every record."""

    signal = "logs"

    def __init__(self, exporter: Exporter, account: Account, settings: BatchSettings) -> None:
        self._exporter = exporter
        self.queue = ExportQueue("logs", self._send, exporter.abort, account, settings, log_record_size)

    def on_emit(self, log_record: _logs.ReadWriteLogRecord) -> None:
        # The context would keep a request's objects alive for as long as the record is queued.
        record = copy(log_record.log_record)
        record.context = Context()
        self.queue.put(
            _logs.ReadableLogRecord(
                log_record=record,
                resource=log_record.resource or Resource.get_empty(),
                instrumentation_scope=log_record.instrumentation_scope,
                limits=log_record.limits,
            )
        )

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.queue.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        self.queue.close(3.0)

    def _send(self, batch: list[Any]) -> BatchResult:
        exporter = self._exporter
        if exporter.takes_bytes:
            return send_batch(batch, _encode, exporter.export_bytes, self.queue.settings.batch_bytes)
        return _export_objects(exporter, batch)


def _export_objects(exporter: ObjectExporter, batch: list[Any]) -> BatchResult:
    try:
        return result_of(exporter.export(batch), len(batch))
    except Exception:  # noqa: BLE001 - one of the records cannot be encoded
        if len(batch) == 1:
            return BatchResult(unencodable=1)
    middle = len(batch) // 2
    return _export_objects(exporter, batch[:middle]).plus(_export_objects(exporter, batch[middle:]))


def _encode(batch: Sequence[_logs.ReadableLogRecord]) -> bytes:
    return encode_logs(batch).SerializeToString()
