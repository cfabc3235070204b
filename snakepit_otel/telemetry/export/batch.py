"""A batch, sent as one request or, where that would be too large or cannot be encoded, as several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from snakepit_otel.telemetry.export.export_queue import LOST, BatchResult
from snakepit_otel.telemetry.export.exporters import ExportResult
from snakepit_otel.telemetry.export.rate_limited_log import Guard, warning
from snakepit_otel.telemetry.export.size_estimate import count_of

Item = TypeVar("Item")
# A receiver that rejects a 64th of the largest request for its size rejects everything, so that is not split.
_MIN_SPLIT_DIVISOR = 64


def send_batch(
    batch: Sequence[Item],
    encode: Callable[[Sequence[Item]], bytes],
    export: Callable[[bytes], ExportResult],
    max_bytes: int,
) -> BatchResult:
    """Send a batch in requests of at most `max_bytes`; a larger item has a request of its own.

    An item that cannot be encoded, or that the receiver rejects for its size, does not affect the others.
    """
    several, count = len(batch) > 1, count_of(batch)
    try:
        request = encode(batch)
    except Exception:  # noqa: BLE001 - one of the items cannot be encoded
        return _in_halves(batch, encode, export, max_bytes) if several else BatchResult(unencodable=count)
    if several and len(request) > max_bytes:
        return _in_halves(batch, encode, export, max_bytes)
    result = ExportResult(False)
    with Guard(LOST, count):
        result = export(request)
    if result.too_large:
        if several and len(request) > max_bytes // _MIN_SPLIT_DIVISOR:
            return _in_halves(batch, encode, export, max_bytes)
        warning("a request of %d bytes of telemetry is lost: it is larger than the receiver accepts", len(request))
    return result_of(result, count)


def result_of(result: ExportResult, count: int) -> BatchResult:
    """Return the result of `count` items from that of their export."""
    if not result.accepted:
        return BatchResult(failed=count)
    rejected = min(max(result.rejected, 0), count)
    return BatchResult(count - rejected, rejected)


def _in_halves(batch: Sequence[Any], *options: Any) -> BatchResult:
    # One bad item among thousands costs a dozen more requests.
    middle = len(batch) // 2
    return send_batch(batch[:middle], *options).plus(send_batch(batch[middle:], *options))
