"""Tools and requests of a running authority, as operators see them, in the process and from outside."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from snakepit_otel import AuthorityContext, Client, Snakepit, authority_tool
from snakepit_otel.errors import ConfigurationError, RequestCancelled
from tests.adapters_for_tests import Useful
from tests.waiting import until

RELEASED = threading.Event()


@authority_tool
def block(context: AuthorityContext, seconds: float = 60) -> str:
    """Block a thread of the authority."""
    RELEASED.wait(seconds)
    return "released"


@pytest.fixture
async def pit() -> AsyncIterator[Snakepit]:
    """A server with one worker, which runs one request at a time."""
    RELEASED.clear()
    async with Snakepit(Useful, workers=1, authority_tools=[block], pool={"queue_timeout": 60_000}) as running:
        yield running
        RELEASED.set()


async def test_tools_are_listed(pit: Snakepit) -> None:
    """Names, pools, signatures and schemas, of workers' tools and of the authority's own, are the same from outside."""
    async with Client(pit.socket) as client:
        listed = await client.list_tools()
    assert listed == pit.list_tools()
    found = {one.name: one for one in listed}
    assert found["block"].pool is None
    assert found["block"].signature == "(seconds: float = 60) -> str"
    add = found["add"]
    assert (add.pool, add.adapter) == ("default", "tests.adapters_for_tests:Useful")
    assert add.as_dict()["inputSchema"] == {
        "type": "object",
        "properties": {"amount": {"type": "integer"}},
        "required": ["amount"],
        "additionalProperties": False,
    }
    assert "session_get" not in found


async def test_requests_are_listed_and_cancelled(pit: Snakepit, tmp_path: Path) -> None:
    """One runs and one waits; each can be cancelled, and its caller gets the reason; the next request runs."""
    async with Client(pit.socket) as client:
        started, cancelled = tmp_path / "started", tmp_path / "cancelled"
        arguments: dict[str, Any] = {"started": str(started), "cancelled": str(cancelled)}
        running = asyncio.ensure_future(client.execute("wait_forever", arguments, session_id="alice", timeout=500))
        await until(started.exists)
        queued = asyncio.ensure_future(pit.execute("pid"))
        await until(lambda: pit.list_requests().total == 2)
        first, second = (await client.list_requests()).requests
        assert (first.tool, first.session_id, first.pool, first.state) == (
            "wait_forever",
            "alice",
            "default",
            "running",
        )
        assert first.worker_id == pit.pool.workers[0].id
        assert first.deadline_seconds is not None
        assert 400 < first.deadline_seconds <= 500
        assert (second.tool, second.session_id, second.state, second.worker_id) == ("pid", None, "queued", None)
        assert (await client.list_requests(1)).total == 2

        assert await client.cancel_request(second.id[:8])
        with pytest.raises(RequestCancelled, match="an operator cancelled the request for 'pid'; it did not run"):
            await queued
        assert pit.cancel_request(first.id)
        with pytest.raises(RequestCancelled, match="'wait_forever'; it may have run in part"):
            await running
        await until(cancelled.exists)
        await until(lambda: not pit.list_requests().total)
        assert not await client.cancel_request(first.id)
        assert isinstance(await client.execute("pid", timeout=60), int)
        with pytest.raises(ConfigurationError, match="give 4 characters at least"):
            await client.cancel_request("a")


async def test_streams_and_the_authoritys_tools_are_cancelled(pit: Snakepit) -> None:
    """A stream ends with the error, over gRPC too; a thread of the authority goes on without its caller."""
    async with Client(pit.socket) as client:

        async def drain(caller: Client | Snakepit) -> None:
            async for _ in caller.stream("block"):
                pass

        for caller in (client, pit):
            stream = asyncio.ensure_future(drain(caller))
            await until(lambda: [one.state for one in pit.list_requests().requests] == ["running"])
            (one,) = pit.list_requests().requests
            assert (one.tool, one.pool, one.worker_id) == ("block", None, None)
            assert pit.cancel_request(one.id)
            with pytest.raises(RequestCancelled, match="'block'; it may have run in part"):
                await stream
        assert pit.tools.threads.abandoned == 2
        RELEASED.set()
        await until(lambda: pit.tools.threads.active == 0)


async def test_a_caller_that_is_cancelled_stays_cancelled(pit: Snakepit) -> None:
    """Where the caller's task is cancelled as well, it gets its own cancellation."""
    RELEASED.clear()
    calling = asyncio.ensure_future(pit.execute("block"))
    await until(lambda: pit.list_requests().total == 1)
    pit.cancel_request(pit.list_requests().requests[0].id)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert pit.list_requests().total == 0
    RELEASED.set()


async def test_a_request_that_goes_on_without_its_caller(tmp_path: Path) -> None:
    """It is listed as one that is being cancelled, until its worker has ended it or is replaced."""
    pool = {"cancel_grace": 60_000}
    async with Snakepit(Useful, workers=1, pool=pool) as pit:
        go, started = tmp_path / "go", tmp_path / "started"
        calling = asyncio.ensure_future(pit.execute("wait_for", {"path": str(go), "started": str(started)}))
        await until(started.exists)
        (one,) = pit.list_requests().requests
        assert pit.cancel_request(one.id)
        with pytest.raises(RequestCancelled) as caught:
            await calling
        assert (caught.value.may_have_run, caught.value.tool, caught.value.worker) == (True, "wait_for", "default-1.1")
        assert [each.state for each in pit.list_requests().requests] == ["cancelling"]
        assert pit.cancel_request(one.id)
        go.touch()
        await until(lambda: not pit.list_requests().total)
