"""Conformance of the backend over a SQLite file."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp

import pytest

from snakepit_otel.sessions import Limits, SessionBackend
from snakepit_otel.sessions.backends import Clock
from snakepit_otel.sessions.backends.sqlite import SqliteBackend
from snakepit_otel.testing.backends import BackendTests


class TestSqlite(BackendTests):
    """Sessions in a file, that several authorities of one machine may share."""

    share_of_examples = 0.25

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_backend(self, limits: Limits, clock: Clock) -> SqliteBackend:
        self.clock = clock
        return SqliteBackend(limits, Path(mkdtemp(dir=self.folder)) / "sessions.db", clock=clock)

    def make_second(self, first: SessionBackend, limits: Limits) -> SqliteBackend:
        assert isinstance(first, SqliteBackend)
        return SqliteBackend(limits, first.path, clock=self.clock)
