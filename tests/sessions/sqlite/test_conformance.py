"""Conformance of the backend in a SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from snakepit_otel.sessions import Limits
from snakepit_otel.sessions.backends import Clock, SessionBackend
from snakepit_otel.sessions.backends.sqlite import SqliteBackend
from snakepit_otel.testing.backends import BackendTests

_MEMORY = Path("/dev/shm")


class TestSqlite(BackendTests):
    """Sessions in a file, each store in one of its own."""

    share_of_examples = 0.2

    @pytest.fixture(autouse=True)
    def _files(self) -> Iterator[None]:
        with TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as directory:
            self.paths = (Path(directory) / f"{number}.db" for number in count())
            yield

    def make_backend(self, limits: Limits, clock: Clock) -> SessionBackend:
        return SqliteBackend(limits, next(self.paths), clock=clock, timeout=30)

    def make_second(self, first: SessionBackend, limits: Limits) -> SessionBackend:
        assert isinstance(first, SqliteBackend)
        return SqliteBackend(limits, first.path, clock=first.clock, timeout=30)
