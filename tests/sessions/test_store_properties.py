"""The session store over each backend does what the model does, whatever is done in whatever order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from snakepit_otel.common.clock import Clock
from snakepit_otel.sessions import MemoryBackend, Overflow, SessionSettings
from snakepit_otel.telemetry import _switch
from tests.sessions.backend_contract import store_machine
from tests.sessions.remote_backend import RemoteBackend


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


def _remote(settings: SessionSettings, clock: Clock) -> RemoteBackend:
    backend = RemoteBackend(settings.limits, clock)
    asyncio.run(backend.open())
    return backend


class TestRejecting(store_machine(_memory, Overflow.REJECT).TestCase):
    """At the quota, a store that rejects agrees with the model."""


class TestEvicting(store_machine(_memory, Overflow.EVICT).TestCase):
    """At the quota, a store that evicts agrees with the model."""


class TestRejectingRemotely(store_machine(_remote, Overflow.REJECT).TestCase):
    """At the quota, a store that rejects over a remote backend agrees with the model."""


class TestEvictingRemotely(store_machine(_remote, Overflow.EVICT).TestCase):
    """At the quota, a store that evicts over a remote backend agrees with the model."""
