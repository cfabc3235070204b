"""Spans of a whole request, those of its steps and of the call that it came with, packed at once from a template.

What a request records is known beforehand: a span has the same bytes each time but for its ids, its times and what is
particular to the request. So one format holds all spans of one kind of request, and one call fills it in.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Any

from snakepit_otel.telemetry._attributes import AttributeSet, Details
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry._step_times import StepTimes
from snakepit_otel.telemetry.spans.fast import encoding, otlp

_START, _END = b"\x39", b"\x41"  # tags of the times
_PARENT, _ID = b"\x22\x08", b"\x12\x08"  # tags of the ids, with their lengths
_VARYING = 9 + 9 + 18 + 10 + 10  # bytes of the times and of the ids, with their tags
_STEPS = 5  # of a request that succeeded: four, and the request itself
_MAX_PLANS = 32  # kinds of requests of one tool
_MAX_TEMPLATES = 64  # sizes of particulars of one kind
_NO_DETAILS = Details({})


class Template:
    """Format of all spans of one kind of request, and the bytes that they begin with, which are always the same.

    What varies comes in this order: the end, details, the start, the ids of trace and parent, the span's own.
    """

    __slots__ = ("beginnings", "pack")

    def __init__(self, constants: list[bytes], size_of_details: int, server: bytes) -> None:
        def beginning(constant: bytes, size: int) -> bytes:
            return b"\x12" + otlp.length(len(constant) + size + _VARYING) + constant + _END

        steps = [beginning(constant, size_of_details) for constant in constants]
        self.beginnings = (*steps, beginning(server + otlp.NO_STATUS, 0))
        self.pack = _packer(tuple(map(len, self.beginnings)), size_of_details + 1)


@lru_cache(maxsize=1_000)
def _packer(sizes: tuple[int, ...], size_of_details: int) -> Any:
    *steps, server = sizes
    varying = "Q20s8s2s8s"
    return Struct(f"<{''.join(f'{size}sQ{size_of_details}s{varying}' for size in steps)}{server}sQ1s{varying}").pack


class WholePlan:
    """Parts that requests of one tool with the same steps share; without `constants` their spans have no template."""

    def __init__(self, points: tuple[Point, ...], labels: AttributeSet) -> None:
        known = [encoding.common(point, point.span, labels, remote_parent=False) for point in points]
        self.constants: list[bytes] | None = None
        self.keys: frozenset[str] = frozenset()
        if None not in known:
            self.constants = [shared + otlp.NO_STATUS for shared, _ in known]  # type: ignore[misc]
            self.keys = frozenset().union(*(keys for _, keys in known))  # type: ignore[misc]
        self.times = StepTimes(points, labels)
        self.templates: dict[tuple[int, bytes], Template] = {}

    def new_template(self, size_of_details: int, server: bytes) -> Template:
        assert self.constants is not None
        if len(self.templates) >= _MAX_TEMPLATES:
            self.templates.clear()
        made = self.templates[size_of_details, server] = Template(self.constants, size_of_details, server)
        return made


def encoded(span: Any, source: Any, server: bytes, start: int, end: int) -> tuple[bytes, int] | None:
    """Return the spans of a call and of the request that came with it, and their number, and record the durations.

    `span` is the call's, `source` has the steps, `server` is the call's span without its ids, times and
    status. None if the steps have no template; nothing is recorded then.
    """
    done = source.done
    if len(done) != _STEPS:
        return None
    of, labels, details = span.trace, source.labels, source.details or _NO_DETAILS
    (p0, s0, e0, i0), (p1, s1, e1, i1), (p2, s2, e2, i2), (p3, s3, e3, i3), (p4, s4, e4, _) = done
    plan = labels.step_cache.get((p0, p1, p2, p3, p4))
    if plan is None:
        plan = _new_plan((p0, p1, p2, p3, p4), labels)
    form = details.span_form
    if form.__class__ is not bytes:
        form = encoding.of_details(details)
    if plan.constants is None or form is None or of.state or not plan.keys.isdisjoint(details.values):
        return None
    template = plan.templates.get((len(form), server)) or plan.new_template(len(form), server)
    batch, clock, trace = source.batch, of.clock_offset, of.head
    span_id, request_id = span.span_id, batch.span_id
    own, top, form = span_id.to_bytes(8, "big"), request_id.to_bytes(8, "big"), form + _START
    trace += _PARENT
    new = batch.maker.new_span_id
    # Steps whose spans nothing has seen have no ids yet.
    i0, i1, i2, i3 = i0 or new(), i1 or new(), i2 or new(), i3 or new()
    b0, b1, b2, b3, b4, b5 = template.beginnings
    n0, n1, n2, n3, n4 = e0 + clock, e1 + clock, e2 + clock, e3 + clock, e4 + clock
    # Written out, which takes half of what a loop does.
    # fmt: off
    data = template.pack(
        b0, n0, form, s0 + clock, trace, top, _ID, i0.to_bytes(8, "big"),
        b1, n1, form, s1 + clock, trace, top, _ID, i1.to_bytes(8, "big"),
        b2, n2, form, s2 + clock, trace, top, _ID, i2.to_bytes(8, "big"),
        b3, n3, form, s3 + clock, trace, top, _ID, i3.to_bytes(8, "big"),
        b4, n4, form, s4 + clock, trace, own, _ID, top,
        b5, end, _START, start, trace, span.parent_id.to_bytes(8, "big"), _ID, own,
    )
    # fmt: on
    durations = (e0 - s0, e1 - s1, e2 - s2, e3 - s3, e4 - s4)
    plan.times.add((durations, (n0, n1, n2, n3, n4), of.trace_id, (i0, i1, i2, i3, request_id)))
    return data, _STEPS + 1


def _new_plan(points: tuple[Point, ...], labels: AttributeSet) -> WholePlan:
    plan = WholePlan(points, labels)
    if len(labels.step_cache) < _MAX_PLANS:
        labels.step_cache[points] = plan
    return plan
