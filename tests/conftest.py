"""Fixtures that all tests share."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.processes import children, command_line

pytest_plugins = ["snakepit_otel.testing.plugin"]

# The suite decides what is exported, not the environment it happens to run in.
for name in [name for name in os.environ if name.startswith(("OTEL_", "SNAKEPIT_"))]:
    del os.environ[name]
# What commands print is as wide and as colourful as a test says. pytest-xdist may set the first two, by readline.
for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PY_COLORS"):
    os.environ.pop(name, None)

# CI tries the same examples for the same commit, so that what it refuses is the change's doing; elsewhere we explore.
_repeatable = bool(os.environ.get("CI"))
_examples = int(os.environ.get("HYPOTHESIS_MAX_EXAMPLES", "200"))
hypothesis.settings.register_profile("test", deadline=None, derandomize=_repeatable, max_examples=_examples)
hypothesis.settings.register_profile("proof", deadline=None, derandomize=_repeatable, max_examples=2_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))


_HELPERS = re.compile(r"import main; main\(|resource_tracker|forkserver")


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Fail the test that leaves a process behind, and not the one during which its leftover is found."""
    before = _own_children()
    yield
    left = {pid: command_line(pid) for pid in _own_children() - before}
    # What multiprocessing, and joblib after its example, start for themselves stays, and is for all tests.
    left = {pid: command for pid, command in left.items() if not _HELPERS.search(command)}
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert not left


def _own_children() -> set[int]:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()  # as after most tests, and cheaper than a look into /proc
    return set(children(os.getpid()))


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A private directory whose path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as directory:
        yield Path(directory)
