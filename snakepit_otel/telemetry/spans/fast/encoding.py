"""Encodings of an operation's attributes, kept with the attributes that they are made from."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.trace import SpanContext

from snakepit_otel.telemetry._attributes import AttributeSet, Details
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry.spans.base import SpanOperation
from snakepit_otel.telemetry.spans.fast import otlp

_NOT_ENCODABLE = object()
_MAX_CACHED = 1_000
_MAX_LINKS = 32  # the limit on links is larger, or spans are not encoded here: see compat.py


def of_details(details: Details) -> bytes | None:
    """Return the encoded attributes; None if OpenTelemetry is to encode them."""
    form = details.span_form
    if form is None:
        encoded = otlp.attributes(details.values)
        details.span_form = _NOT_ENCODABLE if encoded is None else encoded
        return encoded
    return None if form is _NOT_ENCODABLE else form


def common(
    point: Point, name: str, labels: AttributeSet, *, remote_parent: bool
) -> tuple[bytes, frozenset[str]] | None:
    """Return the encoding that spans of a point with these attributes share, and its keys; None as above."""
    # One place to look for nearly every span: the point, where its name is its own.
    key = (point, name, remote_parent) if remote_parent or name is not point.span else point
    known: tuple[bytes, frozenset[str]] | None = labels.span_cache.get(key)
    if known is None:
        encoded = of_details(labels)
        if encoded is None or not labels.values.keys().isdisjoint(point.fixed):
            return None
        shared = otlp.identity(name, point.kind, remote_parent=remote_parent)
        shared += (otlp.attributes(point.fixed) or b"") + encoded
        known = (shared, frozenset((*point.fixed, *labels.values)))
        if len(labels.span_cache) < _MAX_CACHED:
            labels.span_cache[key] = known
    return known


def of_links(links: Sequence[SpanContext]) -> bytes | None:
    """Return the encoded links; None as above."""
    if len(links) > _MAX_LINKS or not all(link and link.is_valid for link in links):
        return None
    return b"".join([otlp.link(link.trace_id, link.span_id, remote=link.is_remote) for link in links])


def after_times(operation: SpanOperation, *, remote_parent: bool) -> bytes | None:
    """Return all of a span but its ids and times; None if OpenTelemetry is to encode the span."""
    known = common(operation.point, operation.span_name, operation.labels, remote_parent=remote_parent)
    if known is None:
        return None
    rest, keys = known
    # Where one key has two values the later one counts, which we leave to OpenTelemetry.
    details = operation.details
    if details is not None:
        encoded = details.span_form
        if encoded.__class__ is not bytes:
            encoded = of_details(details)
        if encoded is None or not keys.isdisjoint(details.values):
            return None
        rest += encoded
    if operation.late:
        late = otlp.attributes(operation.late)
        if late is None or not keys.isdisjoint(operation.late):
            return None
        if details is not None and not details.values.keys().isdisjoint(operation.late):
            return None
        rest += late
    if operation.links:
        links = of_links(operation.links)
        if links is None:
            return None
        rest += links
    return rest if operation.failure is None else rest + otlp.error_status(operation.message)
