"""Spans of calls that need no operation while all goes well: their own parts are what is recorded."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any, Protocol

from snakepit_otel.telemetry import _controls, _guard
from snakepit_otel.telemetry._attributes import AttributeSet
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.telemetry._instruments import cell_for
from snakepit_otel.telemetry._metric_cells import FOLD_SIZE
from snakepit_otel.telemetry._operation import Operation
from snakepit_otel.telemetry.spans import select
from snakepit_otel.telemetry.spans.base import Unsampled


class Owner(Protocol):
    """Maker of the operation of a span, should it need one."""

    def operation_for(self, span: Any) -> Operation:
        """Return the operation."""


def begin(point: Point, labels: AttributeSet, above: Any, owner: Owner) -> Any:
    """Start a span below the current one; None where that takes an operation, `Unsampled` if it is not recorded."""
    if above.__class__ is Unsampled or point in _controls.suppressed:
        return None
    try:
        maker = getattr(above, "maker", None) or select.span_maker()
        return None if maker is None else maker.begin(above, point, labels, owner)
    except Exception as error:
        _guard.contain(f"starting {point.span}", error)
        return None


def finish(span: Any) -> bool:
    """End a span of work that succeeded, and record its duration; return False where that takes its operation."""
    ended = perf_counter_ns()
    point, labels = span.point, span.labels
    try:
        exemplar = span.maker.finish(span, ended)
        if exemplar is None:
            return False
        cell = labels.metric_cache.get(point)
        if cell is None:
            cell = cell_for(point, labels, {})
        cell.add(((ended - span.started) * 1e-9, *exemplar))
        if len(cell.new) >= FOLD_SIZE:
            cell.fold()
    except Exception as error:
        _guard.contain(f"ending {point.span}", error)
    return True
