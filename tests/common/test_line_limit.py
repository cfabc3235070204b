"""Limit of log lines."""

from __future__ import annotations

from snakepit_otel.common.line_limit import OTHER, LineLimit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_line_of_a_kind_in_an_interval() -> None:
    """Further lines are counted, and the next one that is admitted has their number."""
    clock = Clock()
    limit = LineLimit(interval=60, clock=clock)
    assert [limit.admit("a"), limit.admit("a"), limit.admit("b"), limit.admit("a")] == [0, None, 0, None]
    clock.now = 60
    assert limit.admit("a") == 2
    assert limit.admit("a") is None


def test_the_number_left_out_is_reported_at_the_end() -> None:
    """At the end of its interval a kind is forgotten, and the number of its lines that were left out returned."""
    clock = Clock()
    limit = LineLimit(interval=60, clock=clock)
    assert limit.next_end() is None
    for kind in ("a", "a", "b"):
        limit.admit(kind)
    clock.now = 45
    assert limit.next_end() == 15
    assert limit.ended() == []
    clock.now = 61
    assert limit.ended() == [("a", 1, 61)]
    assert limit.admit("a") == 0
    limit.admit("a")
    assert limit.ended(early=True) == [("a", 1, 0)]


def test_kinds_are_bounded() -> None:
    """Kinds beyond the limit share one, until others have ended."""
    clock = Clock()
    limit = LineLimit(interval=60, most_kinds=2, clock=clock)
    assert [limit.admit(kind) for kind in "abcdc"] == [0, 0, 0, None, None]
    assert limit.ended(early=True) == [(OTHER, 2, 0)]
    assert [limit.admit(kind) for kind in "ab"] == [0, 0]
    clock.now = 60
    assert limit.admit("c") == 0
