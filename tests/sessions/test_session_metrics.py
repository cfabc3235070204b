"""Metrics of the session store."""

from __future__ import annotations

import gc

import pytest

from snakepit_otel import SessionStore
from snakepit_otel.testing import Capture

DURATION = "snakepit.session.operation.duration"


@pytest.fixture(autouse=True)
def _alone() -> None:
    """Let go of the stores of other tests, which would be counted as well."""
    gc.collect()


async def test_sessions_do_not_become_series(capture: Capture) -> None:
    """A hundred sessions more make no series more."""
    store = SessionStore()
    await store.create("first")
    before = {name: len(points) for name, points in capture.metrics().items()}
    for number in range(100):
        await store.create(f"s{number}")
    assert {name: len(points) for name, points in capture.metrics().items()} == before


async def test_stores_of_one_process_add_up(capture: Capture) -> None:
    """Two stores are one number; one that is gone is no longer live, and what it has counted stays counted."""
    gc.collect()  # those of other tests
    one, two = SessionStore(), SessionStore()
    await one.create("a")
    await two.create("a")
    await two.create("b")
    assert [point.value for point in capture.points("snakepit.session.count")] == [3]
    del two
    gc.collect()
    metrics = capture.metrics()
    assert [point.value for point in metrics["snakepit.session.count"]] == [1]
    assert [point.value for point in metrics["snakepit.session.created"]] == [0], "a counter fell with its owner"
