"""Bytes that are held for peers are bounded, per peer and in all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.bridge.authority.byte_budget import Budget
from snakepit_otel.bridge.wire.peers import UNIX, Peer
from snakepit_otel.errors import BudgetExceeded

A, B = Peer("10.0.0.1", is_known=False), Peer("10.0.0.2", is_known=False)


def test_one_peer_has_a_limit() -> None:
    """A peer that holds as much as it may is refused more; others and known callers are not."""
    budget = Budget(anonymous=100, anonymous_peer=60, known=1_000)
    held = budget.charge(A, 60, "requests")
    with pytest.raises(BudgetExceeded, match="1 bytes of requests: this peer holds 60"):
        budget.charge(A, 1, "requests")
    with budget.charge(B, 40, "requests"), pytest.raises(BudgetExceeded, match=": peers hold 100"):
        budget.charge(B, 1, "requests")
    with budget.charge(UNIX, 1_000, "requests"), pytest.raises(BudgetExceeded, match=": callers hold 1000"):
        budget.charge(UNIX, 1, "requests")
    held.release()
    held.release()
    assert budget.held() == budget.held(A) == 0


def test_a_refused_growth_keeps_what_was() -> None:
    """A charge that may not grow stays as it is, and may shrink."""
    budget = Budget(anonymous=100, anonymous_peer=60)
    charge = budget.charge(A, 50, "buffers")
    with pytest.raises(BudgetExceeded):
        charge.resize(61)
    assert budget.held(A) == 50
    charge.resize(10)
    assert budget.held(A) == 10


@given(st.lists(st.tuples(st.sampled_from([A, B, UNIX]), st.integers(0, 80), st.booleans())))
def test_the_sum_is_exact(steps: list[tuple[Peer, int, bool]]) -> None:
    """Whatever is charged, grown, refused and released, what is held is the sum of the charges, and within limits."""
    budget = Budget(anonymous=100, anonymous_peer=60, known=120)
    charges = []
    for peer, size, grow in steps:
        try:
            if grow and charges:
                charges[-1].resize(size)
            else:
                charges.append(budget.charge(peer, size, "things"))
        except BudgetExceeded:
            pass
        by_peer = {peer: sum(charge.size for charge in charges if charge.peer == peer) for peer in (A, B, UNIX)}
        assert {peer: budget.held(peer) for peer in by_peer} == by_peer
        assert max(by_peer[A], by_peer[B]) <= 60
        assert by_peer[A] + by_peer[B] <= 100
        assert by_peer[UNIX] <= 120
    for charge in charges:
        charge.release()
    assert budget.held() == 0


def test_half_of_a_budget() -> None:
    """What lasts is charged twice, to its half and to the whole, and takes no more than half of it."""
    somebody = Peer("10.0.0.1", is_known=False)
    whole = Budget(anonymous=200, anonymous_peer=100, known=1_000)
    half = whole.half()
    lasting = half.charge(somebody, 40, "sessions")
    with pytest.raises(BudgetExceeded, match="no room for 11 bytes of sessions: this peer holds 40 already"):
        half.charge(somebody, 11, "sessions")
    with whole.charge(somebody, 60, "a call"):
        assert (half.held(somebody), whole.held(somebody)) == (40, 100)
        with pytest.raises(BudgetExceeded):
            half.charge(somebody, 5, "sessions")
        assert half.held(somebody) == 40
    lasting.release()
    assert (half.held(), whole.held()) == (0, 0)
