"""Suite of tests that every session backend passes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from snakepit_otel.common.clock import Clock
from snakepit_otel.sessions import Limits, Overflow, SessionBackend
from snakepit_otel.telemetry import _switch
from snakepit_otel.testing.backends._machine import store_machine


class BackendTests:
    """Tests of a session backend.

    Derive a class whose name begins with `Test`, and define `make_backend` and, where several authorities may share
    a store, `make_second`. Fixtures may be used, as `autouse` fixtures of the class. Where the backend takes no clock,
    `has_clock` is False, and what needs time to pass is skipped. A slow one may try a `share_of_examples`, of those
    that hypothesis' profile asks for.
    """

    has_clock: ClassVar[bool] = True
    share_of_examples: ClassVar[float] = 1.0

    def make_backend(self, limits: Limits, clock: Clock) -> SessionBackend:
        """Return a backend over a new, empty store, which decides by the clock, and is not open yet."""
        raise NotImplementedError

    def make_second(self, first: SessionBackend, limits: Limits) -> SessionBackend:
        """Return another backend over the store and the clock of the first, for another authority, not open yet."""
        pytest.skip("make_second is not defined")

    def test_properties_of_a_store_that_rejects(self) -> None:
        """At the quota, a store that rejects does what the model does, whatever is done in whatever order."""
        self._run_machine(Overflow.REJECT)

    def test_properties_of_a_store_that_evicts(self) -> None:
        """At the quota, a store that evicts does what the model does, whatever is done in whatever order."""
        self._run_machine(Overflow.EVICT)

    def _run_machine(self, overflow: Overflow) -> None:
        if not self.has_clock:
            pytest.skip("the backend takes no clock")
        machine = store_machine(self.make_backend, overflow)
        examples = max(1, round(settings().max_examples * self.share_of_examples))
        with _quiet():
            run_state_machine_as_test(machine, settings=settings(machine.TestCase.settings, max_examples=examples))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the spans and warnings of some hundred thousand calls out of memory."""
    log = logging.getLogger("snakepit_otel.sessions")
    was_enabled, was_disabled = _switch.enabled, log.disabled
    _switch.set_enabled(False)
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = was_disabled
        _switch.set_enabled(was_enabled)
