"""The export pipeline of metrics: those of the SDK and those of the metric _metric_cells."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Metric,
    MetricExporter,
    MetricReader,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.view import (
    Aggregation,
    DefaultAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
)

from snakepit_otel.telemetry import _metric_cells
from snakepit_otel.telemetry.environment import Environment
from snakepit_otel.telemetry.environment.variables import OTLP
from snakepit_otel.telemetry.export.batch import result_of, send_batch
from snakepit_otel.telemetry.export.cell_collector import CellCollector, with_cells
from snakepit_otel.telemetry.export.export_queue import BatchResult, BatchSettings
from snakepit_otel.telemetry.export.exporters import Exporter
from snakepit_otel.telemetry.export.ledger import DELIVERED, ENCODE, ENDED, FAILED, IN_FLIGHT, SHUTDOWN, Account
from snakepit_otel.telemetry.export.rate_limited_log import Guard

_Location = tuple[ResourceMetrics, ScopeMetrics, Metric, Any]
_CUMULATIVE, _DELTA = AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA
_TEMPORALITIES: Mapping[str, dict[type, AggregationTemporality]] = {
    "cumulative": {},
    "delta": {Counter: _DELTA, Histogram: _DELTA, ObservableCounter: _DELTA},
    "lowmemory": {Counter: _DELTA, Histogram: _DELTA},
}


@dataclass(frozen=True)
class MetricPreferences:
    """An exporter's temporality and aggregation by class of instrument; cumulative and the SDK's by default."""

    temporality: dict[type, AggregationTemporality] = field(default_factory=dict)
    aggregation: dict[type, Aggregation] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, read: Environment) -> MetricPreferences:
        """Return those of an OTLP exporter."""
        is_exponential = read[f"{OTLP}METRICS_DEFAULT_HISTOGRAM_AGGREGATION"].startswith("base2")
        return cls(
            _TEMPORALITIES[read[f"{OTLP}METRICS_TEMPORALITY_PREFERENCE"]],
            {Histogram: ExponentialBucketHistogramAggregation()} if is_exponential else {},
        )

    @classmethod
    def of_exporter(cls, exporter: MetricExporter) -> MetricPreferences:
        """Return those of another package's exporter, where the SDK's own reader finds them, too."""
        return cls(exporter._preferred_temporality or {}, exporter._preferred_aggregation or {})

    @property
    def takes_cells(self) -> bool:
        """True if histograms have the boundaries that each metric advises, as the cells do."""
        aggregation = self.aggregation.get(Histogram)
        return aggregation is None or (
            type(aggregation) in (DefaultAggregation, ExplicitBucketHistogramAggregation)
            and getattr(aggregation, "_boundaries", None) is None
        )


class MetricPipeline:
    """Exports collected metrics, with those of the cells, and counts every data point.

    `adds_cells` is False for an exporter of histograms that the cells cannot make; OpenTelemetry's instruments record
    them then.
    """

    def __init__(self, exporter: Exporter, account: Account, preferences: MetricPreferences | None = None) -> None:
        self.preferences = preferences or MetricPreferences()
        self._exporter = exporter
        self._counts = account.counts
        self._lock = threading.Lock()
        self._closed = False
        self._in_flight = 0
        self.adds_cells = self.preferences.takes_cells
        temporality = self.preferences.temporality
        self._collector = CellCollector(temporality.get(Histogram, _CUMULATIVE), temporality.get(Counter, _CUMULATIVE))

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000) -> bool:
        """Export metrics; False if no data point was delivered."""
        if _metric_cells.live and self.adds_cells:
            metrics_data = with_cells(metrics_data, self._collector.collect())
        locations = [
            (resource, scope, metric, point)
            for resource in metrics_data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]
        count = len(locations)
        counts = self._counts
        with self._lock:
            counts[ENDED] += count
            if self._closed:
                counts[SHUTDOWN] += count
                return False
            counts[IN_FLIGHT] += count
            self._in_flight = count
        result = BatchResult(failed=count)
        try:
            result = self._send(metrics_data, locations, timeout_millis).limited_to(count)
        finally:
            with self._lock:
                if self._in_flight:
                    counts[IN_FLIGHT] -= count
                    self._in_flight = 0
                    counts[DELIVERED] += result.delivered
                    counts[FAILED] += result.failed
                    counts[ENCODE] += result.unencodable
        return bool(result.delivered or not count)

    def _send(self, data: MetricsData, locations: list[_Location], timeout_millis: float) -> BatchResult:
        exporter = self._exporter
        if exporter.takes_bytes:
            return send_batch(locations, _encode, exporter.export_bytes, BatchSettings.batch_bytes)
        return result_of(exporter.export(data, timeout_millis=timeout_millis), len(locations))

    def close(self) -> None:
        """Export nothing more, and count data points in flight as dropped."""
        with self._lock:
            self._closed = True
            self._counts[SHUTDOWN] += self._in_flight
            self._counts[IN_FLIGHT] -= self._in_flight
            self._in_flight = 0
        with Guard("an exporter of metrics did not shut down: %s"):
            self._exporter.abort()

    def disable(self) -> None:
        """Do nothing from now on; see `fork`."""
        self._lock = threading.Lock()
        self._closed = True
        self._counts = Account.unread().counts


class PeriodicReader(MetricReader):
    """A metric reader that collects at an interval, in milliseconds, and stops within the time it is given.

    The SDK's own can wait for half a minute, and its thread ends with what a user's call-back raises.
    """

    def __init__(self, pipeline: MetricPipeline, interval_ms: float = 60_000, timeout_ms: float = 30_000) -> None:
        super().__init__(pipeline.preferences.temporality, pipeline.preferences.aggregation)
        self._pipeline = pipeline
        self.adds_cells = pipeline.adds_cells
        self._interval_ms = interval_ms
        self._timeout_ms = timeout_ms
        self._stopped = threading.Event()
        # Exports of a reader are never concurrent: https://opentelemetry.io/docs/specs/otel/metrics/sdk/#exportbatch
        self._export_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="snakepit telemetry metrics", daemon=True)
        self._thread.start()

    @property
    def reader(self) -> MetricReader:
        return self

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_ms / 1000):
            self._collect_guarded(self._timeout_ms)
        self._collect_guarded(self._interval_ms)

    def _collect_guarded(self, timeout_ms: float) -> None:
        # A user's call-back may raise any error.
        with Guard("metrics could not be collected: %s"):
            self.collect(timeout_ms)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> None:
        with self._export_lock, Guard("metrics could not be exported: %s"):
            self._pipeline.export(metrics_data, timeout_millis)

    def flush(self, timeout: float) -> bool:
        """Collect and export now. Raises what collecting raises."""
        self.collect(timeout * 1000)
        return True

    def disable(self) -> None:
        """Do nothing from now on; see `fork`."""
        self._export_lock = threading.Lock()
        self._pipeline.disable()

    def close(self, timeout: float) -> bool:
        """Collect and export once more, and stop; False if that took longer than `timeout` seconds."""
        self._stopped.set()
        self._thread.join(max(0.0, timeout))
        self._pipeline.close()
        return not self._thread.is_alive()

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        if not self._stopped.is_set():
            self.close(timeout_millis / 1000)


def _encode(locations: Sequence[_Location]) -> bytes:
    resources = []
    for resource, in_resource in _runs(locations, 0):
        scopes = []
        for scope, in_scope in _runs(in_resource, 1):
            metrics = [
                replace(metric, data=replace(metric.data, data_points=[location[3] for location in in_metric]))
                for metric, in_metric in _runs(in_scope, 2)
            ]
            scopes.append(replace(scope, metrics=metrics))
        resources.append(replace(resource, scope_metrics=scopes))
    return encode_metrics(MetricsData(resources)).SerializeToString()


def _runs(locations: Sequence[_Location], part: int) -> Iterator[tuple[Any, list[_Location]]]:
    # By identity: comparing metrics would compare all of their data points.
    for _, run in groupby(locations, lambda location: id(location[part])):
        together = list(run)
        yield together[0][part], together
