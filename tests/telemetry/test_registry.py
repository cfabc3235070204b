"""Rules that every name keeps."""

from __future__ import annotations

import re

import pytest

from snakepit_otel.telemetry import definitions, names

METRICS = names.METRICS
IDS = {names.SESSION_ID, names.SNAKEPIT_WORKER_ID, names.SNAKEPIT_SESSION_CREATOR}
POINTS = [value for value in vars(names).values() if isinstance(value, definitions.Point)]
EVENTS = [value for value in vars(names).values() if isinstance(value, definitions.Event)]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_metrics_carry_no_ids(metric: definitions.Metric) -> None:
    """No metric may carry an attribute whose values grow with use."""
    assert not metric.attributes & IDS
    assert not any(attribute.endswith((".id", ".message")) for attribute in metric.attributes)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_the_conventions(metric: definitions.Metric) -> None:
    """Names are lower case and dotted, and have no unit and no `total` in them."""
    assert re.fullmatch(r"[a-z]+(\.[a-z_]+)+", metric.name)
    assert not re.search(r"total|seconds|bytes", metric.name)
    assert metric.unit in {"s", "By", "1"} or re.fullmatch(r"\{[a-z]+\}", metric.unit)
    assert (metric.boundaries is not None) == (metric.instrument == "histogram")
    assert metric.boundaries is None or list(metric.boundaries) == sorted(set(metric.boundaries))


def test_metric_names_are_unique() -> None:
    """No two entries share a name."""
    assert len({metric.name for metric in METRICS}) == len(METRICS)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_every_measurement_of_an_event_is_a_metric_of_the_same_stem(event: definitions.Event) -> None:
    """An event's measurements are metrics named for it, and carry its documented attributes."""
    for key, metric in event.measurements.items():
        assert metric.name == f"{event.name}.{key}"
        assert metric.attributes <= event.attributes


def test_durations_are_histograms_in_seconds() -> None:
    """Every lifecycle point has its duration in a histogram of seconds that can tell failures apart."""
    assert POINTS
    for point in POINTS:
        assert (point.duration.instrument, point.duration.unit) == ("histogram", "s")
        assert names.ERROR_TYPE in point.duration.attributes
        assert point.fixed.keys() <= point.duration.attributes
