"""Deadlines of a client's requests: the authority's reason arrives, and not only the call's own end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from snakepit_otel import Client, SessionStore, Snakepit
from snakepit_otel.bridge.authority.call_times import in_time, time_of
from snakepit_otel.bridge.wire.methods import TIMEOUT_HEADER
from snakepit_otel.errors import (
    DeadlineExceeded,
    InvalidArguments,
    PoolError,
    SessionNotFound,
    StateRefused,
    ToolNotFound,
)
from snakepit_otel.sessions.backends.memory import MemoryBackend
from tests.bridge.client.resting_adapter import Resting
from tests.bridge.parts import authority
from tests.waiting import until


@asynccontextmanager
async def occupied(caller: Any, directory: Path) -> AsyncIterator[None]:
    """Keep the one worker busy."""
    started = directory / "started"
    running = asyncio.ensure_future(caller.execute("rest", {"started": str(started)}))
    await until(started.exists)
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])


async def failure(call: Any) -> Any:
    """Return what a call raises."""
    try:
        await call
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


async def test_the_authoritys_reason_arrives(short_path: Path) -> None:
    """Which tool and which worker it was, whether it may have run, and how long it waited."""
    server = {"listen": "127.0.0.1:0"}
    async with Snakepit(Resting, workers=1, server=server) as pit:
        assert pit.address is not None
        async with Client(pit.socket) as unix, Client(pit.address) as tcp:
            for caller in (pit, unix, tcp):
                late = await failure(caller.execute("rest", {"started": str(short_path / "unused")}, timeout=0.2))
                assert type(late) is DeadlineExceeded
                assert (late.tool, late.pool, late.worker) == ("rest", "default", "default-1.1")
                assert late.may_have_run
                assert "worker default-1.1 did not end 'rest' within the request's deadline" in str(late)
            async with occupied(pit, short_path):
                for caller in (pit, unix, tcp):
                    late = await failure(caller.execute("echo", {"value": 1}, timeout=0.2))
                    assert isinstance(late, PoolError)
                    assert not late.may_have_run
                    assert str(late).endswith("it did not run")
                    assert (late.tool, late.pool) == ("echo", "default")
                    assert late.queue_length is not None
            for caller in (pit, unix):
                unchecked = await failure(caller.execute("echo", {"colour": 1}))
                assert (type(unchecked), unchecked.may_have_run) == (InvalidArguments, False)
                missing = await failure(caller.execute("paint"))
                assert (type(missing), missing.may_have_run) == (ToolNotFound, False)
                refused = await failure(caller.execute("keep", session_id="s"))
                assert (type(refused), refused.may_have_run) == (StateRefused, True)


class StuckBackend(MemoryBackend):
    """A store that does not answer."""

    async def create(self, *_: Any, **__: Any) -> Any:
        """Wait for ever."""
        await asyncio.Event().wait()


async def test_session_calls_end_in_time(short_path: Path) -> None:
    """The authority says that its store did not answer; a bound session's stream has the client's own limit."""
    store = SessionStore(backend=StuckBackend)
    async with authority(short_path, sessions=store) as served, Client(served.address) as client:
        with pytest.raises(DeadlineExceeded, match=r"the session store did not answer within 0\.05 s") as caught:
            await client.create_session("s", timeout=0.05)
        assert caught.value.may_have_run
        late = await failure(client.execute("get_session_state", {"key": "k"}, session_id="s", timeout=0.05))
        assert type(late) is DeadlineExceeded


async def test_an_authority_that_does_not_answer(short_path: Path) -> None:
    """The call itself ends half a second after its request should have."""

    async def ignore(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Settings, and nothing more: a server of HTTP/2 that has stopped.
        writer.write(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        await stopped.wait()
        writer.close()

    stopped = asyncio.Event()
    path = short_path / "s"
    server = await asyncio.start_unix_server(ignore, path)
    try:
        async with Client(f"unix:{path}") as client:
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded, match="did not answer in time; the request may have run"):
                await client.execute("any", timeout=0.05)
            assert time.monotonic() - started >= 0.5
            with pytest.raises(DeadlineExceeded, match="nothing was sent") as caught:
                await client.execute("any", timeout=0)
            assert not caught.value.may_have_run
    finally:
        stopped.set()
        server.close()


class Call:
    """A call with so many seconds left."""

    def __init__(self, left: float | None) -> None:
        self.left = left

    def time_remaining(self) -> float | None:
        """Return them."""
        return self.left


@pytest.mark.parametrize(
    ("header", "left", "seconds"),
    [
        (None, 5.0, 5.0),
        (None, None, None),
        ("2.5", 3.0, 2.5),
        ("2.5", 1.0, 1.0),
        ("2.5", None, 2.5),
        ("-1", 3.0, 0.0),
        ("nan", 3.0, 3.0),
        ("soon", 3.0, 3.0),
        ("inf", 3.0, 3.0),
    ],
)
def test_the_time_of_a_call(header: str | None, left: float | None, seconds: float | None) -> None:
    """It is the header's, but no more than the call's; a header that is no number counts for nothing."""
    headers = {} if header is None else {TIMEOUT_HEADER: header}
    assert time_of(headers, Call(left)) == seconds  # type: ignore[arg-type]


async def test_a_timeout_of_something_else_passes() -> None:
    """A `TimeoutError` from within is not taken for the call's."""
    with pytest.raises(TimeoutError, match="of the backend"):
        async with in_time({TIMEOUT_HEADER: "60"}, Call(60.0)):  # type: ignore[arg-type]
            raise TimeoutError("of the backend")


async def test_requests_need_not_create_sessions(short_path: Path) -> None:
    """With `create_session=False`, or by the setting, a session that is not live is refused and not created."""
    server = SessionStore(create_on_request=False)
    for directory, store in (("a", SessionStore()), ("b", server)):
        (short_path / directory).mkdir(mode=0o700)
        async with authority(short_path / directory, sessions=store) as served, Client(served.address) as client:
            options: dict[str, Any] = (
                {"session_id": "s"} if store is server else {"session_id": "s", "create_session": False}
            )
            with pytest.raises(SessionNotFound, match="'s' not found") as caught:
                await client.execute("list_session_state", **options)
            assert (caught.value.session_id, caught.value.may_have_run) == ("s", False)
            with pytest.raises(SessionNotFound):
                _ = [chunk async for chunk in client.stream("list_session_state", **options)]
            assert (await store.stats()).created == 0
            await client.create_session("s")
            assert await client.execute("list_session_state", **options) == {}
