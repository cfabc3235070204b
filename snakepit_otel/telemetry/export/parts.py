"""Sends a batch as one request or, where it would be too large or cannot be encoded, in parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from snakepit_otel.common.printable import printable_error
from snakepit_otel.telemetry.export import quiet
from snakepit_otel.telemetry.export.outbox import Sent
from snakepit_otel.telemetry.export.peer import Answer

Item = TypeVar("Item")
_FINEST = 64
"""The share of a largest request below which none is split for its size: who refuses that much refuses anything."""


def deliver(
    batch: Sequence[Item],
    encode: Callable[[Sequence[Item]], bytes],
    export: Callable[[bytes], Answer],
    most_bytes: int,
) -> Sent:
    """Send a batch in requests of at most `most_bytes`; an item that is larger by itself has a request of its own.

    One that cannot be encoded, or that the peer refuses for its size, costs no other.
    """
    several = len(batch) > 1
    try:
        request = encode(batch)
    except Exception:  # noqa: BLE001 - whatever the encoder raises, it is about one item or more of these
        return _in_halves(batch, encode, export, most_bytes) if several else Sent(unencodable=1)
    if several and len(request) > most_bytes:
        return _in_halves(batch, encode, export, most_bytes)
    try:
        answer = export(request)
    except BaseException as error:  # noqa: BLE001 - whatever an exporter raises, these are lost, and not those sent before
        quiet.warn("%d items of telemetry are lost, since their export raised: %s", len(batch), printable_error(error))
        return Sent(failed=len(batch))
    if answer.too_large:
        if several and len(request) > most_bytes // _FINEST:
            return _in_halves(batch, encode, export, most_bytes)
        quiet.warn("telemetry of %d bytes is lost, since it is larger than its receiver takes", len(request))
    return sent(answer, len(batch))


def sent(answer: Answer, count: int) -> Sent:
    """Return what became of `count` items that a peer answered for."""
    if not answer.accepted:
        return Sent(failed=count)
    rejected = min(max(answer.rejected, 0), count)
    return Sent(count - rejected, rejected)


def _in_halves(batch: Sequence[Any], *how: Any) -> Sent:
    # So that one bad item among thousands costs a dozen more turns.
    middle = len(batch) // 2
    parts = deliver(batch[:middle], *how), deliver(batch[middle:], *how)
    return Sent(*(sum(figures) for figures in zip(*parts, strict=True)))
