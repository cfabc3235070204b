"""Metrics on their way out: what the SDK collects, and our cells."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from time import time_ns
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import Counter, Histogram
from opentelemetry.sdk.metrics._internal.exemplar import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.metrics.export import MetricReader as AnyMetricReader
from opentelemetry.sdk.metrics.view import DefaultAggregation, ExplicitBucketHistogramAggregation
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from snakepit_otel._version import VERSION
from snakepit_otel.common.printable import printable_error
from snakepit_otel.telemetry import _metric_cells, names
from snakepit_otel.telemetry.export import quiet
from snakepit_otel.telemetry.export.ledger import DELIVERED, ENCODE, ENDED, FAILED, IN_FLIGHT, SHUTDOWN, Account
from snakepit_otel.telemetry.export.outbox import Batching, Sent
from snakepit_otel.telemetry.export.parts import deliver, sent
from snakepit_otel.telemetry.export.peer import Peer

_Place = tuple[ResourceMetrics, ScopeMetrics, Metric, Any]
_SCOPE = InstrumentationScope("snakepit_otel", VERSION, names.SCHEMA_URL)


class MetricPipeline(MetricExporter):
    """A metric exporter that adds our cells to what the SDK has collected, and accounts for every point.

    `adds_cells` is False for an exporter that asks for histograms of another kind than ours; they are then
    recorded by OpenTelemetry's API, which makes any kind.
    """

    def __init__(self, peer: Peer, account: Account) -> None:
        exporter = peer.exporter
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._peer = peer
        self._figures = account.figures
        self._lock = threading.Lock()
        self._closed = False
        self._in_flight = 0
        self.adds_cells = takes_cells(exporter)
        temporality = exporter._preferred_temporality or {}
        self._collector = CellCollector(
            temporality.get(Histogram, AggregationTemporality.CUMULATIVE),
            temporality.get(Counter, AggregationTemporality.CUMULATIVE),
        )

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        """See `MetricExporter`."""
        if _metric_cells.live and self.adds_cells:
            metrics_data = with_cells(metrics_data, self._collector.collect())
        count = _points(metrics_data)
        figures = self._figures
        with self._lock:
            figures[ENDED] += count
            if self._closed:
                figures[SHUTDOWN] += count
                return MetricExportResult.FAILURE
            figures[IN_FLIGHT] += count
            self._in_flight = count
        outcome = Sent(failed=count)
        try:
            outcome = self._send(metrics_data, count, timeout_millis).of(count)
        finally:
            with self._lock:
                if self._in_flight:
                    figures[IN_FLIGHT] -= count
                    self._in_flight = 0
                    figures[DELIVERED] += outcome.delivered
                    figures[FAILED] += outcome.failed
                    figures[ENCODE] += outcome.unencodable
        return MetricExportResult.SUCCESS if outcome.delivered or not count else MetricExportResult.FAILURE

    def _send(self, data: MetricsData, count: int, timeout_millis: float) -> Sent:
        if not self._peer.takes_bytes:
            return sent(self._peer.export(data, timeout_millis=timeout_millis), count)
        return deliver(points_of(data), _encode, self._peer.export_bytes, Batching.batch_bytes)

    def close(self) -> None:
        """Take no more, and count what is on its way as dropped."""
        with self._lock:
            self._closed = True
            self._figures[SHUTDOWN] += self._in_flight
            self._figures[IN_FLIGHT] -= self._in_flight
            self._in_flight = 0
        try:
            self._peer.abort()
        except BaseException as error:  # noqa: BLE001 - whatever an exporter's end raises, ours goes on
            quiet.warn("an exporter of metrics did not stop: %s", printable_error(error))

    def forget(self) -> None:
        """Take no more, and touch nothing; see `fork`."""
        self._lock = threading.Lock()
        self._closed = True
        self._figures = Account.unread().figures

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002 - the SDK's signature
        """See `MetricExporter`; nothing is kept here."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:  # noqa: ARG002 - the SDK's signature
        """See `MetricExporter`."""
        self.close()


