"""Servers whose sessions are kept elsewhere: shared by two, and while the store is away."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from snakepit_otel import Client, Snakepit
from snakepit_otel.errors import SessionNotFound, SessionStoreUnavailable
from snakepit_otel.sessions import Limits, Stats
from tests.processes import program, run
from tests.sessions.failing_backend import ALL, FailingBackend
from tests.stores.servers import StoreServer, running
from tests.waiting import until

USEFUL = "tests.adapters_for_tests:Useful"


def is_balanced(stats: Stats) -> bool:
    """Return whether the ledger's equation holds."""
    return stats.created - stats.deleted - stats.pruned_ttl - stats.pruned_overflow == stats.live


async def take_turns(url: str) -> None:
    """Hold two servers over one store to what is promised of them."""
    settings = {"url": url, "strict_mode": False}
    async with Snakepit(USEFUL, workers=1, session_store=settings) as first:
        async with Snakepit(USEFUL, workers=1, session_store=settings) as second:
            totals = [await pit.execute("add", {"amount": 2}, session_id="alice") for pit in (first, second) * 2]
            assert totals == [2, 4, 6, 8]
            assert first.sessions.name == second.sessions.name
            async with Client(first.socket) as client:
                await client.create_session("bound", bound=True)
                await second.sessions.delete("bound")
                await second.execute("add", {"amount": 1}, session_id="bound")
            # The end of the connection ends its own session, and not the later one of the other server.
            await until(lambda: not first.sessions._bindings._active and not first.sessions._bindings._deletions)
            assert await second.execute("add", {"amount": 1}, session_id="bound") == 2
        assert await first.execute("add", {"amount": 1}, session_id="alice") == 9
        stats = await first.sessions.stats()
        assert (stats.created, stats.deleted, stats.live) == (3, 1, 2)
        assert is_balanced(stats)
    async with Snakepit(USEFUL, workers=1, session_store=settings) as third:
        assert await third.execute("add", {"amount": 1}, session_id="alice") == 10


async def test_two_servers_share_a_file(tmp_path: Path) -> None:
    """A session goes on at the other server, and after both; a lease ends its own session only."""
    tmp_path.chmod(0o700)
    await take_turns(f"sqlite:///{tmp_path / 'sessions.db'}")


async def test_two_servers_share_a_valkey(tmp_path: Path) -> None:
    """The same holds over a Valkey."""
    server = StoreServer(tmp_path)
    with running(server):
        await take_turns(server.url)


async def test_a_server_that_is_killed_takes_no_session_along(short_path: Path) -> None:
    """After a `kill -9` the other has all sessions; `serve` prints what survives, and commands show the same."""
    short_path.chmod(0o700)
    store = str(short_path / "sessions.db")

    def serving(name: str) -> Any:
        socket = str(short_path / name)
        return program("-m", "snakepit_otel", "serve", USEFUL, "--workers", "1", "--socket", socket, "--store", store)

    def at(name: str) -> dict[str, str]:
        return {"SNAKEPIT_OTEL_ADDRESS": f"unix:{short_path / name}"}

    async with serving("a.sock") as first, serving("b.sock") as second:
        await asyncio.gather(*(one.says("they survive the end of this process") for one in (first, second)))
        call = ("call", "add", "amount=2", "--session", "alice")
        assert (await run(*call, environ=at("a.sock")))[1] == "2\n"
        os.kill(first.process.pid, signal.SIGKILL)
        await first.ends()
        assert (await run(*call, environ=at("b.sock")))[1] == "4\n"
        assert "alice" in (await run("sessions", "list", environ=at("b.sock")))[1]


async def test_requests_while_the_store_is_away() -> None:
    """Those with a session fail as ones that did not run, here and at a client; others are served, and it stops."""
    backend = FailingBackend(Limits())
    async with Snakepit(USEFUL, workers=1, session_backend=backend) as pit, Client(pit.socket) as client:
        await client.execute("add", {"amount": 1}, session_id="alice")
        backend.failing |= ALL
        for caller in (pit, client):
            with pytest.raises(SessionStoreUnavailable, match="the store is away") as error:
                await caller.execute("add", {"amount": 1}, session_id="alice")
            assert (error.value.may_have_run, error.value.retryable) == (False, True)
            assert await caller.execute("echo", {"value": 7}) == 7
        for call in (client.create_session("bob"), client.delete_session("alice"), client.list_sessions()):
            with pytest.raises(SessionStoreUnavailable):
                await call
        status = await pit.status()
        assert (status.sessions.store_is_away, status.sessions.live) == (True, 1)
        backend.failing.clear()
        assert await client.execute("add", {"amount": 1}, session_id="alice") == 2
        assert not (await pit.status()).sessions.store_is_away
        backend.failing |= {"read", "write"}
        for caller in (pit, client):
            with pytest.raises(SessionStoreUnavailable) as error:
                await caller.execute("add", {"amount": 1}, session_id="alice")
            assert error.value.may_have_run
        backend.failing |= ALL


async def test_a_session_that_must_exist_is_not_missing_while_the_store_is_away() -> None:
    """A client that creates none is told apart: the store is away, or there is no such session."""
    backend = FailingBackend(Limits())
    pit = Snakepit(USEFUL, workers=1, session_backend=backend, session_store={"create_on_request": False})
    async with pit:
        with pytest.raises(SessionNotFound):
            await pit.execute("echo", {"value": 1}, session_id="alice")
        backend.failing |= ALL
        with pytest.raises(SessionStoreUnavailable):
            await pit.execute("echo", {"value": 1}, session_id="alice")
