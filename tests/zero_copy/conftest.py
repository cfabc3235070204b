"""Fixtures for references."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.zero_copy.both_sides import Bridge, bridge


@pytest.fixture(scope="module")
def shared() -> Iterator[Bridge]:
    """A bridge for all tests of a module, of which each makes requests of its own."""
    with bridge() as made:
        yield made
