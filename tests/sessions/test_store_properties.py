"""The session store over memory does what the model does, whatever is done in whatever order."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from snakepit_otel.common.clock import Clock
from snakepit_otel.sessions import MemoryBackend, Overflow, SessionSettings
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


def _memory(settings: SessionSettings, clock: Clock) -> MemoryBackend:
    return MemoryBackend(settings.limits, clock)


class TestRejecting(store_machine(_memory, Overflow.REJECT).TestCase):
    """At the quota, a store that rejects agrees with the model."""


class TestEvicting(store_machine(_memory, Overflow.EVICT).TestCase):
    """At the quota, a store that evicts agrees with the model."""
