"""Fixtures of the kit's own tests."""

from __future__ import annotations

import pytest

from tests.testing.kit_adapter import Kit


@pytest.fixture(scope="session")
def snakepit_adapter() -> type:
    """The adapter of the server that these tests share."""
    return Kit
