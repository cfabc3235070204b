"""Durations of steps that are folded many at a time."""

from __future__ import annotations

import random
import sys
import threading

import pytest

from snakepit_otel.telemetry import _metric_cells, names
from snakepit_otel.telemetry._attributes import AttributeSet
from snakepit_otel.telemetry._metric_cells import Histogram
from snakepit_otel.telemetry._step_times import FOLD_SIZE, StepTimes

POINTS = (names.ADAPTER_BUILD, names.ADAPTER_EXECUTE)
MS = 1_000_000


@pytest.fixture(autouse=True)
def _in_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_metric_cells, "_cells", {})
    monkeypatch.setattr(_metric_cells, "live", True)


def histogram(labels: AttributeSet, place: int) -> Histogram:
    cell: Histogram = labels.metric_cache[POINTS[place]]
    return cell


def test_folded_durations_are_what_single_ones_are() -> None:
    """Buckets, sum, extremes and exemplars are those of a histogram that had each value by itself."""
    labels, alone = AttributeSet({"a": 1}), AttributeSet({"a": 2})
    times, single = StepTimes(POINTS, labels), StepTimes(POINTS, alone)
    draw = random.Random(1)
    reference = histogram(alone, 1)
    assert single is not times
    boundaries = [round(boundary * 1e9) for boundary in reference.boundaries]
    for number in range(3 * FOLD_SIZE + 7):
        duration = draw.choice([*boundaries, draw.randrange(1, 20_000 * MS), draw.randrange(1, MS)])
        span_id = number + 1 if number % 3 else 0
        times.add(((1, duration), (5, number), 7, (0, span_id)))
        reference.record(duration * 1e-9, number, 7, span_id)
    counts, total, smallest, largest = histogram(labels, 1).read(anew=False)
    expected = reference.read(anew=False)
    assert (counts, smallest, largest) == (expected[0], *expected[2:])
    assert total == pytest.approx(expected[1])
    kept = {exemplar.value: exemplar for exemplar in histogram(labels, 1).exemplars(0)}
    assert kept
    assert all(exemplar.time + 1 == exemplar.span_id for exemplar in kept.values())
    assert histogram(labels, 0).read(anew=False)[0][0] == 3 * FOLD_SIZE + 7


def test_threads_lose_no_request() -> None:
    """Requests from many threads at once, with a reader among them, are all counted."""
    labels = AttributeSet({"a": 3})
    times = StepTimes(POINTS, labels)
    each, before = 2_000, sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work() -> None:
        for _ in range(each):
            times.add(((1, 2), (1, 1), 1, (1, 1)))

    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            histogram(labels, 0).read(anew=False)
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert [sum(histogram(labels, place).read(anew=False)[0]) for place in (0, 1)] == [4 * each] * 2


def test_the_sources_of_a_histogram_are_bounded() -> None:
    """With many kinds of requests, the last ones are recorded one by one, and none is lost."""
    labels = AttributeSet({"a": 4})
    for _ in range(100):
        StepTimes(POINTS, labels).add(((1, 2), (1, 1), 1, (1, 1)))
    assert sum(histogram(labels, 0).read(anew=False)[0]) == 100
    assert len(histogram(labels, 0).sources) <= 64
