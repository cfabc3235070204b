"""Estimates of the bytes that a queued item takes, in memory and in a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk import _logs
from opentelemetry.sdk.trace import ReadableSpan

_ITEM_BYTES = 256
_VALUE_BYTES = 16


def encoded_size(item: Any) -> int:
    """Return the size of an encoded item, or a guess for an object."""
    return len(item) if item.__class__ is bytes else 2 * _ITEM_BYTES


def span_size(item: ReadableSpan | bytes) -> int:
    """Return the estimated size of a span, encoded or not."""
    if item.__class__ is bytes:
        return len(item)
    assert isinstance(item, ReadableSpan)
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