class MetricReader(PeriodicExportingMetricReader):
    """The SDK's periodic reader, which stops within the time it is given."""

    def __init__(self, pipeline: MetricPipeline, interval_ms: float = 60_000, timeout_ms: float = 30_000) -> None:
        self._pipeline = pipeline
        self.adds_cells = pipeline.adds_cells
        super().__init__(pipeline, interval_ms, timeout_ms)

    @property
    def reader(self) -> AnyMetricReader:
        """What the provider is given."""
        return self

    def _ticker(self) -> None:
        """See `PeriodicExportingMetricReader`; whatever users' call-backs raise, this thread stays."""
        while not self._shutdown_event.wait(self._export_interval_millis / 1000):
            self._collect_surely(self._export_timeout_millis)
        self._collect_surely(self._export_interval_millis)

    def _collect_surely(self, timeout_ms: float) -> None:
        try:
            self.collect(timeout_ms)
        except BaseException as error:  # noqa: BLE001 - see above
            quiet.warn("metrics could not be collected: %s", printable_error(error))

    def flush(self, timeout: float) -> bool:
        """Collect and send now."""
        self.collect(timeout * 1000)
        return True

    def forget(self) -> None:
        """Do nothing from now on. For the child of a fork."""
        self._pipeline.forget()

    def _at_fork_reinit(self) -> None:
        """Leave the child of a fork without the thread that the SDK's reader starts anew there."""

    def close(self, timeout: float) -> bool:
        """Collect and send once more, and stop; False if that took longer than `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self._shutdown_event.set()
        if self._daemon_thread is None:
            self.collect(timeout * 1000)
        else:
            self._daemon_thread.join(max(0.0, deadline - time.monotonic()))
        in_time = self._daemon_thread is None or not self._daemon_thread.is_alive()
        self._pipeline.close()
        return in_time

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """See `MetricReader`."""
        if not self._shutdown_event.is_set():
            self.close(timeout_millis / 1000)


class CellCollector:
    """Reads the cells for one exporter, which may want sums since the start or since the last time."""

    def __init__(self, of_histograms: AggregationTemporality, of_counters: AggregationTemporality) -> None:
        self._of_histograms = of_histograms
        self._of_counters = of_counters
        self._last: dict[Any, Any] = {}
        self._since = 0

    def collect(self) -> list[Metric]:
        """Return every metric with what its cells hold."""
        now = time_ns()
        found = []
        for metric, of_metric in _metric_cells.every():
            data: Any
            if metric.instrument == "histogram":
                delta = self._of_histograms is AggregationTemporality.DELTA
                points = [
                    self._histogram(cell, now, delta=delta)
                    for cell in of_metric
                    if isinstance(cell, _metric_cells.Histogram)
                ]
                data = HistogramData([point for point in points if point.count], self._of_histograms)
            else:
                delta = self._of_counters is AggregationTemporality.DELTA
                sums = [self._sum(cell, now, delta=delta) for cell in of_metric]
                # Of an interval in which nothing was added there is nothing to tell.
                data = Sum([point for point in sums if point.value or not delta], self._of_counters, True)
            if data.data_points:
                found.append(Metric(metric.name, metric.description, metric.unit, data))
        self._since = now
        return found

    def _start(self, *, delta: bool) -> int:
        return self._since if delta and self._since else _metric_cells.started

    def _sum(self, cell: Any, now: int, *, delta: bool) -> NumberDataPoint:
        value = total = cell.total
        if delta:
            value -= self._last.get(cell, 0)
            self._last[cell] = total
        return NumberDataPoint(cell.attributes, self._start(delta=delta), now, value)

    def _histogram(self, cell: _metric_cells.Histogram, now: int, *, delta: bool) -> HistogramDataPoint:
        # The next interval has its own extremes.
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


def with_cells(data: MetricsData, ours: Sequence[Metric]) -> MetricsData:
    """Return collected metrics with ours among those of our scope."""
    if not ours or not data.resource_metrics:
        return data
    of_resource = data.resource_metrics[0]
    scopes = list(of_resource.scope_metrics)
    for place, scope in enumerate(scopes):
        if scope.scope.name == _SCOPE.name:
            scopes[place] = replace(scope, metrics=[*scope.metrics, *ours])
            break
    else:
        scopes.append(ScopeMetrics(_SCOPE, ours, names.SCHEMA_URL))
    return MetricsData([replace(of_resource, scope_metrics=scopes), *data.resource_metrics[1:]])


def takes_cells(exporter: Any) -> bool:
    """Say whether an exporter wants histograms with the boundaries that each metric advises."""
    wanted: Mapping[type, Any] = exporter._preferred_aggregation or {}
    aggregation = wanted.get(Histogram)
    return aggregation is None or (
        type(aggregation) in (DefaultAggregation, ExplicitBucketHistogramAggregation)
        and getattr(aggregation, "_boundaries", None) is None
    )


def points_of(data: MetricsData) -> list[_Place]:
    """Return every data point with what it is part of, so that they can be sent in several requests."""
    return [
        (of_resource, scope, metric, point)
        for of_resource in data.resource_metrics
        for scope in of_resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]


def _encode(points: Sequence[_Place]) -> bytes:
    """Encode data points that follow each other among those of a collection."""
    resources = []
    for of_resource, in_resource in _runs(points, 0):
        scopes = []
        for scope, in_scope in _runs(in_resource, 1):
            metrics = [
                replace(metric, data=replace(metric.data, data_points=[place[3] for place in of_metric]))
                for metric, of_metric in _runs(in_scope, 2)
            ]
            scopes.append(replace(scope, metrics=metrics))
        resources.append(replace(of_resource, scope_metrics=scopes))
    return encode_metrics(MetricsData(resources)).SerializeToString()


def _runs(places: Sequence[_Place], part: int) -> Iterator[tuple[Any, list[_Place]]]:
    # By identity: to compare metrics would compare all of their points.
    for _, run in groupby(places, lambda place: id(place[part])):
        together = list(run)
        yield together[0][part], together


def _points(data: MetricsData) -> int:
    return sum(
        len(metric.data.data_points)
        for of_resource in data.resource_metrics
        for scope in of_resource.scope_metrics
        for metric in scope.metrics
    )
