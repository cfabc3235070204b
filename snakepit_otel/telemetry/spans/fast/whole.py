"""Spans of a whole request, those of its steps and of the call that it came with, packed at once from a template.

What a request records is known beforehand: a span has the same bytes each time but for its ids, its times and what is
particular to the request. So one format holds all spans of one kind of request, and one call fills it in.
"""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter
from struct import Struct
from typing import Any

from snakepit_otel.telemetry._attributes import AttributeSet, Details
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry._step_times import StepTimes
from snakepit_otel.telemetry.spans.fast import encoding, otlp

_POINT = itemgetter(0)
_START, _END = 0x39, 0x41  # tags of the times
_BEFORE_ID = b"%b\x22\x08%b\x12\x08"  # the trace's fields, the parent's id, and the tag of the span's own
_IDENTITY = 18 + 10 + 2  # bytes of the trace id and the parent's, with their tags, and of the tag of the span's own
_TAIL = 8 + 9 + 9  # bytes of the span's own id, and of its times
_MAX_PLANS = 32  # kinds of requests of one tool
_MAX_TEMPLATES = 64  # sizes of particulars of one kind
_NO_DETAILS = Details({})


class Template:
    """Format of all spans of one kind of request, and the bytes in it that are always the same."""

    __slots__ = ("constants", "pack", "server")

    def __init__(self, constants: list[bytes], size_of_details: int, server: bytes) -> None:
        # The bytes of a span begin with its length.
        sizes = [_IDENTITY + _TAIL + len(constant) + size_of_details for constant in constants]
        self.constants = [b"\x12" + otlp.length(size) + rest for size, rest in zip(sizes, constants, strict=True)]
        self.server = b"\x12" + otlp.length(_IDENTITY + _TAIL + len(server)) + server
        self.pack = _packer(tuple(map(len, self.constants)), size_of_details, len(self.server))


@lru_cache(maxsize=1_000)
def _packer(sizes: tuple[int, ...], size_of_details: int, server: int) -> Any:
    rest = f"{_IDENTITY}s8sBQBQ"
    steps = "".join(f"{size}s{size_of_details}s{rest}" for size in sizes)
    return Struct(f"<{steps}{server}s{rest}").pack


class WholePlan:
    """What requests of one tool with the same steps share; `constants` is None where their spans have no template."""

    def __init__(self, points: tuple[Point, ...], labels: AttributeSet) -> None:
        known = [encoding.common(point, point.span, labels, remote_parent=False) for point in points]
        self.constants: list[bytes] | None = None
        self.keys: frozenset[str] = frozenset()
        if None not in known:
            self.constants = [shared + otlp.NO_STATUS for shared, _ in known]  # type: ignore[misc]
            self.keys = frozenset().union(*(keys for _, keys in known))  # type: ignore[misc]
        self.times = StepTimes(points, labels)
        self._templates: dict[tuple[int, bytes], Template] = {}

    def template(self, size_of_details: int, server: bytes) -> Template:
        found = self._templates.get((size_of_details, server))
        if found is None:
            assert self.constants is not None
            if len(self._templates) >= _MAX_TEMPLATES:
                self._templates.clear()
            found = self._templates[size_of_details, server] = Template(self.constants, size_of_details, server)
        return found


def encoded(span: Any, source: Any, server: bytes, start: int, end: int) -> tuple[bytes, int] | None:
    """Return the spans of a call and of the request that came with it, and their number, and record the durations.

    `span` is the call's, `source` has the steps, `server` is the call's span without its ids and times. None if the
    steps have no template; nothing is recorded then.
    """
    of, done, request = span.trace, source.done, source.request
    points = tuple(map(_POINT, done))
    plan = request.labels.step_cache.get(points)
    if plan is None:
        plan = _new_plan(points, request.labels)
    details = request.details or _NO_DETAILS
    form = details.span_form
    if form.__class__ is not bytes:
        form = encoding.of_details(details)
    if plan.constants is None or form is None or of.state or not plan.keys.isdisjoint(details.values):
        return None
    template = plan.template(len(form), server)
    batch, clock_offset, trace = source.batch, of.clock_offset, of.head
    request_id = batch.span_id
    own = span.span_id.to_bytes(8, "big")
    top, new_span_id = request_id.to_bytes(8, "big"), batch.maker.new_span_id
    below = _BEFORE_ID % (trace, top)
    values: list[Any] = []
    ids: list[int] = []
    for constant, (_, started, ended, seen) in zip(template.constants, done, strict=True):
        # Steps whose spans nothing has seen have no ids yet.
        number = seen or new_span_id()
        if number == request_id:
            below = _BEFORE_ID % (trace, own)
        span_id = number.to_bytes(8, "big")
        ids.append(number)
        values += (constant, form, below, span_id, _START, started + clock_offset, _END, ended + clock_offset)
    parent = _BEFORE_ID % (trace, span.parent_id.to_bytes(8, "big"))
    data = template.pack(*values, template.server, parent, own, _START, start, _END, end)
    plan.times.add(done, clock_offset, of.trace_id, ids)
    return data, len(done) + 1


def _new_plan(points: tuple[Point, ...], labels: AttributeSet) -> WholePlan:
    plan = WholePlan(points, labels)
    if len(labels.step_cache) < _MAX_PLANS:
        labels.step_cache[points] = plan
    return plan
