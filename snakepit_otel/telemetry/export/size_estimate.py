"""Estimates of the bytes that a queued item takes, in memory and in a request, and the number of those in one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from opentelemetry.sdk import _logs
from opentelemetry.sdk.trace import ReadableSpan

_ITEM_BYTES = 256
_VALUE_BYTES = 16


class Joined(NamedTuple):
    """Encoded items that are queued, sent and counted together, such as the spans of one request."""

    data: bytes
    items: int


def count_of(items: Iterable[Any]) -> int:
    """Return the number of items, each of those that are joined counted."""
    return sum([item.items if item.__class__ is Joined else 1 for item in items])


def encoded_size(item: Any) -> int:
    """Return the size of an encoded item, or a guess for an object."""
    if item.__class__ is Joined:
        return len(item.data)
    return len(item) if item.__class__ is bytes else 2 * _ITEM_BYTES


def span_size(item: ReadableSpan | bytes | Joined) -> int:
    """Return the estimated size of a span, encoded or not."""
    if item.__class__ is not ReadableSpan and not isinstance(item, ReadableSpan):
        return encoded_size(item)
    size = _ITEM_BYTES + _value_size(item.attributes) + _ITEM_BYTES * len(item.links)
    size += sum(_value_size(link.attributes) for link in item.links if link.attributes)
    return size + sum(_ITEM_BYTES + _value_size(event.attributes) for event in item.events)


def log_record_size(item: _logs.ReadableLogRecord) -> int:
    """Return the estimated size of a log record."""
    return _ITEM_BYTES + _value_size(item.log_record.body) + _value_size(item.log_record.attributes)


def _value_size(value: Any) -> int:
    if value.__class__ is str or value.__class__ is bytes:
        return _VALUE_BYTES + len(value)
    if isinstance(value, Mapping):
        return _VALUE_BYTES + sum(len(key) + _value_size(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return _VALUE_BYTES + sum(map(_value_size, value))
    return _VALUE_BYTES
