"""Suite of tests that every session backend passes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from snakepit_otel.sessions import Overflow
from snakepit_otel.telemetry import _switch
from snakepit_otel.testing.backends._ledger_tests import LedgerTests
from snakepit_otel.testing.backends._machine import store_machine
from snakepit_otel.testing.backends._session_tests import SessionTests
from snakepit_otel.testing.backends._sharing_tests import SharingTests
from snakepit_otel.testing.backends._state_tests import StateTests


class BackendTests(SessionTests, StateTests, LedgerTests, SharingTests):
    """Tests of a session backend, of all that its contract promises.

    Derive a class whose name begins with `Test`, and define `make_backend` and, where several authorities may share
    a store, `make_second`. The tests open and close the backends. Fixtures may be used, as `autouse` fixtures of the
    class. Where the backend takes no clock, `has_clock` is False, and what needs time to pass is skipped. A slow one
    may try a `share_of_examples`, of those that hypothesis' profile asks for.
    """

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
