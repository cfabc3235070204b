"""Durations of the steps of requests, kept as they come and folded into their histograms many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

from snakepit_otel.telemetry import _instruments
from snakepit_otel.telemetry._attributes import AttributeSet
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry._metric_cells import Histogram, Value

FOLD_SIZE = 250  # requests; small, since whoever adds the last one waits for the folding
_MAX_SOURCES = 64  # of one histogram
_NOTHING: dict[str, Any] = {}
Steps = Sequence[tuple[Point, int, int, int]]  # see `spans.base.Step`
_Request = tuple[Steps, int, int, Sequence[int]]


class StepTimes:
    """Durations of requests with the same steps and labels. Exact with many threads, as `Histogram` is."""

    def __init__(self, points: Sequence[Point], labels: AttributeSet) -> None:
        self._cells: list[Any] = [_instruments.cell_for(point, labels, _NOTHING) for point in points]
        self._new: list[_Request] = []
        self._lock = Lock()
        # Only histograms know when they are read.
        self._keeps = all(cell.__class__ is Histogram and len(cell.sources) < _MAX_SOURCES for cell in self._cells)
        if self._keeps:
            for cell in self._cells:
                cell.sources.append(self.fold)

    def add(self, steps: Steps, clock_offset: int, trace_id: int, span_ids: Sequence[int]) -> None:
        """Record a request of this trace; `clock_offset` makes the steps' times those of day."""
        request = (steps, clock_offset, trace_id, span_ids)
        if not self._keeps:
            for number, cell in enumerate(self._cells):
                cell.record(*_value(request, number))
            return
        self._new.append(request)
        if len(self._new) >= FOLD_SIZE:
            self.fold()

    def fold(self) -> None:
        """Fold all that were added into the histograms."""
        with self._lock:
            new = self._new
            taken = new[:]
            # Other threads may append meanwhile; their requests are left for the next fold.
            del new[: len(taken)]
            for number, cell in enumerate(self._cells) if taken else ():
                durations = [(steps[number][2] - steps[number][1]) * 1e-9 for steps, _, _, _ in taken]
                cell.fold_many(durations, lambda index, number=number: _value(taken[index], number))


def _value(request: _Request, number: int) -> Value:
    steps, clock_offset, trace_id, span_ids = request
    _, started, ended, _ = steps[number]
    return (ended - started) * 1e-9, ended + clock_offset, trace_id, span_ids[number]
