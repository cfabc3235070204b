"""Cells: histograms and counters that cost little to record into; exporters read them at each collection.

A value needs no lock and no look at attributes. This is exact because adding in place and appending are one step
each under CPython's lock, 3.10 and later; a test with many threads holds it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from threading import Lock
from time import time_ns
from typing import Any, NamedTuple

from opentelemetry.attributes import BoundedAttributes

from snakepit_otel.telemetry._definitions import Metric

MAX_CELLS_PER_METRIC = 2_000  # as in OpenTelemetry's specification; more are added up under `OVERFLOW`
OVERFLOW = {"otel.metric.overflow": True}
DEFAULT_BOUNDARIES = (0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1e3, 2.5e3, 5e3, 7.5e3, 1e4)
FOLD_SIZE = 2_000  # values kept before they are folded
Value = tuple[float, int, int, int]
_VALUE, _SPAN_ID = itemgetter(0), itemgetter(3)


class Exemplar(NamedTuple):
    """A recorded request as an example of a bucket."""

    value: float
    time: int
    trace_id: int
    span_id: int


class Histogram:
    """The distribution of one metric with one set of attributes, since the process started.

    Values are kept as they come and folded by the thousand, which costs a fraction of folding one by one. `add` records
    a value with its time, trace and span; its caller has to `fold` from time to time. `sources` are called before it is
    read: they `fold_many` values that they have kept.
    """

    __slots__ = (
        "_fold",
        "_last",
        "add",
        "attributes",
        "boundaries",
        "counts",
        "largest",
        "new",
        "smallest",
        "sources",
        "total",
    )

    def __init__(self, attributes: Mapping[str, Any], boundaries: tuple[float, ...]) -> None:
        self.attributes = attributes
        self.boundaries = boundaries
        self.counts = [0] * (len(boundaries) + 1)
        self.total = 0.0
        self.smallest = float("inf")
        self.largest = float("-inf")
        self.new: list[Value] = []  # recorded and not yet folded
        self.add: Callable[[Value], None] = self.new.append
        self.sources: list[Callable[[], None]] = []
        self._last: dict[int, Value] = {}
        self._fold = Lock()

    def record(self, value: float, time: int = 0, trace_id: int = 0, span_id: int = 0) -> None:
        """Add a value, measured at `time` (ns since 1970) in that span, if it is recorded."""
        self.add((value, time, trace_id, span_id))
        if len(self.new) >= FOLD_SIZE:
            self.fold()

    def fold(self) -> None:
        with self._fold:
            new = self.new
            size = len(new)
            if not size:
                return
            # Other threads may append meanwhile; their values are left for the next fold.
            taken = new[:size]
            del new[:size]
            values = list(map(_VALUE, taken))
            buckets = list(map(partial(bisect_left, self.boundaries), values))
            for bucket, count in Counter(buckets).items():
                self.counts[bucket] += count
            self.total += sum(values)
            self.smallest = min(self.smallest, *values)
            self.largest = max(self.largest, *values)
            if any(map(_SPAN_ID, taken)):
                self._last.update((bucket, value) for bucket, value in zip(buckets, taken, strict=True) if value[3])

    def fold_many(self, durations: Sequence[int], at: Callable[[int], Value]) -> None:
        """Add durations in ns to a histogram of seconds; `at` returns the value at an index, with its time and span."""
        with self._fold:
            ordered = sorted(durations)
            below, filled = 0, set()
            # One search for each bucket, which takes far less than one for each value.
            for bucket, boundary in enumerate(self.boundaries):
                until = bisect_right(ordered, boundary * 1e9, below)
                if until > below:
                    self.counts[bucket] += until - below
                    filled.add(bucket)
                    below = until
                if below == len(ordered):
                    break
            else:
                self.counts[-1] += len(ordered) - below
                filled.add(len(self.boundaries))
            self.total += sum(durations) * 1e-9
            self.smallest = min(self.smallest, ordered[0] * 1e-9)
            self.largest = max(self.largest, ordered[-1] * 1e-9)
            for index in range(len(durations) - 1, -1, -1):
                value = at(index)
                bucket = bisect_left(self.boundaries, value[0])
                if bucket in filled:
                    filled.remove(bucket)
                    if value[3]:
                        self._last[bucket] = value
                    if not filled:
                        break

    def read(self, *, anew: bool) -> tuple[list[int], float, float, float]:
        """Return the counts, the sum and the extremes, which begin `anew` if so asked."""
        for source in self.sources:
            source()
        self.fold()
        with self._fold:
            found = list(self.counts), self.total, self.smallest, self.largest
            if anew:
                self.smallest, self.largest = float("inf"), float("-inf")
        return found

    def exemplars(self, now: int) -> list[Exemplar]:
        """Return the last recorded request of each bucket, and begin anew."""
        with self._fold:
            last, self._last = self._last, {}
        return [
            Exemplar(value, time or now, trace_id, span_id)
            for _, (value, time, trace_id, span_id) in sorted(last.items())
        ]


class Sum:
    __slots__ = ("attributes", "total")

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.attributes = attributes
        self.total: float = 0

    def record(self, value: float, _time: int = 0, _trace_id: int = 0, _span_id: int = 0) -> None:
        self.total += value


Cell = Histogram | Sum

live = False  # whether an exporter reads the cells; if not, values go to OpenTelemetry's API
started = time_ns()  # of counting, ns since 1970
_cells: dict[Metric, dict[frozenset[Any], Cell]] = {}
_lock = Lock()


def go_live() -> None:
    """Let values go into cells from now on."""
    global live, started
    live, started = True, time_ns()


def cell(metric: Metric, attributes: Mapping[str, Any]) -> Cell:
    attributes = dict(BoundedAttributes(attributes=attributes))  # as the SDK takes them: copied, and odd ones as text
    key = _key(attributes)
    with _lock:
        of_metric = _cells.setdefault(metric, {})
        found = of_metric.get(key)
        if found is None:
            if len(of_metric) >= MAX_CELLS_PER_METRIC:
                attributes, key = OVERFLOW, _key(OVERFLOW)
                if key in of_metric:
                    return of_metric[key]
            if metric.instrument == "histogram":
                found = Histogram(attributes, metric.boundaries or DEFAULT_BOUNDARIES)
            else:
                found = Sum(attributes)
            of_metric[key] = found
        return found


def _key(attributes: Mapping[str, Any]) -> frozenset[Any]:
    # With their kinds, since 1, 1.0 and True are equal; as text where they are of odd ones, which cannot be keys.
    return frozenset(
        (name, value.__class__, value if value.__class__ in _SIMPLE else repr(value))
        for name, value in attributes.items()
    )


_SIMPLE = (str, bool, int, float)


def every() -> Iterator[tuple[Metric, list[Cell]]]:
    with _lock:
        found = [(metric, list(cells.values())) for metric, cells in _cells.items()]
    yield from found
