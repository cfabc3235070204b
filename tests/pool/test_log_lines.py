"""Log lines about requests and their workers: they name tool, request and session, and do not flood."""

from __future__ import annotations

import asyncio
import logging

import pytest

from snakepit_otel.bridge.authority.tool_error_log import Place, ToolErrorLog
from snakepit_otel.bridge.wire.errors import to_wire
from snakepit_otel.bridge.wire.failures import Failure, FailureKind, failure_in
from snakepit_otel.errors import DeadlineExceeded, WorkerExited
from tests.pool.stub_pool import stub_pool
from tests.pool.virtual_time import virtual_time

PLACE = Place("classify", "0a1b", "alice", "default-1.1")


def failure(error: Exception) -> Failure:
    """Return an error as a worker reports it."""
    try:
        raise error
    except Exception as raised:
        return failure_in(to_wire(raised, {"phase": "execute"}))


def log() -> ToolErrorLog:
    """Return a log on the loop's clock."""
    return ToolErrorLog(asyncio.get_running_loop().time)


def messages(caplog: pytest.LogCaptureFixture, name: str = "snakepit_otel.tools") -> list[str]:
    """Return the first line of each message of a logger, and forget them."""
    found = [record.getMessage().splitlines()[0] for record in caplog.records if record.name == name]
    caplog.clear()
    return found


@virtual_time
async def test_a_crash_names_its_requests(caplog: pytest.LogCaptureFixture) -> None:
    """The line about a worker that died says what it ran, and for whom."""
    async with stub_pool() as stubs:
        with pytest.raises(WorkerExited):
            await stubs.execute("crash", [], session="al\x1bice")
    (line,) = messages(caplog, "snakepit_otel.pool")
    assert line == (
        "worker default-1.1 (pid 0) was killed by SIGKILL; it is being replaced; it had 1 requests: "
        r"'crash' (request 0, session al\x1bice)"
    )


@virtual_time
async def test_a_stuck_request_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """A passed deadline, the replacement that it leads to, and the kill are lines with tool, request and session."""
    release = asyncio.Event()
    async with stub_pool(cancel_grace=1_000, shutdown_grace=1_000) as stubs:
        with pytest.raises(DeadlineExceeded):
            await stubs.execute("stubborn", release, session="alice", timeout=2)
        (late,) = messages(caplog)
        assert late.startswith(
            "a request for tool 'stubborn' passed its deadline (request 0, session alice, worker default-1.1): "
        )
        await asyncio.sleep(5)
        request = "with 1 requests: 'stubborn' (request 0, session alice)"
        replaced, *killed = messages(caplog, "snakepit_otel.pool")
        assert replaced == f"worker default-1.1 (pid 0) is replaced: deadline; it has {request.removeprefix('with ')}"
        assert killed == [f"worker default-1.1 (pid 0) is killed (deadline) {request}"]
        release.set()


@virtual_time
async def test_repeated_errors_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """One line with the traceback, then one with the number of the others at the end of the minute; then anew."""
    errors = log()
    for number in range(41):
        errors.add("classify", failure(ValueError(f"bad {number}")), PLACE._replace(request_id=str(number)))
    assert messages(caplog) == [
        "tool 'classify' raised ValueError: bad 0 (request 0, session alice, worker default-1.1)"
    ]
    await asyncio.sleep(61)
    (line,) = messages(caplog)
    assert line.startswith("tool 'classify' raised ValueError 40 times more in the last 60 s, from File ")
    assert line.endswith("(the latest: request 40, session alice, worker default-1.1)")
    await asyncio.sleep(120)
    assert messages(caplog) == []
    errors.add("classify", failure(ValueError("again")), PLACE)
    assert "Traceback" in caplog.records[0].getMessage()
    errors.add("classify", failure(ValueError("again")), PLACE)
    messages(caplog)
    errors.close()
    assert messages(caplog)[0].startswith("tool 'classify' raised ValueError 1 times more in the last 0 s")


@virtual_time
async def test_kinds_of_errors_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Errors of ever new types do not flood the log either."""
    errors = log()
    for number in range(1_000):
        errors.add("classify", failure(type(f"Error{number}", (Exception,), {})("new")), PLACE)
    assert len(messages(caplog)) == 101
    errors.close()
    assert messages(caplog) == ["tools failed in further ways 899 times more in the last 0 s"]


@virtual_time
async def test_secrets_and_refusals(caplog: pytest.LogCaptureFixture) -> None:
    """Passwords in an error are masked; a refused request is a line for those who debug."""
    with caplog.at_level(logging.INFO, "snakepit_otel.tools"):
        errors = log()
        errors.add("load", failure(OSError("postgres://shop:hunter2@db/")), PLACE)
        errors.add("load", failure(TypeError("x"))._replace(kind=FailureKind.REFUSED), PLACE)
        (record,) = caplog.records
        assert "hunter2" not in record.getMessage()
        caplog.set_level(logging.DEBUG, "snakepit_otel.tools")
        errors.add("load", failure(TypeError("x"))._replace(kind=FailureKind.REFUSED), PLACE)
        errors.close()
    assert caplog.records[-1].levelname == "DEBUG"
