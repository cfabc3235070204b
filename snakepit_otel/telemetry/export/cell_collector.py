"""Collection of the metric cells as data points of the SDK."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import time_ns
from typing import Any

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from snakepit_otel._version import VERSION
from snakepit_otel.telemetry import _metric_cells, names

_SCOPE = InstrumentationScope("snakepit_otel", VERSION, names.SCHEMA_URL)


class CellCollector:
    """Collects the metric cells for one exporter, with cumulative or delta temporality."""

    def __init__(self, histograms: AggregationTemporality, counters: AggregationTemporality) -> None:
        self._histograms = histograms
        self._counters = counters
        self._last: dict[Any, Any] = {}
        self._since = 0

    def collect(self) -> list[Metric]:
        """Return every metric that has data points."""
        now = time_ns()
        collected = []
        for metric, metric_cells in _metric_cells.every():
            data: Any
            if metric.instrument == "histogram":
                delta = self._histograms is AggregationTemporality.DELTA
                points = [
                    self._histogram(cell, now, delta=delta)
                    for cell in metric_cells
                    if isinstance(cell, _metric_cells.Histogram)
                ]
                data = Histogram([point for point in points if point.count], self._histograms)
            else:
                delta = self._counters is AggregationTemporality.DELTA
                sums = [self._sum(cell, now, delta=delta) for cell in metric_cells]
                # A delta of zero has no data point.
                data = Sum([point for point in sums if point.value or not delta], self._counters, True)
            if data.data_points:
                collected.append(Metric(metric.name, metric.description, metric.unit, data))
        self._since = now
        return collected

    def _start(self, *, delta: bool) -> int:
        return self._since if delta and self._since else _metric_cells.started

    def _sum(self, cell: Any, now: int, *, delta: bool) -> NumberDataPoint:
        value = total = cell.total
        if delta:
            value -= self._last.get(cell, 0)
            self._last[cell] = total
        return NumberDataPoint(cell.attributes, self._start(delta=delta), now, value)

    def _histogram(self, cell: _metric_cells.Histogram, now: int, *, delta: bool) -> HistogramDataPoint:
        # Each interval has its own minimum and maximum.
        counts, total, smallest, largest = cell.read(anew=delta)
        if delta:
            last_counts, last_total = self._last.get(cell, ([0] * len(counts), 0.0))
            self._last[cell] = (counts, total)
            counts = [count - last for count, last in zip(counts, last_counts, strict=True)]
            total -= last_total
        return HistogramDataPoint(
            attributes=cell.attributes,
            start_time_unix_nano=self._start(delta=delta),
            time_unix_nano=now,
            count=sum(counts),
            sum=total,
            bucket_counts=counts,
            explicit_bounds=cell.boundaries,
            min=smallest,
            max=largest,
            exemplars=[
                Exemplar({}, kept.value, kept.time, span_id=kept.span_id, trace_id=kept.trace_id)
                for kept in cell.exemplars(now)
            ],
        )


def with_cells(data: MetricsData, cell_metrics: Sequence[Metric]) -> MetricsData:
    """Return collected metrics with those of the cells added to our scope."""
    if not cell_metrics or not data.resource_metrics:
        return data
    first = data.resource_metrics[0]
    scopes = list(first.scope_metrics)
    for index, scope in enumerate(scopes):
        if scope.scope.name == _SCOPE.name:
            scopes[index] = replace(scope, metrics=[*scope.metrics, *cell_metrics])
            break
    else:
        scopes.append(ScopeMetrics(_SCOPE, cell_metrics, names.SCHEMA_URL))
    return MetricsData([replace(first, scope_metrics=scopes), *data.resource_metrics[1:]])
