"""Responses of OTLP receivers: success or failure, and the number of items refused.

A receiver can be any program that listens at the address, so every part of a response is bounded: a body in bytes, a
number in range, a text in length.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

MAX_RESPONSE_BYTES: Final = 64 << 10
# OTLP's own status 200, and those of some receivers that only queue.
SUCCESS_STATUSES: Final = frozenset({200, 201, 202})
_PROTOBUF = frozenset({"", "application/x-protobuf", "application/protobuf", "application/octet-stream"})
_JSON = "application/json"
_NANOSECONDS = 1e9
# Raised for bodies that are not protobuf, not JSON, nested too deeply, or of another structure.
_UNREADABLE = (DecodeError, ValueError, RecursionError, AttributeError, TypeError, OverflowError)
_RESPONSES: Mapping[str, tuple[Any, str, str]] = {
    "traces": (trace_service_pb2.ExportTraceServiceResponse, "rejected_spans", "rejectedSpans"),
    "metrics": (metrics_service_pb2.ExportMetricsServiceResponse, "rejected_data_points", "rejectedDataPoints"),
    "logs": (logs_service_pb2.ExportLogsServiceResponse, "rejected_log_records", "rejectedLogRecords"),
}


class InvalidResponse(Exception):
    """A response that OTLP does not define. The export is not retried: the receiver may have accepted it."""


class Response(NamedTuple):
    """The outcome of one request. `retry_after` is in seconds; `rejected` counts items of an accepted request."""

    accepted: bool
    rejected: int = 0
    too_large: bool = False
    retryable: bool = False
    retry_after: float | None = None
    message: str = ""


def rejected_items(signal: str, body: bytes, content_type: str = "") -> int:
    """Return the number of items that a successful response rejects. Raises `InvalidResponse`."""
    response_class, field, json_field = _RESPONSES[signal]
    if len(body) > MAX_RESPONSE_BYTES:
        raise InvalidResponse(f"a response of more than {MAX_RESPONSE_BYTES} bytes")
    if not body:
        return 0
    try:
        if content_type in _PROTOBUF:
            return max(0, int(getattr(response_class.FromString(body).partial_success, field)))
        if content_type == _JSON:
            # 64-bit numbers are strings in protobuf's JSON.
            return max(0, int((json.loads(body).get("partialSuccess") or {}).get(json_field) or 0))
    except _UNREADABLE as error:
        raise InvalidResponse(f"a response that is not OTLP ({type(error).__name__})") from None
    raise InvalidResponse(f"a response that is not OTLP, of the type {content_type}")


def retry_after_seconds(retry_after: str | None) -> float | None:
    """Return the wait of a `Retry-After` header in seconds; None if it is absent, in the past or malformed."""
    try:
        text = (retry_after or "").strip()
        seconds = float(text) if text[:1].isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError, TypeError, OSError):
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def retry_info_seconds(retry_info: bytes) -> float | None:
    """Return the wait of a `google.rpc.RetryInfo` in seconds; None if it has none or is malformed."""
    try:
        delay = RetryInfo.FromString(retry_info).retry_delay
    except DecodeError:
        return None
    if delay.seconds < 0 or delay.nanos < 0:
        return None
    return delay.seconds + delay.nanos / _NANOSECONDS or None
