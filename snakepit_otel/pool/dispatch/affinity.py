"""Selection of the worker that serves a request, by the session's affinity and by load."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from snakepit_otel.errors import SessionWorkerUnavailable, WorkerBusy
from snakepit_otel.pool.settings import Affinity
from snakepit_otel.pool.workers.base import Worker


class AffinityOutcome(StrEnum):
    """Effect of the hint that a session used a certain worker last."""

    NONE = "none"
    HIT = "hit"
    MISS = "miss"
    BROKEN = "broken"


class AffinityReason(StrEnum):
    """Reason of an affinity outcome."""

    NO_HINT = "no_hint"
    PREFERRED = "preferred"  # the last worker had a free slot
    BUSY = "busy"
    SUSPECT = "suspect"
    GONE = "gone"  # or about to end
    OTHER_POOL = "other_pool"


class Choice(NamedTuple):
    """The selected worker, and the effect of the hint."""

    worker: Worker
    outcome: AffinityOutcome
    reason: AffinityReason


class Wait(NamedTuple):
    """The request waits for a slot, of worker `only` or any; the outcome holds unless `preferred` serves it."""

    preferred: str | None
    only: str | None
    outcome: AffinityOutcome
    reason: AffinityReason

    def choice_of(self, worker: Worker) -> Choice:
        """Return the choice of the worker whose slot was assigned in the end."""
        if worker.id == self.preferred:
            return Choice(worker, AffinityOutcome.HIT, AffinityReason.PREFERRED)
        return Choice(worker, self.outcome, self.reason)


def select(
    ready: Sequence[Worker], preferred: str | None, capacity: int, mode: Affinity, known: bool, turn: int = 0
) -> Choice | Wait:
    """Return the worker that serves a request, or the wait for one.

    `ready` are the workers that take new requests, at most `capacity` each. `preferred` is the worker that the session
    used last, if any; `known` means that it is, or was, one of this pool, whose affinity mode binds no session to a
    worker of another pool. Otherwise the least busy worker is selected. Suspect workers are selected only where all are
    suspect, or where a strict mode requires one. `turn` counts requests: it rotates among equally busy workers.

    Raises `SessionWorkerUnavailable` if a strict mode requires a worker that is gone, and `WorkerBusy` if
    `strict_fail_fast` requires one that has no free slot.
    """
    if preferred is None:
        outcome, reason = AffinityOutcome.NONE, AffinityReason.NO_HINT
    elif not known:
        outcome, reason = AffinityOutcome.BROKEN, AffinityReason.OTHER_POOL
    else:
        last = next((worker for worker in ready if worker.id == preferred), None)
        if mode is not Affinity.HINT:
            return _select_strictly(last, preferred, capacity, mode)
        if last is None:
            outcome, reason = AffinityOutcome.BROKEN, AffinityReason.GONE
        elif last.suspect and not all_suspect(ready):
            outcome, reason = AffinityOutcome.MISS, AffinityReason.SUSPECT
        elif last.active < capacity:
            return Choice(last, AffinityOutcome.HIT, AffinityReason.PREFERRED)
        else:
            outcome, reason = AffinityOutcome.MISS, AffinityReason.BUSY
    least = _least_busy(ready, capacity, turn)
    return Wait(preferred, None, outcome, reason) if least is None else Choice(least, outcome, reason)


def _select_strictly(last: Worker | None, preferred: str, capacity: int, mode: Affinity) -> Choice | Wait:
    if last is None:
        raise SessionWorkerUnavailable(
            f"worker {preferred}, which the session used last, is gone, and affinity = {mode.value!r} allows no other; "
            "the request did not run; the session's next request may use any worker",
            worker=preferred,
        )
    if last.active < capacity:
        return Choice(last, AffinityOutcome.HIT, AffinityReason.PREFERRED)
    if mode is Affinity.STRICT_FAIL_FAST:
        raise WorkerBusy(
            f"worker {preferred}, which the session used last, has {last.active} requests (of at most {capacity}), "
            f"and affinity = {mode.value!r} neither waits nor allows another worker; the request did not run",
            worker=preferred,
        )
    return Wait(preferred, preferred, AffinityOutcome.HIT, AffinityReason.PREFERRED)


def _least_busy(ready: Sequence[Worker], capacity: int, turn: int) -> Worker | None:
    least = _least_busy_of(ready, capacity, turn, suspects_too=False)
    if least is None and all_suspect(ready):
        return _least_busy_of(ready, capacity, turn, suspects_too=True)
    return least


def _least_busy_of(ready: Sequence[Worker], capacity: int, turn: int, *, suspects_too: bool) -> Worker | None:
    least, fewest, count = None, capacity, len(ready)
    for offset in range(count):
        worker = ready[(turn + offset) % count]
        if worker.active < fewest and (suspects_too or not worker.suspect):
            least, fewest = worker, worker.active
            if not fewest:
                break
    return least


def all_suspect(workers: Sequence[Worker]) -> bool:
    """Return whether no worker is free of suspicion."""
    return all(worker.suspect for worker in workers)
