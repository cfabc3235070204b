"""Metrics: one instrument per registry entry, recorded into or read from owners."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import add
from time import time_ns
from typing import Any, TypeVar

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from snakepit_otel._version import VERSION
from snakepit_otel.telemetry import _guard, _metric_cells, _switch, names
from snakepit_otel.telemetry._attributes import AttributeSet, interned
from snakepit_otel.telemetry._definitions import Metric, Point
from snakepit_otel.telemetry._guard import guard
from snakepit_otel.telemetry._labels import Labels

Attributes = Mapping[str, Any]
Reading = tuple[float, Attributes]
Owner = TypeVar("Owner")
_Totals = dict[tuple[tuple[str, Any], ...], float]


@dataclass
class _Source:
    read: Callable[[Any], Iterable[Reading]]
    last: _Totals


_COMBINE: dict[str, Callable[[float, float], float]] = {"sum": add, "max": max, "min": min}
_IN_CELLS = frozenset({"histogram", "counter"})
_INFINITY = float("inf")
_NO_SPAN = (0, 0)
_error_types = Labels(200)
_meter = metrics.get_meter("snakepit_otel", VERSION, schema_url=names.SCHEMA_URL)
_instruments: dict[Metric, Callable[..., None]] = {}
_owners: dict[Metric, weakref.WeakKeyDictionary[Any, _Source]] = {}
_retired: dict[Metric, _Totals] = {}  # of owners that are gone: a counter must not fall with its owner


def record(metric: Metric, value: float, attributes: Attributes | AttributeSet) -> None:
    """Add to a counter, set a gauge or record into a histogram; attributes it lacks are dropped and counted."""
    if not _switch.enabled:
        return
    try:
        if isinstance(attributes, AttributeSet):
            known = attributes.metric_cache.get(metric)
            if _metric_cells.live and known.__class__ is _metric_cells.Sum and 0 <= value < _INFINITY:
                known.total += value
                return
            attributes = attributes.values
        if not attributes.keys() <= metric.attributes:
            dropped = attributes.keys() - metric.attributes
            attributes = {key: value for key, value in attributes.items() if key not in dropped}
            record(names.METRIC_TELEMETRY_ATTRIBUTE_DROPPED, len(dropped), {})
        # Other values are for the SDK to refuse.
        if _metric_cells.live and metric.instrument in _IN_CELLS and 0 <= value < _INFINITY:
            labels = interned(attributes)
            cell = labels.metric_cache.get(metric)
            if cell is None:
                cell = labels.metric_cache[metric] = _metric_cells.cell(metric, attributes)
            trace_id, span_id = _sampled_span() if metric.instrument == "histogram" else _NO_SPAN
            cell.record(value, time_ns() if span_id else 0, trace_id, span_id)
        else:
            _instrument(metric)(value, attributes)
    except Exception as error:
        _guard.contain(f"recording {metric.name}", error)


def cell_for(point: Point, labels: AttributeSet, late: Attributes) -> Any:
    """Return the cell of a point's durations, with the attributes that the duration metric allows."""
    if late:
        allowed = point.duration.attributes
        few = {key: value for key, value in late.items() if key in allowed}
        if names.ERROR_TYPE in few:
            # Classes may be made at run time, and peers may send any text.
            few[names.ERROR_TYPE] = _error_types.of(str(few[names.ERROR_TYPE]), ())
        if few:
            labels = interned({**labels.values, **few})
    cell = labels.metric_cache.get(point)
    return _cell_of(point, labels) if cell is None else cell


