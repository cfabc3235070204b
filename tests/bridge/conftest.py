"""Fixtures of the bridge's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bridge.painting import Painting


@pytest.fixture(autouse=True)
def nobody_held() -> Iterator[None]:
    """Begin with no tool started, and let go of every tool that a test still holds at its end."""
    for event in (Painting.started, Painting.release, Painting.closed):
        event.clear()
    yield
    Painting.release.set()
