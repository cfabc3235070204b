"""The guard logs an error of its block or function, and goes on."""

from __future__ import annotations

import asyncio
import logging

import pytest

from snakepit_otel.common.guard import guard

log = logging.getLogger("snakepit_otel.test_guard")


def test_a_block_that_raises_is_logged_and_left(caplog: pytest.LogCaptureFixture) -> None:
    """The error is logged with its traceback, kept for the caller, and goes no further."""
    with guard("the sweep", log) as guarded:
        raise ValueError("no room")
    assert isinstance(guarded.error, ValueError)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "the sweep failed")
    assert record.exc_info is not None


def test_a_warning_has_the_error_in_its_line(caplog: pytest.LogCaptureFixture) -> None:
    """Without a traceback, the line has the type and the printable message."""
    with guard("the sweep", log, traceback=False):
        raise ValueError("no\x1b room")
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("WARNING", "the sweep failed: ValueError: no\\x1b room")


def test_functions_and_coroutine_functions_return_none_where_they_raise(caplog: pytest.LogCaptureFixture) -> None:
    """As a decorator the guard leaves results and names alone, and serves any number of calls."""

    @guard("dividing", log)
    def divide(by: int) -> float:
        return 6 / by

    @guard("dividing later", log)
    async def divide_later(by: int) -> float:
        return 6 / by

    assert (divide(2), divide(0), divide(3)) == (3, None, 2)
    assert asyncio.run(divide_later(2)) == 3
    assert asyncio.run(divide_later(0)) is None
    assert (divide.__name__, divide_later.__name__) == ("divide", "divide_later")
    assert [record.getMessage() for record in caplog.records] == ["dividing failed", "dividing later failed"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_exits_and_cancellation_pass(error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    """What ends a task or a process is not suppressed."""
    with pytest.raises(error), guard("the sweep", log):
        raise error
    assert not caplog.records
