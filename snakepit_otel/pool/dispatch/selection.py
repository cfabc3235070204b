"""Which worker serves a request."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Generic, NamedTuple, Protocol, TypeVar

from snakepit_otel.errors import SessionWorkerUnavailable, WorkerBusy
from snakepit_otel.pool.settings import Affinity


class Outcome(StrEnum):
    """What became of the hint that a session used a certain worker last."""

    NONE = "none"
    HIT = "hit"
    MISS = "miss"
    BROKEN = "broken"


class Why(StrEnum):
    """Why it became that."""

    NO_HINT = "no_hint"
    PREFERRED = "preferred"
    """The last worker had room."""
    BUSY = "busy"
    """It had none."""
    SUSPECT = "suspect"
    """It was set aside."""
    GONE = "gone"
    """It has ended, or is about to."""
    OTHER_POOL = "other_pool"
    """It belongs to another pool."""


class Candidate(Protocol):
    """A worker that is ready."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def active(self) -> int:
        """The places that are taken."""
        ...

    @property
    def suspect(self) -> bool:
        """Whether it is set aside, for as long as there are others."""
        ...


C = TypeVar("C", bound=Candidate)


class Choice(NamedTuple, Generic[C]):
    """The worker, and what became of the hint."""

    worker: C
    outcome: Outcome
    why: Why


class Wait(NamedTuple):
    """Nobody has room: the request has to wait, for `worker` if no other will do."""

    prefer: str | None
    worker: str | None
    outcome: Outcome
    """What became of the hint, unless the preferred worker is the first to have room."""
    why: Why

    def given(self, worker: C) -> Choice[C]:
        """Return the choice of the worker that had room in the end."""
        if worker.id == self.prefer:
            return Choice(worker, Outcome.HIT, Why.PREFERRED)
        return Choice(worker, self.outcome, self.why)


def choose(
    ready: Sequence[C], prefer: str | None, capacity: int, mode: Affinity, known: bool, turn: int = 0
) -> Choice[C] | Wait:
    """Return the worker that serves a request, or that it has to wait for one.

    `ready` are those that take new requests, at most `capacity` each. `prefer` is the worker that the session used
    last, if any; `known` says that it is, or was, one of this pool, whose mode of affinity binds no session to a worker
    of another. Otherwise it is the least busy. Suspect workers are chosen only where all are suspect, or where a strict
    mode asks for one. `turn` counts requests: among the equally busy each has its turn.

    Raises `SessionWorkerUnavailable` if a strict mode wants a worker that is gone, and `WorkerBusy` if
    `strict_fail_fast` wants one that has no room.
    """
    if prefer is None:
        outcome, why = Outcome.NONE, Why.NO_HINT
    elif not known:
        outcome, why = Outcome.BROKEN, Why.OTHER_POOL
    else:
        preferred = next((worker for worker in ready if worker.id == prefer), None)
        if mode is not Affinity.HINT:
            return _only(preferred, prefer, capacity, mode)
        if preferred is None:
            outcome, why = Outcome.BROKEN, Why.GONE
        elif preferred.suspect and not _all_suspect(ready):
            outcome, why = Outcome.MISS, Why.SUSPECT
        elif preferred.active < capacity:
            return Choice(preferred, Outcome.HIT, Why.PREFERRED)
        else:
            outcome, why = Outcome.MISS, Why.BUSY
    least = _least_busy(ready, capacity, turn)
    return Wait(prefer, None, outcome, why) if least is None else Choice(least, outcome, why)


def _only(preferred: C | None, prefer: str, capacity: int, mode: Affinity) -> Choice[C] | Wait:
    if preferred is None:
        raise SessionWorkerUnavailable(
            f"worker {prefer}, which the session used last, is gone, and affinity = {mode.value!r} wants no other; "
            "the request did not run; the session's next one may use any worker"
        )
    if preferred.active < capacity:
        return Choice(preferred, Outcome.HIT, Why.PREFERRED)
    if mode is Affinity.STRICT_FAIL_FAST:
        raise WorkerBusy(
            f"worker {prefer}, which the session used last, has {preferred.active} requests (of at most {capacity}), "
            f"and affinity = {mode.value!r} neither waits nor wants another; the request did not run"
        )
    return Wait(prefer, prefer, Outcome.HIT, Why.PREFERRED)


def _least_busy(ready: Sequence[C], capacity: int, turn: int) -> C | None:
    """Return None if nobody has room."""
    suspects_too = _all_suspect(ready)
    least: C | None = None
    for place in range(len(ready)):
        worker = ready[(turn + place) % len(ready)]
        if worker.suspect and not suspects_too:
            continue
        if worker.active < (capacity if least is None else least.active):
            least = worker
            if not worker.active:
                break
    return least


def _all_suspect(ready: Sequence[C]) -> bool:
    return all(worker.suspect for worker in ready)
