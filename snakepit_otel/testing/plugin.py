"""Fixtures for pytest: `pytest_plugins = ["snakepit_otel.testing.plugin"]` in a `conftest.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from snakepit_otel.testing._capture import Capture
from snakepit_otel.testing._clock import FakeClock


@pytest.fixture(scope="session")
def _capture() -> Capture:
    return Capture()


@pytest.fixture
def capture(_capture: Capture) -> Iterator[Capture]:
    """Everything this process emits during the test."""
    _capture.clear()
    yield _capture
    _capture.clear()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()
