"""OTLP's encoding of a span, field by field (opentelemetry/proto/trace/v1/trace.proto).

Only parts that our own spans have; a test and the check at start hold it to OpenTelemetry's encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Any

_IDS = Struct(">HQ").pack
_IDS_AND_PARENT = Struct(">HQHQ").pack
_TIMES = Struct("<BQBQ").pack
_DOUBLE = Struct("<Bd").pack
_FLAGS = Struct("<HI").pack
_FIXED = 20 + 18  # bytes of both ids, and of both times
# Tags: the field's number times eight, plus how it is written.
_SPAN_ID, _PARENT_ID, _START, _END = 0x1208, 0x2208, 0x39, 0x41
_FLAGS_TAG = 0x0185
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200
MAX_ATTRIBUTES = 10  # of one set; the limits on a span have room for its three sets: see compat.py
_KINDS = {"internal": 1, "server": 2, "client": 3}
NO_STATUS = b"\x7a\x00"


def length(size: int) -> bytes:
    """Return a size as a varint."""
    if size < 0x80:
        return bytes((size,))
    if size < 0x4000:
        return bytes((size & 0x7F | 0x80, size >> 7))
    parts = []
    while size > 0x7F:
        parts.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((*parts, size))


_USUAL = 1_024
_SHORT = 120
_LENGTHS = [bytes((size,)) for size in range(128)]
_KEYS: dict[str, bytes] = {}  # encoded before
_BEGINNINGS = [b"\x12" + length(size) for size in range(_USUAL)]


def field(tag: bytes, content: bytes) -> bytes:
    """Return a field with a length: text, bytes or a message."""
    return tag + length(len(content)) + content


def attributes(values: Mapping[str, Any]) -> bytes | None:
    """Return the attributes as fields of a span.

    None if one is not text, a truth value or a number, if a key is not text, or if they are many.
    """
    if len(values) > MAX_ATTRIBUTES:
        return None
    encoded = []
    for key, value in values.items():
        if not key or key.__class__ is not str:
            return None
        try:
            if value.__class__ is str:
                encoded.append(text(key, value))
                continue
            if value.__class__ is bool:
                content = b"\x10\x01" if value else b"\x10\x00"
            elif value.__class__ is int and -(1 << 63) <= value < 1 << 63:
                content = b"\x18" + length(value & 0xFFFFFFFFFFFFFFFF)
            elif value.__class__ is float:
                content = _DOUBLE(0x21, value)
            else:
                return None
            encoded.append(field(b"\x4a", field(b"\x0a", key.encode()) + field(b"\x12", content)))
        except UnicodeEncodeError:
            # Half a surrogate pair is not text; OpenTelemetry's encoder leaves such a key out, too.
            continue
    return b"".join(encoded)


def text(key: str, value: str) -> bytes:
    """Return an attribute that is text. Raises `UnicodeEncodeError` for half a surrogate pair."""
    content = value.encode()
    size = len(content)
    name = _KEYS.get(key)
    if name is None:
        name = field(b"\x0a", key.encode())
        if len(_KEYS) < _USUAL:
            _KEYS[key] = name
    if len(name) + size < _SHORT:
        # As nearly all are; every length is then one byte.
        whole, of_value = _LENGTHS[len(name) + size + 4], _LENGTHS[size + 2]
        return b"".join((b"\x4a", whole, name, b"\x12", of_value, b"\x0a", _LENGTHS[size], content))
    return field(b"\x4a", name + field(b"\x12", field(b"\x0a", content)))


def trace(trace_id: int, state: str = "") -> bytes:
    """Return the fields that all spans of a trace begin with."""
    head = b"\x0a\x10" + trace_id.to_bytes(16, "big")
    return head + field(b"\x1a", state.encode()) if state else head


def identity(name: str, kind: str, *, remote_parent: bool) -> bytes:
    """Return the fields that all spans of one name, kind and kind of parent share."""
    flags = _HAS_IS_REMOTE | (_IS_REMOTE if remote_parent else 0)
    return field(b"\x2a", name.encode("utf-8", "replace")) + bytes((0x30, _KINDS[kind])) + _FLAGS(_FLAGS_TAG, flags)


def link(trace_id: int, span_id: int, *, remote: bool) -> bytes:
    """Return a link without attributes."""
    flags = _HAS_IS_REMOTE | (_IS_REMOTE if remote else 0)
    context = (
        b"\x0a\x10" + trace_id.to_bytes(16, "big") + _IDS(_SPAN_ID, span_id) + b"\x35" + flags.to_bytes(4, "little")
    )
    return field(b"\x6a", context)


def error_status(message: str) -> bytes:
    """Return the status of a span that failed."""
    text = field(b"\x12", message.encode("utf-8", "replace")) if message else b""
    return field(b"\x7a", text + b"\x18\x02")


def span(
    head: bytes, span_id: int, parent_id: int, start: int, end: int, rest: bytes, tail: bytes = NO_STATUS
) -> bytes:
    """Return a span as a field of its scope; `head` by `trace`, `rest` and `tail` the fields after the times."""
    times = _TIMES(_START, start, _END, end)
    ids = _IDS_AND_PARENT(_SPAN_ID, span_id, _PARENT_ID, parent_id) if parent_id else _IDS(_SPAN_ID, span_id)
    size = len(head) + len(ids) + len(times) + len(rest) + len(tail)
    begin = _BEGINNINGS[size] if size < _USUAL else b"\x12" + length(size)
    return b"".join((begin, head, ids, times, rest, tail))


def succeeded(head: bytes, span_id: int, parent_id: int, start: int, end: int, rest: bytes) -> bytes:
    """Return a span without a failure, as `span` does."""
    if parent_id:
        ids, size = _IDS_AND_PARENT(_SPAN_ID, span_id, _PARENT_ID, parent_id), len(head) + len(rest) + _FIXED + 2
    else:
        ids, size = _IDS(_SPAN_ID, span_id), len(head) + len(rest) + _FIXED - 8
    begin = _BEGINNINGS[size] if size < _USUAL else b"\x12" + length(size)
    return b"".join((begin, head, ids, _TIMES(_START, start, _END, end), rest, NO_STATUS))


def child(begin: bytes, head: bytes, span_id: int, parent_id: int, start: int, end: int, rest: bytes) -> bytes:
    """Return a span that has a parent, as `span` does; `begin` by `beginning`, `rest` all that follows the times."""
    ids, times = _IDS_AND_PARENT(_SPAN_ID, span_id, _PARENT_ID, parent_id), _TIMES(_START, start, _END, end)
    return b"".join((begin, head, ids, times, rest))


def beginning(head: bytes, rest: bytes) -> bytes:
    """Return what a span with a parent begins with, which depends on its length."""
    return b"\x12" + length(len(head) + _FIXED + len(rest))


def scope_spans(scope: bytes, schema_url: str, spans: bytes) -> bytes:
    """Return spans of one scope, an encoded message, as a field of their resource."""
    return field(b"\x12", field(b"\x0a", scope) + spans + _schema(schema_url))


def request(resource: bytes, schema_url: str, scopes: bytes) -> bytes:
    """Return an export request for what one resource, an encoded message, emitted."""
    return field(b"\x0a", field(b"\x0a", resource) + scopes + _schema(schema_url))


def _schema(url: str) -> bytes:
    return field(b"\x1a", url.encode()) if url else b""
