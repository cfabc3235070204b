"""Which worker serves a request."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.errors import SessionWorkerUnavailable, WorkerBusy
from snakepit_otel.pool.dispatch.selection import Choice, Outcome, Wait, Why, choose
from snakepit_otel.pool.settings import Affinity

STRICT = [Affinity.STRICT_QUEUE, Affinity.STRICT_FAIL_FAST]


class Idler(NamedTuple):
    """A worker as far as the choice goes."""

    id: str
    active: int = 0
    suspect: bool = False


def _choose(
    ready: list[Idler],
    prefer: str | None = None,
    *,
    mode: Affinity = Affinity.HINT,
    capacity: int = 2,
    known: bool = True,
    turn: int = 0,
) -> tuple[str, Outcome, Why] | Wait:
    choice = choose(ready, prefer, capacity, mode, known, turn)
    return (choice.worker.id, choice.outcome, choice.why) if isinstance(choice, Choice) else choice


@pytest.mark.parametrize("mode", Affinity)
def test_without_a_preference_the_least_busy_serves(mode: Affinity) -> None:
    """Whatever the mode, a request of no session goes where least is done."""
    assert _choose([Idler("a", 1), Idler("b"), Idler("c", 1)], mode=mode) == ("b", Outcome.NONE, Why.NO_HINT)


def test_the_equally_busy_take_turns() -> None:
    """Among workers that do as little, none is chosen more often than another."""
    ready = [Idler("a"), Idler("b"), Idler("busy", 1), Idler("c")]
    chosen = Counter(str(_choose(ready[:2] + ready[3:], turn=turn)[0]) for turn in range(30))
    assert chosen == {"a": 10, "b": 10, "c": 10}
    assert {_choose(ready, turn=turn)[0] for turn in range(4)} == {"a", "b", "c"}


@pytest.mark.parametrize("mode", Affinity)
def test_the_last_worker_serves_if_it_has_room(mode: Affinity) -> None:
    """Even if another is less busy."""
    assert _choose([Idler("a", 1), Idler("b")], "a", mode=mode) == ("a", Outcome.HIT, Why.PREFERRED)


def test_a_hint_gives_way() -> None:
    """With a hint, another serves if the last worker has no room, is set aside, or is gone."""
    others = [Idler("b"), Idler("c", 1)]
    assert _choose([Idler("a", 2), *others], "a") == ("b", Outcome.MISS, Why.BUSY)
    assert _choose([Idler("a", 0, suspect=True), *others], "a") == ("b", Outcome.MISS, Why.SUSPECT)
    assert _choose(others, "a") == ("b", Outcome.BROKEN, Why.GONE)


@pytest.mark.parametrize("mode", Affinity)
def test_a_worker_of_another_pool_binds_nobody(mode: Affinity) -> None:
    """A session that used another pool last is served by any worker of this one, in every mode."""
    assert _choose([Idler("a")], "gpu-1.1", mode=mode, known=False) == ("a", Outcome.BROKEN, Why.OTHER_POOL)


def test_suspects_serve_only_if_there_is_nobody_else() -> None:
    """A request rather waits for a worker that is well; where all are suspect they serve as if they were not."""
    suspects = [Idler("a", 1, suspect=True), Idler("b", 0, suspect=True)]
    assert _choose([*suspects, Idler("c", 1)]) == ("c", Outcome.NONE, Why.NO_HINT)
    assert _choose([*suspects, Idler("c", 2)]) == Wait(None, None, Outcome.NONE, Why.NO_HINT)
    assert _choose(suspects) == ("b", Outcome.NONE, Why.NO_HINT)
    assert _choose(suspects, "a") == ("a", Outcome.HIT, Why.PREFERRED)


@pytest.mark.parametrize("mode", STRICT)
def test_a_strict_session_is_served_by_its_worker_although_it_is_suspect(mode: Affinity) -> None:
    """No other would do."""
    assert _choose([Idler("a", 1, suspect=True), Idler("b")], "a", mode=mode) == ("a", Outcome.HIT, Why.PREFERRED)


@pytest.mark.parametrize("mode", STRICT)
def test_a_strict_session_whose_worker_is_gone_is_told(mode: Affinity) -> None:
    """Rather than served by another."""
    with pytest.raises(SessionWorkerUnavailable, match=f"worker a, .* is gone, .*{mode.value}.* did not run"):
        _choose([Idler("b")], "a", mode=mode)


def test_strict_queue_waits_for_the_one_worker() -> None:
    """Although others have room."""
    wait = _choose([Idler("a", 2), Idler("b")], "a", mode=Affinity.STRICT_QUEUE)
    assert isinstance(wait, Wait)
    assert wait.worker == "a"
    assert wait.given(Idler("a")) == Choice(Idler("a"), Outcome.HIT, Why.PREFERRED)


def test_strict_fail_fast_does_not_wait() -> None:
    """It says how busy the worker is, and that nothing ran."""
    with pytest.raises(WorkerBusy, match=r"worker a, .* has 2 requests \(of at most 2\), .* did not run"):
        _choose([Idler("a", 2), Idler("b")], "a", mode=Affinity.STRICT_FAIL_FAST)


@pytest.mark.parametrize("mode", Affinity)
def test_where_nobody_has_room_a_request_waits_for_anybody(mode: Affinity) -> None:
    """A request without a preference waits in every mode; so does one whose pool has no workers at the moment."""
    assert _choose([Idler("a", 2)], mode=mode) == Wait(None, None, Outcome.NONE, Why.NO_HINT)
    assert _choose([], mode=mode) == Wait(None, None, Outcome.NONE, Why.NO_HINT)


def test_who_has_waited_knows_what_became_of_the_hint() -> None:
    """The last worker may be the first to have room; else the hint was missed for the reason it was."""
    wait = _choose([Idler("a", 2), Idler("b", 2)], "a")
    assert isinstance(wait, Wait)
    assert wait.worker is None
    assert wait.given(Idler("a")) == Choice(Idler("a"), Outcome.HIT, Why.PREFERRED)
    assert wait.given(Idler("b")) == Choice(Idler("b"), Outcome.MISS, Why.BUSY)


IDLERS = st.builds(Idler, st.sampled_from("abcdefgh"), st.integers(0, 3), st.booleans())


@given(
    ready=st.lists(
        st.builds(Idler, st.sampled_from("abcdefgh"), st.integers(0, 3), st.booleans()), unique_by=lambda w: w.id
    ),
    prefer=st.none() | st.sampled_from("abcdefgh"),
    capacity=st.integers(1, 3),
    mode=st.sampled_from(Affinity),
    known=st.booleans(),
    turn=st.integers(0, 100),
)
def test_properties_of_any_choice(
    ready: list[Idler], prefer: str | None, capacity: int, mode: Affinity, known: bool, turn: int
) -> None:
    """Whoever is chosen has room; only a strict mode refuses; nobody waits while a worker that would do has room."""
    bound = prefer is not None and known and mode is not Affinity.HINT
    well = [worker for worker in ready if not worker.suspect] or ready
    would_do = [worker for worker in ready if worker.id == prefer] if bound else well
    with_room = [worker for worker in would_do if worker.active < capacity]
    try:
        choice = choose(ready, prefer, capacity, mode, known, turn)
    except SessionWorkerUnavailable:
        assert bound
        assert not would_do
        return
    except WorkerBusy:
        assert mode is Affinity.STRICT_FAIL_FAST
        assert bound
        assert would_do
        assert not with_room
        return
    if isinstance(choice, Wait):
        assert not with_room
        assert choice.worker == (prefer if bound else None)
        assert not bound or (would_do and mode is Affinity.STRICT_QUEUE)
        return
    assert choice.worker in with_room
    assert (choice.outcome is Outcome.HIT) is (choice.worker.id == prefer and known)
    assert (choice.outcome is Outcome.NONE) is (prefer is None)
    if choice.outcome is not Outcome.HIT:
        assert choice.worker.active == min(worker.active for worker in with_room)
