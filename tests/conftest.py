"""Fixtures that all tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["snakepit_otel.testing.plugin"]

# The suite decides what is exported, not the environment it happens to run in.
for name in [name for name in os.environ if name.startswith(("OTEL_", "SNAKEPIT_"))]:
    del os.environ[name]

# CI tries the same examples for the same commit, so that what it refuses is the change's doing; elsewhere we explore.
_repeatable = bool(os.environ.get("CI"))
_examples = int(os.environ.get("HYPOTHESIS_MAX_EXAMPLES", "200"))
hypothesis.settings.register_profile("test", deadline=None, derandomize=_repeatable, max_examples=_examples)
hypothesis.settings.register_profile("proof", deadline=None, derandomize=_repeatable, max_examples=2_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A private directory whose path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as directory:
        yield Path(directory)
