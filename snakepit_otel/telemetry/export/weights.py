"""About how many bytes of memory, and of a request, an item that waits for its export takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.trace import ReadableSpan

_ITEM = 256
_VALUE = 16


def of_bytes(item: Any) -> int:
    """Return the size of an encoded item, or a guess for what is none."""
    return len(item) if item.__class__ is bytes else 2 * _ITEM


def of_span(item: ReadableSpan | bytes) -> int:
    """Return the weight of a span, encoded or not."""
    if item.__class__ is bytes:
        return len(item)
    assert isinstance(item, ReadableSpan)
    weight = _ITEM + _of(item.attributes) + _ITEM * len(item.links)
    weight += sum(_of(link.attributes) for link in item.links if link.attributes)
    return weight + sum(_ITEM + _of(event.attributes) for event in item.events)


def of_log(item: ReadableLogRecord) -> int:
    """Return the weight of a log record."""
    return _ITEM + _of(item.log_record.body) + _of(item.log_record.attributes)


def _of(value: Any) -> int:
    if value.__class__ is str or value.__class__ is bytes:
        return _VALUE + len(value)
    if isinstance(value, Mapping):
        return _VALUE + sum(len(key) + _of(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return _VALUE + sum(map(_of, value))
    return _VALUE
