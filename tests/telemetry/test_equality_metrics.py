"""Cells tell what OpenTelemetry's own instruments tell of the same values."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from snakepit_otel.telemetry import Operation, _guard, _metric_cells, names, record
from snakepit_otel.telemetry._attributes import AttributeSet, interned
from snakepit_otel.telemetry._definitions import Metric
from snakepit_otel.telemetry.export.cell_collector import CellCollector
from tests.telemetry.counting import CUMULATIVE, DELTA, Collect, by_instruments, in_cells, points, told
from tests.telemetry.scripted import SCRIPTS, Ids, Node, OperationNode, by_encodings, by_objects, by_sdk, provided

ALLOWED = frozenset({"a", "b"})
TIMES = Metric("times", "histogram", "s", "How long.", ALLOWED, (0.5, 1, 2.5))
SIZES = Metric("sizes", "histogram", "By", "How large.", ALLOWED)
TOTAL = Metric("total", "counter", "{thing}", "How many.", ALLOWED)
SPANS = (
    None,
    NonRecordingSpan(SpanContext(1 << 100, 1, False, TraceFlags(1))),
    NonRecordingSpan(SpanContext(2 << 100, 2, True, TraceFlags(1))),
    NonRecordingSpan(SpanContext(3 << 100, 3, False, TraceFlags(0))),
)
AMOUNTS = (
    st.floats(0, 20)
    | st.integers(0, 20_000)
    | st.sampled_from([0, 0.5, 1, 1.0, 2.5, 5, 10_000, -1, -0.5, float("nan"), float("inf"), 1e-9])
)
LABELS = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["x", "y", 1, 1.0, True, "1"]), max_size=2)
STEPS = st.tuples(st.sampled_from([TIMES, SIZES, TOTAL]), AMOUNTS, LABELS, st.sampled_from(SPANS))
TEMPORALITIES = st.sampled_from([CUMULATIVE, DELTA])


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The SDK says something of each odd value."""
    log = logging.getLogger("opentelemetry")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    yield
    log.setLevel(before)


def add(steps: list[tuple[Metric, float, dict[str, Any], Any]]) -> None:
    """Record the values, each in its span."""
    for metric, amount, labels, span in steps:
        token = attach(Context() if span is None else set_span_in_context(span, Context()))
        record(metric, amount, dict(labels))
        detach(token)


def rounds(collect: Collect, rounds: list[Any]) -> list[dict[str, Any]]:
    """What is told after each round of values."""
    found = []
    for steps in rounds:
        add(steps)
        found.append(told(collect()))
    return found


@given(given_rounds=st.lists(st.lists(STEPS, max_size=8), min_size=1, max_size=4), temporality=TEMPORALITIES)
def test_same_values_are_told_the_same(given_rounds: list[Any], temporality: AggregationTemporality) -> None:
    """Counts, sums, extremes, bounds and exemplars are equal, collection after collection."""
    before = _guard.fault_count
    with by_instruments(temporality) as collect:
        expected = rounds(collect, given_rounds)
    with in_cells(temporality) as collect:
        assert rounds(collect, given_rounds) == expected
    assert _guard.fault_count == before


