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
Request = tuple[Sequence[int], Sequence[int], int, Sequence[int]]
"""The durations of its steps in ns, their ends in ns since 1970, its trace id, and the span ids of the steps."""


class StepTimes:
    """Durations of requests with the same steps and labels. Exact with many threads, as `Histogram` is."""

    def __init__(self, points: Sequence[Point], labels: AttributeSet) -> None:
        self._cells: list[Any] = [_instruments.cell_for(point, labels, _NOTHING) for point in points]
        self._new: list[Request] = []
        self._lock = Lock()
        # Only histograms know when they are read.
        self._keeps = all(cell.__class__ is Histogram and len(cell.sources) < _MAX_SOURCES for cell in self._cells)
        if self._keeps:
            for cell in self._cells:
                cell.sources.append(self.fold)

    def add(self, request: Request) -> None:
        """Record the steps of a request."""
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
            columns = zip(*[request[0] for request in taken], strict=True)
            for number, (cell, durations) in enumerate(zip(self._cells, columns, strict=False)):
                cell.fold_many(durations, lambda index, number=number: _value(taken[index], number))


def _value(request: Request, number: int) -> Value:
    durations, ends, trace_id, span_ids = request
    return durations[number] * 1e-9, ends[number], trace_id, span_ids[number]
