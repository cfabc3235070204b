"""Cells, and OpenTelemetry's own instruments, each as if nothing had been counted before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as Encoded
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from snakepit_otel.telemetry import _attributes, _instruments, _metric_cells, names
from snakepit_otel.telemetry.export.cell_collector import CellCollector

DELTA, CUMULATIVE = AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE
Collect = Callable[[], list[Encoded]]


@contextmanager
def _anew(*, live: bool) -> Iterator[None]:
    with ExitStack() as undo:
        undo.enter_context(patch.object(_attributes, "_known", {}))
        undo.enter_context(patch.object(_metric_cells, "_cells", {}))
        undo.enter_context(patch.object(_metric_cells, "live", live))
        undo.enter_context(patch.object(_instruments, "_instruments", {}))
        # What is first observed here is observed anew afterwards, at the meter that is there then.
        undo.enter_context(patch.object(_instruments, "_owners", dict(_instruments._owners)))
        # The one set that all share remembers where it is counted.
        undo.callback(_attributes.NONE.metric_cache.clear)
        _attributes.NONE.metric_cache.clear()
        yield


@contextmanager
def in_cells(temporality: AggregationTemporality = CUMULATIVE) -> Iterator[Collect]:
    """Count in cells; gives what collects them."""
    with _anew(live=True):
        _metric_cells.go_live()
        collector = CellCollector(temporality, temporality)

        def collect() -> list[Encoded]:
            scope = ScopeMetrics(InstrumentationScope("test"), collector.collect(), "")
            return _encoded(MetricsData([ResourceMetrics(Resource.get_empty(), [scope], "")]))

        yield collect


@contextmanager
def by_instruments(temporality: AggregationTemporality = CUMULATIVE) -> Iterator[Collect]:
    """Count by the SDK's instruments; gives what collects them."""
    reader = InMemoryMetricReader({Counter: temporality, Histogram: temporality})
    provider = MeterProvider([reader], shutdown_on_exit=False)
    with _anew(live=False), patch.object(_instruments, "_meter", provider.get_meter("snakepit_otel")):

        def collect() -> list[Encoded]:
            data = reader.get_metrics_data()
            return [] if data is None else _encoded(data)

        yield collect
    provider.shutdown()


def _encoded(data: MetricsData) -> list[Encoded]:
    request = encode_metrics(data)
    found = [m for of in request.resource_metrics for scope in of.scope_metrics for m in scope.metrics]
    # Observed in any case, and by instruments in any case.
    return [metric for metric in found if metric.name != names.METRIC_TELEMETRY_FAULTS.name]


def points(metrics: Iterable[Encoded], name: str | None = None) -> list[Any]:
    """The data points of the metrics, or of one of them."""
    return [
        point
        for metric in metrics
        if name in (None, metric.name)
        for point in getattr(metric, metric.WhichOneof("data")).data_points
    ]


def told(metrics: Iterable[Encoded], *, exemplars: bool = True) -> dict[str, Any]:
    """All that is told but the times, as it can be compared: order has no meaning, and sums have rounding errors."""
    found: dict[str, Any] = {}
    for metric in metrics:
        kind = metric.WhichOneof("data")
        data = getattr(metric, kind)
        about = (metric.description, metric.unit, kind, data.aggregation_temporality)
        of_points: dict[Any, list[Any]] = {}
        for point in data.data_points:
            labels = tuple(sorted((pair.key, str(pair.value)) for pair in point.attributes))
            if kind == "sum" and not _sum(point) and data.aggregation_temporality == DELTA:
                continue  # nothing was added; the SDK tells it where that was done in so many words
            # More than one where OTLP has no place for a value, such as a number of more than 64 bits: it is left out.
            of_points.setdefault(labels, []).append(
                _histogram(point, exemplars=exemplars) if kind == "histogram" else _sum(point)
            )
        if of_points:
            same = {labels: sorted(points, key=repr) for labels, points in of_points.items()}
            found[metric.name] = (about, getattr(data, "is_monotonic", None), same)
    return found


def _histogram(point: Any, *, exemplars: bool) -> tuple[Any, ...]:
    return (
        point.count,
        round(point.sum, 6),
        list(point.bucket_counts),
        list(point.explicit_bounds),
        point.min,
        point.max,
        [
            (kept.as_double, kept.as_int, kept.trace_id, kept.span_id, list(kept.filtered_attributes))
            for kept in (point.exemplars if exemplars else ())
        ],
    )


def _sum(point: Any) -> float:
    return round(point.as_double or point.as_int, 6)
