"""The session store over a SQLite file does what the model does, whatever is done in whatever order."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit_otel.common.clock import Clock
from snakepit_otel.sessions import Overflow, SessionSettings
from snakepit_otel.sessions.backends.sqlite import SqliteBackend
from snakepit_otel.telemetry import _switch
from tests.sessions.backend_contract import store_machine


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep the spans and warnings of some hundred thousand calls out of memory."""
    log = logging.getLogger("snakepit_otel.sessions")
    _switch.set_enabled(False)
    log.disabled = True
    yield
    log.disabled = False
    _switch.set_enabled(True)


def _backend(settings: SessionSettings, clock: Clock) -> SqliteBackend:
    backend = SqliteBackend(settings.limits, Path(tempfile.mkdtemp()) / "sessions.db", clock=clock)
    asyncio.run(backend.open())
    return backend


def _machine(overflow: Overflow) -> type:
    class Machine(store_machine(_backend, overflow)):
        def teardown(self) -> None:
            super().teardown()
            asyncio.run(self.backend.close())
            shutil.rmtree(self.backend.path.parent)

    return Machine.TestCase


class TestRejecting(_machine(Overflow.REJECT)):
    """At the quota, a store that rejects agrees with the model."""


class TestEvicting(_machine(Overflow.EVICT)):
    """At the quota, a store that evicts agrees with the model."""