@settings(max_examples=settings.default.max_examples // 4)
@given(script=SCRIPTS, temporality=TEMPORALITIES)
def test_passages_are_counted_the_same(script: list[Node], temporality: AggregationTemporality) -> None:
    """Durations of any work have the same points and exemplars, in cells and by instruments.

    Which of a bucket's spans is its exemplar depends on the maker, since the steps of a request are counted at its end.
    """

    def counted(counting: Any, maker: Any, *, exemplars: bool = True) -> dict[str, Any]:
        with counting(temporality) as collect:
            maker(script, provided(id_generator=Ids(), sampler=ALWAYS_ON))
            return told(collect(), exemplars=exemplars)

    for maker in (by_objects, by_encodings):
        assert counted(in_cells, maker) == counted(by_instruments, maker)
    assert counted(in_cells, by_encodings, exemplars=False) == counted(by_instruments, by_sdk, exemplars=False)


def test_values_that_do_not_fit_are_left_out_the_same() -> None:
    """A number of more than 64 bits is no attribute's value, so points differ that are told without it."""
    steps = [(TOTAL, 1, labels, None) for labels in ({}, {"a": 1 << 63}, {"a": 1 << 63, "b": 1})]
    with by_instruments() as collect:
        expected = rounds(collect, [steps])
    with in_cells() as collect:
        assert rounds(collect, [steps]) == expected


def test_equal_values_of_other_kinds_are_other_attributes() -> None:
    """1, 1.0, True and "1" are four series, as the SDK has it."""
    with in_cells() as collect:
        for value in (1, 1.0, True, "1", 1, True):
            record(TOTAL, 1, {"a": value})
        (metric,) = collect()
    assert sorted((str(point.attributes[0].value).strip(), point.as_int) for point in points([metric])) == [
        ("bool_value: true", 2), ("double_value: 1", 1), ("int_value: 1", 2), ('string_value: "1"', 1),
    ]  # fmt: skip
    assert interned({"a": 1}) is not interned({"a": True})


def test_odd_attributes_are_counted_too() -> None:
    """A list is an attribute like others, and what becomes of it later is not the metric's."""
    before = _guard.fault_count
    value = [1, 2]
    with in_cells() as collect:
        record(TOTAL, 1, {"a": value})
        value.append(3)
        record(TOTAL, 1, {"a": [1, 2]})
        Operation(names.REQUEST, AttributeSet({names.SNAKEPIT_TOOL_NAME: value})).end()
        found = collect()
    assert [(len(point.attributes[0].value.array_value.values), point.as_int) for point in points(found, "total")] == [
        (2, 2)
    ]
    assert len(points(found, names.METRIC_REQUEST_DURATION.name)) == 1
    assert _guard.fault_count == before


def test_attributes_that_are_not_allowed_are_left_out() -> None:
    """A metric gets none but its own attributes, in cells as elsewhere, and what is left out is counted."""
    with in_cells() as collect:
        record(TOTAL, 1, {"a": "x", "session.id": "s", "c": 1})
        found = collect()
    (point,) = points(found, "total")
    assert [pair.key for pair in point.attributes] == ["a"]
    assert [point.as_int for point in points(found, names.METRIC_TELEMETRY_ATTRIBUTE_DROPPED.name)] == [2]


@pytest.mark.parametrize("temporality", [CUMULATIVE, DELTA])
@pytest.mark.parametrize("counting", [by_instruments, in_cells])
def test_beyond_two_thousand_series_all_else_is_one(counting: Any, temporality: AggregationTemporality) -> None:
    """Attributes without end are added up as overflow, as the SDK does it."""
    with counting(temporality) as collect:
        for number in range(2_100):
            record(TOTAL, 1, {"a": number})
        record(TOTAL, 1, {"a": 3})
        found = points(collect())
    overflown = [point.as_int for point in found if point.attributes[0].key == "otel.metric.overflow"]
    assert (len(found), overflown, sum(point.as_int for point in found)) == (2_001, [100], 2_101)


def test_intervals_follow_each_other_without_a_gap() -> None:
    """With deltas each interval begins where the last one ended; cumulative ones all begin at the beginning."""
    with in_cells(DELTA) as collect:
        times = []
        for _ in range(3):
            record(TIMES, 1, {})
            record(TOTAL, 1, {})
            times.append({(point.start_time_unix_nano, point.time_unix_nano) for point in points(collect())})
    assert [len(pair) for pair in times] == [1, 1, 1]
    flat = [moment for pair in times for moment in next(iter(pair))]
    assert flat[1:-1:2] == flat[2::2]
    assert flat == sorted(flat)
    with in_cells() as collect:
        record(TIMES, 1, {})
        first, second = points(collect()), points(collect())
    assert first[0].start_time_unix_nano == second[0].start_time_unix_nano
    assert first[0].time_unix_nano < second[0].time_unix_nano


def test_exemplars_are_of_their_time() -> None:
    """An exemplar's time is when it was measured, not when it was collected, and lies in its interval."""
    with in_cells(DELTA) as collect:
        add([(TIMES, 1, {}, SPANS[1])])
        early = _metric_cells.time_ns()
        (recorded,) = points(collect())
        assert recorded.start_time_unix_nano <= recorded.exemplars[0].time_unix_nano <= early
        run = by_encodings([OperationNode(names.REQUEST)], provided())
        (operation,) = points(collect(), names.METRIC_REQUEST_DURATION.name)
    (span,) = run.exported.resource_spans[0].scope_spans[0].spans
    (exemplar,) = operation.exemplars
    assert exemplar.time_unix_nano == span.end_time_unix_nano
    assert (exemplar.trace_id, exemplar.span_id) == (span.trace_id, span.span_id)


def _at_once(work: Any, threads: int = 4) -> None:
    """Run it in many threads that take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        together = threading.Barrier(threads)

        def run(number: int) -> None:
            together.wait()
            work(number)

        started = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
    finally:
        sys.setswitchinterval(before)


def test_threads_lose_no_value() -> None:
    """Values from many threads at once are all counted, exactly, extremes included."""
    each = 5_000
    with in_cells() as collect, patch.object(_metric_cells, "FOLD_SIZE", 8):

        def work(number: int) -> None:
            for step in range(each):
                # Falling and rising, so that both extremes move all the time.
                record(TIMES, (each - step if step % 2 else each + step) * 4 + number, {})
                record(TOTAL, 1, {})

        _at_once(work)
        found = collect()
    (times,), (total,) = points(found, "times"), points(found, "total")
    values = [(each - step if step % 2 else each + step) * 4 + number for step in range(each) for number in range(4)]
    assert (times.count, times.sum, times.min, times.max) == (4 * each, sum(values), min(values), max(values))
    assert total.as_int == 4 * each


def test_deltas_lose_nothing_to_threads() -> None:
    """While threads record, collections with deltas add up to everything, and have extremes that can be."""
    each, seen = 4_000, []
    with in_cells(DELTA) as collect, patch.object(_metric_cells, "FOLD_SIZE", 8):

        def work(number: int) -> None:
            for step in range(each):
                if number == 0:
                    if step % 20 == 0:
                        seen.append(collect())
                else:
                    record(TIMES, 2.0, {})
                    record(TOTAL, 1, {})

        _at_once(work)
        seen.append(collect())
    times = [point for found in seen for point in points(found, "times")]
    assert sum(point.count for point in times) == 3 * each
    assert sum(point.sum for point in times) == pytest.approx(6.0 * each)
    assert {(point.min, point.max) for point in times} <= {(2.0, 2.0), (0.0, 0.0)}
    assert not any(point.HasField("min") and point.min == 0 for point in times)
    assert sum(point.as_int for found in seen for point in points(found, "total")) == 3 * each


def test_a_value_on_its_way_is_in_the_next_collection() -> None:
    """A thread that is held up between looking up a histogram and adding to it loses nothing."""
    cell = _metric_cells.Histogram({}, (1,))
    held = cell.new
    cell.record(0.5)
    assert cell.read(anew=False)[0] == [1, 0]
    held.append((0.5, 0, 0, 0))
    assert cell.read(anew=False)[0] == [2, 0]


def test_a_sum_that_grows_while_it_is_read_loses_nothing() -> None:
    """What is added during a collection is told by the next one."""

    class Growing:
        attributes: dict[str, Any] = {}  # noqa: RUF012
        reads = 0

        @property
        def total(self) -> int:
            self.reads += 1
            return self.reads * 10

    cell, collector = Growing(), CellCollector(DELTA, DELTA)
    told_so_far = sum(collector._sum(cell, now, delta=True).value for now in (1, 2, 3))
    assert told_so_far == cell.reads * 10
