"""Selects log records by the data of a query, as Loki does by its text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dashboards.logql import Body, LogQuery, Part, Value
from dashboards.promql import Matcher
from tests.dashboards.proof.records import Record

_NANO = 1_000_000_000


@dataclass(frozen=True)
class Line:
    """A log record as it is shown."""

    time: float
    """Seconds since 1970."""
    text: str
    labels: Mapping[str, str]


def select(query: LogQuery, among: Iterable[Record], start: float, end: float, limit: int = 1000) -> list[Line]:
    """Return the lines of the records from `start` until before `end`, the newest first, and no more than `limit`.

    Raises `ValueError` for a query that Loki refuses, because it chooses no streams.
    """
    if all(holds(matcher, "") for matcher in query.stream.values()):
        raise ValueError(f"matches streams without labels: {query.text}")
    found = [
        record
        for record in among
        if start * _NANO <= record.time < end * _NANO
        and all(holds(matcher, record.stream.get(label, "")) for label, matcher in query.stream.items())
        and all(holds(matcher, record.labels.get(label, "")) for label, matcher in query.filters)
    ]
    newest = sorted(found, key=lambda record: -record.time)[:limit]
    return [Line(record.time / _NANO, shown(query.line, record), record.labels) for record in newest]


def holds(matcher: Matcher, value: str) -> bool:
    """Whether a value is what a matcher says; a label that is not there has an empty one."""
    match matcher.operator:
        case "=":
            return value == matcher.text
        case "!=":
            return value != matcher.text
        case "=~":
            return _is_all_of(matcher.text, value)
        case "!~":
            return not _is_all_of(matcher.text, value)
        case other:
            raise ValueError(f"no operator of label matchers: {other}")


def shown(parts: Iterable[Part], record: Record) -> str:
    """Return a record as a query shows it."""
    parts = tuple(parts)
    return "".join(_part(part, record) for part in parts) if parts else record.line


def _part(part: Part, record: Record) -> str:
    match part:
        case Value(label, before):
            value = record.labels.get(label, "")
            return value if before is None or not value else f"{before}{value}"
        case Body():
            return record.line
        case text:
            return text


def _is_all_of(pattern: str, value: str) -> bool:
    return re.fullmatch(pattern, value, re.DOTALL) is not None