class _ByApi:
    """A cell that passes values to OpenTelemetry's API; it keeps none."""

    __slots__ = ("_attributes", "_metric")

    def __init__(self, metric: Metric, attributes: Attributes) -> None:
        self._metric = metric
        self._attributes = attributes

    new = ()

    def add(self, value: _metric_cells.Value) -> None:
        self.record(*value)

    def fold(self) -> None:
        """Do nothing."""

    def record(self, value: float, time: int = 0, trace_id: int = 0, span_id: int = 0) -> None:
        """Record the value; the span may no longer be the current one. See `_metric_cells.Histogram.record`."""
        if _metric_cells.live:
            _metric_cells.cell(self._metric, self._attributes).record(value, time, trace_id, span_id)
            return
        context = None
        if span_id:
            span = NonRecordingSpan(SpanContext(trace_id, span_id, False, TraceFlags(TraceFlags.SAMPLED)))
            context = trace.set_span_in_context(span, Context())
        _instrument(self._metric)(value, self._attributes, context)


def _cell_of(point: Point, labels: AttributeSet) -> Any:
    metric = point.duration
    attributes = {key: value for key, value in {**point.fixed, **labels.values}.items() if key in metric.attributes}
    cell = _metric_cells.cell(metric, attributes) if _metric_cells.live else _ByApi(metric, attributes)
    labels.metric_cache[point] = cell
    return cell


def _sampled_span() -> tuple[int, int]:
    identity = trace.get_current_span().get_span_context()
    return (identity.trace_id, identity.span_id) if identity.trace_flags.sampled else _NO_SPAN


def observe(owner: Owner, metric: Metric, read: Callable[[Owner], Iterable[Reading]]) -> None:
    """Read the metric from `owner` at every collection, while `owner` lives.

    `read` runs in the exporter's thread and must not change anything. Readings with the same attributes become one as
    the metric's `combine` has it; of a counter that is a sum, the last ones stay counted when their owner is gone.
    """
    if metric not in _owners:
        _owners[metric] = weakref.WeakKeyDictionary()
        _create(metric)
    source = _owners[metric][owner] = _Source(read, {})
    if metric.instrument == "counter" and metric.combine == "sum":
        weakref.finalize(owner, _retire, metric, source.last).atexit = False


class _Process:
    """Owner of this process' own readings."""


PROCESS = _Process()


def _instrument(metric: Metric) -> Callable[..., None]:
    add = _instruments.get(metric)
    if add is None:
        # Two threads may both create it; the meter then hands out the same instrument.
        add = _instruments[metric] = _create(metric)
    return add


def _create(metric: Metric) -> Any:
    # With the first instrument, so that importing this has no effect.
    if names.METRIC_TELEMETRY_FAULTS not in _owners:
        observe(PROCESS, names.METRIC_TELEMETRY_FAULTS, lambda _: [(_guard.fault_count, {})])
    description = {"unit": metric.unit, "description": metric.description}
    if metric.observable:
        create = {
            "counter": _meter.create_observable_counter,
            "updowncounter": _meter.create_observable_up_down_counter,
            "gauge": _meter.create_observable_gauge,
        }[metric.instrument]
        create(metric.name, callbacks=[lambda options: _collect(metric, options)], **description)
        return None
    if metric.instrument == "histogram":
        return _meter.create_histogram(
            metric.name, explicit_bucket_boundaries_advisory=metric.boundaries, **description
        ).record
    if metric.instrument == "gauge":
        return _meter.create_gauge(metric.name, **description).set
    if metric.instrument == "updowncounter":
        return _meter.create_up_down_counter(metric.name, **description).add
    return _meter.create_counter(metric.name, **description).add


def _collect(metric: Metric, _options: CallbackOptions) -> Iterator[Observation]:
    totals = dict(_retired.get(metric, {}))
    for owner, source in list(_owners[metric].items()):
        with guard(f"reading {metric.name}"):
            readings = {tuple(sorted(attributes.items())): value for value, attributes in source.read(owner)}
            source.last.update(readings)
            _combine(totals, readings, _COMBINE[metric.combine])
    for key, value in totals.items():
        yield Observation(value, dict(key))


def _retire(metric: Metric, last: _Totals) -> None:
    _combine(_retired.setdefault(metric, {}), last, add)


def _combine(totals: _Totals, more: _Totals, function: Callable[[float, float], float]) -> None:
    for key, value in more.items():
        totals[key] = function(totals[key], value) if key in totals else value
