"""Metrics of a session store in memory."""

from __future__ import annotations

import gc

import pytest

from snakepit_otel import SessionStore
from snakepit_otel.testing import Capture

STORE = "snakepit.session.store"


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


async def test_each_store_of_a_process_has_series_of_its_own(capture: Capture) -> None:
    """Each store in memory has a series of its own, which ends with it."""
    one, two = SessionStore(), SessionStore()
    names = (one.name, two.name)  # there may be stores of other tests, too
    await one.create("a")
    await two.create("a")
    await two.create("b")
    assert one.name.startswith("memory-")
    points = [point for point in capture.points("snakepit.session.count") if point.attributes[STORE] in names]
    assert {point.attributes[STORE]: point.value for point in points} == {one.name: 1, two.name: 2}
    del two
    gc.collect()
    for metric in ("snakepit.session.count", "snakepit.session.created"):
        points = [point for point in capture.points(metric) if point.attributes[STORE] in names]
        assert [point.attributes for point in points] == [{STORE: one.name}]


async def test_a_store_in_memory_has_no_client(capture: Capture) -> None:
    """What is about a store elsewhere is absent, and its operations are not measured a second time."""
    store = SessionStore()
    await store.create("a")
    metrics = capture.metrics()
    about_clients = [name for name in metrics if name.startswith("snakepit.session.store.")]
    assert not [name for name in about_clients for point in metrics[name] if point.attributes[STORE] == store.name]
    unreported = metrics.get("snakepit.session.unreported", ())
    assert not [point for point in unreported if point.attributes[STORE] == store.name]
