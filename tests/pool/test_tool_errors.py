"""Errors of tools: logged, counted, and run again where they may pass."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from snakepit_otel import AuthorityContext, Client, Retry, Snakepit, ToolError, authority_tool
from snakepit_otel.bridge.wire.status import ToolStatus
from snakepit_otel.errors import ConfigurationError, InvalidArguments, ToolNotFound, ToolRefused
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from tests.pool.failing_adapter import Failing
from tests.waiting import PATIENT, until

_runs: list[str] = []


@authority_tool
def price(context: AuthorityContext, item: str) -> int:
    """Raise."""
    raise LookupError(f"no price of {item}")


@authority_tool(idempotent=True, retry=Retry(on=OSError, backoff=0.01))
async def rate(context: AuthorityContext) -> int:
    """Raise an error that passes, twice."""
    _runs.append("rate")
    if len(_runs) < 3:
        raise ConnectionResetError("reset")
    return len(_runs)


@pytest_asyncio.fixture
async def pit() -> AsyncIterator[Snakepit]:
    """A pool of one worker."""
    async with Snakepit(Failing, workers=1, pool=PATIENT, authority_tools=[price, rate]) as running:
        yield running


def lines(path: Path) -> int:
    """Return how often a tool has run."""
    return len(path.read_text().splitlines())


async def state_of(pit: Snakepit, tool: str) -> ToolStatus:
    """Return what became of a tool's calls."""
    return next(one for one in (await pit.status()).tools if one.name == tool)


def changed(before: ToolStatus, after: ToolStatus) -> dict[str, int]:
    """Return the counts that are larger by now, and by how much."""
    counts = ("calls", "raised", "refused", "failed", "retried")
    return {name: more for name in counts if (more := getattr(after, name) - getattr(before, name))}


async def test_errors_are_logged_once_with_their_traceback(pit: Snakepit, caplog: pytest.LogCaptureFixture) -> None:
    """The first of a kind is a line with tool, session, request and worker, and the worker's traceback."""
    before = await state_of(pit, "fail")
    with caplog.at_level(logging.INFO, "snakepit_otel.tools"):
        for _ in range(5):
            with pytest.raises(ToolError):
                await pit.execute("fail", {"text": "no\nsuch \x1b[31mfile"}, session_id="alice")
        with pytest.raises(ToolNotFound):
            await pit.execute("nothing")
        with pytest.raises(InvalidArguments):
            await pit.execute("double", {"number": "two"})
    (record,) = caplog.records
    first, *rest = record.getMessage().splitlines()
    assert record.levelname == "ERROR"
    assert first.startswith(r"tool 'fail' raised ValueError: no\nsuch \x1b[31mfile (request ")
    assert first.endswith("session alice, worker default-1.1)")
    assert any("failing_adapter.py" in line for line in rest)
    assert changed(before, await state_of(pit, "fail")) == {"calls": 5, "raised": 5}
    status = await pit.status()
    assert status.pools[0].raised >= 5
    assert status.pools[0].answered >= status.pools[0].raised


async def test_streams_and_tools_of_the_authority_are_no_exception(
    pit: Snakepit, caplog: pytest.LogCaptureFixture
) -> None:
    """An error after the first chunk, and one that a tool of the authority raises, are logged and counted too."""
    async with Client(pit.socket) as client:
        with pytest.raises(ToolError):
            async for _ in client.stream("stream_and_fail"):
                pass
        with pytest.raises(ToolError):
            await client.execute("price", {"item": "tea"})
    logged = [record.getMessage() for record in caplog.records if record.name == "snakepit_otel.tools"]
    assert logged[0].startswith("tool 'stream_and_fail' raised KeyError: 'stream' (request ")
    assert logged[1].startswith("tool 'price' raised LookupError: no price of tea (request ")
    assert "in the authority)" in logged[1]
    for tool, pool in (("stream_and_fail", "default"), ("price", "")):
        found = await state_of(pit, tool)
        assert (found.pool, found.calls, found.raised) == (pool, 1, 1)
        assert found.p50_seconds is not None
    with pytest.raises(ToolError, match="no price of milk"):
        await pit.execute("quote", {"item": "milk"}, session_id="alice")
    assert (await state_of(pit, "price")).raised == (await state_of(pit, "quote")).raised + 1 == 2


async def test_calls_that_did_not_run_are_refused_ones(pit: Snakepit) -> None:
    """Wrong arguments, and a session that must exist and does not, are counted by tool, and are not raised errors."""
    before = await state_of(pit, "double")
    with pytest.raises(InvalidArguments):
        await pit.execute("double")
    with pytest.raises(LookupError):
        await pit.execute("double", {"number": 1}, session_id="none such", create_session=False)
    assert await pit.execute("double", {"number": 1}) == 2
    assert changed(before, await state_of(pit, "double")) == {"calls": 3, "refused": 2}


