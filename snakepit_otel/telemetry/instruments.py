"""Metrics: one instrument per registry entry, fed by values or read from their owners."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from snakepit_otel._version import VERSION
from snakepit_otel.telemetry import faults, names, switch
from snakepit_otel.telemetry.definitions import Metric

Attributes = Mapping[str, Any]
Reading = tuple[float, Attributes]
Owner = TypeVar("Owner")
_Totals = dict[tuple[tuple[str, Any], ...], float]


@dataclass
class _Source:
    """How an owner is read, and what it said last."""

    read: Callable[[Any], Iterable[Reading]]
    last: _Totals


_meter = metrics.get_meter("snakepit_otel", VERSION, schema_url=names.SCHEMA_URL)
_instruments: dict[Metric, Callable[[float, Attributes], None]] = {}
_owners: dict[Metric, weakref.WeakKeyDictionary[Any, _Source]] = {}
_retired: dict[Metric, _Totals] = {}
"""What owners of counters had counted that are gone; a counter must not fall because its owner did."""


def record(metric: Metric, value: float, attributes: Attributes) -> None:
    """Add to a counter, set a gauge or record into a histogram.

    Attributes outside the metric's allowed set are dropped and counted as
    `snakepit.telemetry.attribute.dropped`.
    """
    if not switch.on:
        return
    try:
        if not attributes.keys() <= metric.attributes:
            dropped = attributes.keys() - metric.attributes
            attributes = {key: value for key, value in attributes.items() if key not in dropped}
            _instrument(names.METRIC_TELEMETRY_ATTRIBUTE_DROPPED)(len(dropped), {})
        _instrument(metric)(value, attributes)
    except Exception as error:  # noqa: BLE001 - telemetry never raises into the code it observes
        faults.contain(f"recording {metric.name}", error)


def observe(owner: Owner, metric: Metric, read: Callable[[Owner], Iterable[Reading]]) -> None:
    """Let the metric be read from `owner` at every collection, for as long as `owner` lives.

    `read` runs in the exporter's thread and must only look. Owners that report the same
    attributes are added up; what a counter's owner said last stays counted when it is gone.
    """
    if metric not in _owners:
        _owners[metric] = weakref.WeakKeyDictionary()
        _create(metric)
    source = _owners[metric][owner] = _Source(read, {})
    if metric.instrument == "counter":
        weakref.finalize(owner, _retire, metric, source.last).atexit = False


class _Process:
    """What this process' own tallies are read from."""


_process = _Process()


def _instrument(metric: Metric) -> Callable[[float, Attributes], None]:
    add = _instruments.get(metric)
    if add is None:
        # Two threads may both create it; the meter then hands out the same instrument.
        add = _instruments[metric] = _create(metric)
    return add


def _create(metric: Metric) -> Any:
    # With the first instrument, so that importing this has no effect.
    if names.METRIC_TELEMETRY_FAULTS not in _owners:
        observe(_process, names.METRIC_TELEMETRY_FAULTS, lambda _: [(faults.count, {})])
    about = {"unit": metric.unit, "description": metric.description}
    if metric.observable:
        create = {
            "counter": _meter.create_observable_counter,
            "updowncounter": _meter.create_observable_up_down_counter,
            "gauge": _meter.create_observable_gauge,
        }[metric.instrument]
        create(metric.name, callbacks=[lambda options: _collect(metric, options)], **about)
        return None
    if metric.instrument == "histogram":
        return _meter.create_histogram(
            metric.name, explicit_bucket_boundaries_advisory=metric.boundaries, **about
        ).record
    if metric.instrument == "gauge":
        return _meter.create_gauge(metric.name, **about).set
    if metric.instrument == "updowncounter":
        return _meter.create_up_down_counter(metric.name, **about).add
    return _meter.create_counter(metric.name, **about).add


def _collect(metric: Metric, _options: CallbackOptions) -> Iterator[Observation]:
    totals = dict(_retired.get(metric, {}))
    for owner, source in list(_owners[metric].items()):
        try:
            said = {tuple(sorted(attributes.items())): value for value, attributes in source.read(owner)}
            source.last.update(said)
            _add(totals, said)
        except Exception as error:  # noqa: BLE001 - one broken owner must not silence the others
            faults.contain(f"reading {metric.name}", error)
    for key, value in totals.items():
        yield Observation(value, dict(key))


def _retire(metric: Metric, last: _Totals) -> None:
    _add(_retired.setdefault(metric, {}), last)


def _add(totals: _Totals, more: _Totals) -> None:
    for key, value in more.items():
        totals[key] = totals.get(key, 0) + value
