"""A receiver's answers to exports: success, or none; and how much of an export it refused.

A receiver may be anything that happens to listen at an address, so nothing that it answers is taken at its word: a
body has a limit, a number a range, and a text a line.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

MOST_BYTES: Final = 64 << 10
"""Bytes that an answer has at most. A usual one has none, or a sentence."""
SUCCESS: Final = frozenset({200, 201, 202})
"""Statuses of HTTP that say success: OTLP's own, and what some receivers answer that only queue."""
_PROTOBUF = frozenset({"", "application/x-protobuf", "application/protobuf", "application/octet-stream"})
_JSON = "application/json"
_FORMS: Mapping[str, tuple[Any, str, str]] = {
    "traces": (trace_service_pb2.ExportTraceServiceResponse, "rejected_spans", "rejectedSpans"),
    "metrics": (metrics_service_pb2.ExportMetricsServiceResponse, "rejected_data_points", "rejectedDataPoints"),
    "logs": (logs_service_pb2.ExportLogsServiceResponse, "rejected_log_records", "rejectedLogRecords"),
}


class NoAnswer(Exception):
    """What came back is no answer to an export. It is not tried again, as the receiver may have taken the export."""


def rejected(signal: str, body: bytes, content_type: str = "") -> int:
    """Return how many items of an export a successful answer says were refused. Raises `NoAnswer`."""
    form, field, in_json = _FORMS[signal]
    if len(body) > MOST_BYTES:
        raise NoAnswer(f"an answer of more than {MOST_BYTES} bytes")
    if not body:
        return 0
    try:
        if content_type in _PROTOBUF:
            return max(0, int(getattr(form.FromString(body).partial_success, field)))
        if content_type == _JSON:
            # Numbers of 64 bits are texts in protobuf's JSON.
            return max(0, int((json.loads(body).get("partialSuccess") or {}).get(in_json) or 0))
    except Exception as error:  # noqa: BLE001 - whatever cannot be read is no answer
        raise NoAnswer(f"an answer that is none of OTLP's ({type(error).__name__})") from None
    raise NoAnswer(f"an answer that is none of OTLP's, of the type {content_type}")


def seconds_to_wait(retry_after: str | None) -> float | None:
    """Return what a `Retry-After` asks for, in seconds; None for none, for one that is over, and for nonsense."""
    try:
        text = (retry_after or "").strip()
        seconds = float(text) if text[:1].isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except Exception:  # noqa: BLE001 - dates may be malformed, and out of every range
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def asks_to_wait(retry_info: bytes) -> bool:
    """Whether a `google.rpc.RetryInfo` asks for a wait that is one."""
    try:
        delay = RetryInfo.FromString(retry_info).retry_delay
    except Exception:  # noqa: BLE001 - whatever cannot be read asks for nothing
        return False
    return delay.seconds >= 0 and delay.nanos >= 0 and bool(delay.seconds or delay.nanos)
