"""Selection of the worker that serves a request."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.errors import SessionWorkerUnavailable, WorkerBusy
from snakepit_otel.pool.dispatch.affinity import AffinityOutcome, AffinityReason, Choice, Wait, select
from snakepit_otel.pool.settings import Affinity

STRICT = [Affinity.STRICT_QUEUE, Affinity.STRICT_FAIL_FAST]


class FakeWorker(NamedTuple):
    """The part of a worker that the selection reads."""

    id: str
    active: int = 0
    suspect: bool = False


def _select(
    ready: list[FakeWorker],
    preferred: str | None = None,
    *,
    mode: Affinity = Affinity.HINT,
    capacity: int = 2,
    known: bool = True,
    turn: int = 0,
) -> tuple[str, AffinityOutcome, AffinityReason] | Wait:
    choice = select(ready, preferred, capacity, mode, known, turn)
    return (choice.worker.id, choice.outcome, choice.reason) if isinstance(choice, Choice) else choice


@pytest.mark.parametrize("mode", Affinity)
def test_without_a_preference_the_least_busy_serves(mode: Affinity) -> None:
    """Whatever the mode, a request of no session goes where least is done."""
    assert _select([FakeWorker("a", 1), FakeWorker("b"), FakeWorker("c", 1)], mode=mode) == (
        "b",
        AffinityOutcome.NONE,
        AffinityReason.NO_HINT,
    )


def test_the_equally_busy_take_turns() -> None:
    """Among workers that do as little, none is chosen more often than another."""
    ready = [FakeWorker("a"), FakeWorker("b"), FakeWorker("busy", 1), FakeWorker("c")]
    chosen = Counter(str(_select(ready[:2] + ready[3:], turn=turn)[0]) for turn in range(30))
    assert chosen == {"a": 10, "b": 10, "c": 10}
    assert {_select(ready, turn=turn)[0] for turn in range(4)} == {"a", "b", "c"}


@pytest.mark.parametrize("mode", Affinity)
def test_the_last_worker_serves_if_it_has_a_free_slot(mode: Affinity) -> None:
    """Even if another is less busy."""
    assert _select([FakeWorker("a", 1), FakeWorker("b")], "a", mode=mode) == (
        "a",
        AffinityOutcome.HIT,
        AffinityReason.PREFERRED,
    )


def test_a_hint_gives_way() -> None:
    """With a hint, another serves if the last worker has no room, is set aside, or is gone."""
    others = [FakeWorker("b"), FakeWorker("c", 1)]
    assert _select([FakeWorker("a", 2), *others], "a") == ("b", AffinityOutcome.MISS, AffinityReason.BUSY)
    assert _select([FakeWorker("a", 0, suspect=True), *others], "a") == (
        "b",
        AffinityOutcome.MISS,
        AffinityReason.SUSPECT,
    )
    assert _select(others, "a") == ("b", AffinityOutcome.BROKEN, AffinityReason.GONE)


@pytest.mark.parametrize("mode", Affinity)
def test_a_worker_of_another_pool_is_no_constraint(mode: Affinity) -> None:
    """A session that used another pool last is served by any worker of this one, in every mode."""
    assert _select([FakeWorker("a")], "gpu-1.1", mode=mode, known=False) == (
        "a",
        AffinityOutcome.BROKEN,
        AffinityReason.OTHER_POOL,
    )


def test_suspects_serve_only_if_all_are_suspect() -> None:
    """A request rather waits for a worker that is well; where all are suspect they serve as if they were not."""
    suspects = [FakeWorker("a", 1, suspect=True), FakeWorker("b", 0, suspect=True)]
    assert _select([*suspects, FakeWorker("c", 1)]) == ("c", AffinityOutcome.NONE, AffinityReason.NO_HINT)
    assert _select([*suspects, FakeWorker("c", 2)]) == Wait(None, None, AffinityOutcome.NONE, AffinityReason.NO_HINT)
    assert _select(suspects) == ("b", AffinityOutcome.NONE, AffinityReason.NO_HINT)
    assert _select(suspects, "a") == ("a", AffinityOutcome.HIT, AffinityReason.PREFERRED)


@pytest.mark.parametrize("mode", STRICT)
def test_a_strict_session_is_served_by_its_worker_although_it_is_suspect(mode: Affinity) -> None:
    """No other would do."""
    assert _select([FakeWorker("a", 1, suspect=True), FakeWorker("b")], "a", mode=mode) == (
        "a",
        AffinityOutcome.HIT,
        AffinityReason.PREFERRED,
    )


@pytest.mark.parametrize("mode", STRICT)
def test_a_strict_session_whose_worker_is_gone_is_refused(mode: Affinity) -> None:
    """Rather than served by another."""
    with pytest.raises(SessionWorkerUnavailable, match=f"worker a, .* is gone, .*{mode.value}.* did not run"):
        _select([FakeWorker("b")], "a", mode=mode)


def test_strict_queue_waits_for_the_one_worker() -> None:
    """Although others have room."""
    wait = _select([FakeWorker("a", 2), FakeWorker("b")], "a", mode=Affinity.STRICT_QUEUE)
    assert isinstance(wait, Wait)
    assert wait.only == "a"
    assert wait.choice_of(FakeWorker("a")) == Choice(FakeWorker("a"), AffinityOutcome.HIT, AffinityReason.PREFERRED)


def test_strict_fail_fast_does_not_wait() -> None:
    """It says how busy the worker is, and that nothing ran."""
    with pytest.raises(WorkerBusy, match=r"worker a, .* has 2 requests \(of at most 2\), .* did not run"):
        _select([FakeWorker("a", 2), FakeWorker("b")], "a", mode=Affinity.STRICT_FAIL_FAST)


@pytest.mark.parametrize("mode", Affinity)
def test_without_a_free_slot_a_request_waits_for_any_worker(mode: Affinity) -> None:
    """A request without a preference waits in every mode; so does one whose pool has no workers at the moment."""
    assert _select([FakeWorker("a", 2)], mode=mode) == Wait(None, None, AffinityOutcome.NONE, AffinityReason.NO_HINT)
    assert _select([], mode=mode) == Wait(None, None, AffinityOutcome.NONE, AffinityReason.NO_HINT)


def test_outcome_of_the_hint_after_a_wait() -> None:
    """The last worker may be the first to have room; else the hint was missed for the reason it was."""
    wait = _select([FakeWorker("a", 2), FakeWorker("b", 2)], "a")
    assert isinstance(wait, Wait)
    assert wait.only is None
    assert wait.choice_of(FakeWorker("a")) == Choice(FakeWorker("a"), AffinityOutcome.HIT, AffinityReason.PREFERRED)
    assert wait.choice_of(FakeWorker("b")) == Choice(FakeWorker("b"), AffinityOutcome.MISS, AffinityReason.BUSY)


WORKERS = st.builds(FakeWorker, st.sampled_from("abcdefgh"), st.integers(0, 3), st.booleans())


@given(
    ready=st.lists(
        st.builds(FakeWorker, st.sampled_from("abcdefgh"), st.integers(0, 3), st.booleans()), unique_by=lambda w: w.id
    ),
    preferred=st.none() | st.sampled_from("abcdefgh"),
    capacity=st.integers(1, 3),
    mode=st.sampled_from(Affinity),
    known=st.booleans(),
    turn=st.integers(0, 100),
)
def test_properties_of_any_choice(
    ready: list[FakeWorker], preferred: str | None, capacity: int, mode: Affinity, known: bool, turn: int
) -> None:
    """The selected worker has room; only a strict mode refuses; none waits while an allowed worker has room."""
    bound = preferred is not None and known and mode is not Affinity.HINT
    well = [worker for worker in ready if not worker.suspect] or ready
    allowed = [worker for worker in ready if worker.id == preferred] if bound else well
    with_room = [worker for worker in allowed if worker.active < capacity]
    try:
        choice = select(ready, preferred, capacity, mode, known, turn)
    except SessionWorkerUnavailable:
        assert bound
        assert not allowed
        return
    except WorkerBusy:
        assert mode is Affinity.STRICT_FAIL_FAST
        assert bound
        assert allowed
        assert not with_room
        return
    if isinstance(choice, Wait):
        assert not with_room
        assert choice.only == (preferred if bound else None)
        assert not bound or (allowed and mode is Affinity.STRICT_QUEUE)
        return
    assert choice.worker in with_room
    assert (choice.outcome is AffinityOutcome.HIT) is (choice.worker.id == preferred and known)
    assert (choice.outcome is AffinityOutcome.NONE) is (preferred is None)
    if choice.outcome is not AffinityOutcome.HIT:
        assert choice.worker.active == min(worker.active for worker in with_room)
