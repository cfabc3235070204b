"""Spans as plain values, and a trace as an indented tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Span:
    """A finished span, from the SDK or off the wire. Ids are hex; times are nanoseconds since the epoch.

    `links` are the ids of the spans that it is linked to.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    start: int
    end: int
    attributes: Mapping[str, Any]
    ok: bool
    service: str = ""
    links: tuple[str, ...] = ()

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return (self.end - self.start) / 1e6


def tree(spans: Iterable[Span], show: Callable[[Span], str] = lambda span: span.name) -> str:
    """Return the spans as an indented tree in order of start, one line each as `show` has it."""
    by_parent: dict[str | None, list[Span]] = {}
    all_spans = sorted(spans, key=lambda span: (span.start, span.end))
    known = {span.span_id for span in all_spans}
    for span in all_spans:
        by_parent.setdefault(span.parent_id if span.parent_id in known else None, []).append(span)
    lines: list[str] = []

    def add(parent: str | None, depth: int) -> None:
        for span in by_parent.get(parent, ()):
            lines.append("  " * depth + show(span))
            add(span.span_id, depth + 1)

    add(None, 0)
    return "\n".join(lines)
