"""Outcomes of the requests of one pool, or of the authority's own tools: counts by tool, and the log of failures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from snakepit_otel.bridge.authority.tool_error_log import Place, ToolErrorLog
from snakepit_otel.bridge.wire.failures import Failure, FailureKind
from snakepit_otel.bridge.wire.status import ToolStatus
from snakepit_otel.common.quantiles import Quantiles


class _Counts:
    """Counts of one tool's requests, of which each ended in one of the first four ways."""

    __slots__ = ("failed", "raised", "refused", "retried", "succeeded", "times")

    def __init__(self) -> None:
        self.succeeded = self.raised = self.failed = self.refused = self.retried = 0
        self.times = Quantiles()


class ToolOutcomes:
    """Counts each request once, by the label of its tool, of which there are few; times are in seconds."""

    def __init__(self, pool: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.pool = pool
        self.answered = 0  # requests with a result, or with an error that a worker answered with
        self.log = ToolErrorLog(clock)
        self._tools: dict[str, _Counts] = {}

    @property
    def raised(self) -> int:
        """Requests among those answered that ended with an error that the tool raised."""
        return sum(counts.raised for counts in self._tools.values())

    def on_result(self, label: str, seconds: float) -> None:
        """A request has a result, after so long."""
        counts = self._tools.get(label) or self._of(label)
        self.answered += 1
        counts.succeeded += 1
        counts.times.add(seconds)

    def on_failure(self, label: str, failure: Failure, seconds: float, place: Place) -> None:
        """A request ended with an error as its answer."""
        counts = self._of(label)
        self.answered += 1
        if failure.kind is FailureKind.REFUSED:
            counts.refused += 1
        else:
            counts.raised += failure.kind is FailureKind.RAISED
            counts.failed += failure.kind is FailureKind.LATE
            counts.times.add(seconds)
        self.log.add(label, failure, place)

    def on_late(self, label: str, message: str, place: Place) -> None:
        """The deadline of a request passed while it ran."""
        self._of(label).failed += 1
        self.log.add_late(label, message, place)

    def on_lost(self, label: str) -> None:
        """A request ended without an answer: its worker was lost, or its caller has gone."""
        self._of(label).failed += 1

    def on_refused(self, label: str) -> None:
        """A request did not run."""
        self._of(label).refused += 1

    def on_retry(self, label: str, failure: Failure | None, place: Place, again: str) -> None:
        """A request is run again after an error that its tool raised, or after the loss of its worker."""
        self._of(label).retried += 1
        if failure is not None:
            self.log.add(label, failure, place, again=again)

    def statuses(self, tools: Iterable[str]) -> tuple[ToolStatus, ...]:
        """Return the state of these tools and of all that were called, by name."""
        return tuple(self._status(name) for name in sorted({*tools, *self._tools}))

    def _of(self, label: str) -> _Counts:
        counts = self._tools.get(label)
        if counts is None:
            counts = self._tools[label] = _Counts()
        return counts

    def _status(self, name: str) -> ToolStatus:
        counts = self._tools.get(name)
        if counts is None:
            return ToolStatus(name=name, pool=self.pool)
        return ToolStatus(
            name=name,
            pool=self.pool,
            calls=counts.succeeded + counts.raised + counts.failed + counts.refused,
            raised=counts.raised,
            refused=counts.refused,
            failed=counts.failed,
            retried=counts.retried,
            p50_seconds=counts.times.of(0.5),
            p95_seconds=counts.times.of(0.95),
        )