async def test_a_tool_is_run_again_after_errors_that_may_pass(pit: Snakepit, tmp_path: Path, capture: Capture) -> None:
    """Its own `retry` decides, also for subclasses; retries are counted, and the number of runs is on the spans."""
    before = await state_of(pit, "flaky")
    assert await pit.execute("flaky", {"ran": str(tmp_path / "ran")}) == 3
    assert changed(before, await state_of(pit, "flaky")) == {"calls": 1, "retried": 2}
    (request,) = capture.spans("execute request")
    assert request.attributes["snakepit.request.attempts"] == 3
    attempts = [run.attributes.get("snakepit.request.attempts") for run in capture.spans("dispatch request")]
    assert attempts == [None, 2, 3]
    (point,) = capture.points(names.METRIC_POOL_RETRIES.name)
    assert (point.value, point.attributes["snakepit.retry.reason"]) == (2, "tool_error")


async def test_no_worker_is_held_until_a_retry(pit: Snakepit, tmp_path: Path) -> None:
    """While a request waits to be run again, the only worker serves others."""
    ran = tmp_path / "ran"
    later = Retry(on=OSError, backoff=1)
    waiting = asyncio.create_task(pit.execute("flaky", {"ran": str(ran), "failures": 1}, retry=later))
    await until(lambda: ran.exists() and bool(lines(ran)))
    assert await pit.execute("double", {"number": 4}) == 8
    assert not waiting.done()
    assert await waiting == 2


async def test_retries_end(pit: Snakepit, tmp_path: Path) -> None:
    """After `most` further runs the caller gets the last error; with too little time left, it gets it at once."""
    async with Client(pit.socket) as client:
        with pytest.raises(ToolError, match="NotYet: failure 4") as raised:
            await client.execute("flaky", {"ran": str(tmp_path / "ran"), "failures": 9})
        assert "snakepit_retry" not in raised.value.context
        started = time.monotonic()
        with pytest.raises(ToolError, match="NotYet: failure 1"):
            await client.execute(
                "flaky", {"ran": str(tmp_path / "slow")}, retry=Retry(on=OSError, backoff=3_600, max_backoff=3_600),
                timeout=60,
            )  # fmt: skip
        assert time.monotonic() - started < 30


async def test_streams_run_again_before_their_first_chunk(pit: Snakepit, tmp_path: Path) -> None:
    """A consumer gets no chunk twice."""
    for before, runs, expected in ((0, 2, [2]), (1, 1, [0])):
        ran, chunks = tmp_path / f"ran{before}", []
        with suppress(ToolError):
            async for chunk in pit.stream("flaky_stream", {"ran": str(ran), "chunks_before": before}):
                chunks.append(chunk)  # noqa: PERF401 - those before the error
        assert (lines(ran), chunks) == (runs, expected)


async def test_a_call_decides_for_itself(pit: Snakepit, tmp_path: Path) -> None:
    """`retry` of a call needs `idempotent`, of the call or of the tool; what is no `Retry` is refused."""
    parameters = {"ran": str(tmp_path / "ran")}
    retry = Retry(on=("ConnectionError",), backoff=0)
    async with Client(pit.socket) as client:
        for caller in (client, pit):
            with pytest.raises(ToolRefused, match=r"'unsure' is not called with retry=.*; it did not run"):
                await caller.execute("unsure", parameters, retry=retry)
            with pytest.raises(ConfigurationError, match="must be a Retry"):
                await caller.execute("unsure", parameters, idempotent=True, retry=3)
        assert not (tmp_path / "ran").exists()
        assert await client.execute("unsure", parameters, idempotent=True, retry=retry) == 2


async def test_tools_of_the_authority_are_run_again(pit: Snakepit) -> None:
    """They follow the same rules."""
    _runs.clear()
    assert await pit.execute("rate") == 3
    assert (await state_of(pit, "rate")).retried == 2
    with pytest.raises(ToolRefused, match="twice"):
        await pit.execute("price", {"item": "tea"}, retry=Retry(on=LookupError))


async def test_a_declared_tool_survives_its_worker(pit: Snakepit, tmp_path: Path) -> None:
    """A tool that is said to be idempotent is run again after the loss of its worker, whoever calls it."""
    assert await pit.execute("die_once", {"ran": str(tmp_path / "ran")}) == 2
    assert (await state_of(pit, "die_once")).retried == 1
