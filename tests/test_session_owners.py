"""Owners of sessions over every path: quota, groups, deletion, and creators that clients name."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from snakepit_otel import Client, Snakepit
from snakepit_otel.errors import ConfigurationError, InvalidSession, OwnerQuotaExceeded
from tests.processes import run

LIMITS = {"max_sessions_per_owner": 2, "strict_mode": False}


@pytest.fixture
async def pit() -> AsyncIterator[Snakepit]:
    """A server whose owners may have two sessions each."""
    async with Snakepit("tests.adapters_for_tests:Useful", workers=1, session_store=LIMITS) as pit:
        yield pit


async def ask(client: Client, session_id: str, owner: str | None = None) -> None:
    """Call a tool for a session."""
    await client.execute("echo", {"value": 1}, session_id=session_id, owner=owner)


ASK = f"tests/test_session_owners.py:{inspect.getsourcelines(ask)[1] + 2} in ask"


async def test_the_quota_of_an_owner_holds_on_every_path(pit: Snakepit) -> None:
    """Requests here and from a client, creates, and sessions bound to a connection are refused alike, and counted."""
    await pit.execute("echo", {"value": 1}, session_id="a", owner="web")
    async with Client(pit.socket) as client:
        await ask(client, "b", "web")
        refused = [
            lambda: pit.execute("echo", {"value": 1}, session_id="c", owner="web"),
            lambda: pit.sessions.create("c", owner="web"),
            lambda: ask(client, "c", "web"),
            lambda: client.create_session("c", owner="web"),
            lambda: client.create_session("c", owner="web", bound=True),
        ]
        for call in refused:
            with pytest.raises(OwnerQuotaExceeded, match="2 sessions of owner 'web' are live") as error:
                await call()
            assert (error.value.limit, error.value.owner) == (2, "web")
        await ask(client, "a", "web")  # a live one needs no quota
        await ask(client, "c", "jobs")
        await ask(client, "d")
        stats = await client.stats()
        assert (stats.rejected, stats.rejected_per_owner, stats.live) == (5, 5, 4)
        await client.delete_session("a")
        await ask(client, "e", "web")


async def test_owners_are_grouped_and_deleted(pit: Snakepit) -> None:
    """A client has totals by owner and by tool, lists one owner's sessions, and deletes them."""
    async with Client(pit.socket) as client:
        for session_id, owner in {"a": "web", "b": "web", "c": "jobs", "d": None}.items():
            await ask(client, session_id, owner)
        await pit.sessions.create("e")
        groups, total = await client.group_sessions("owner", limit=2)
        assert [(group.name, group.count) for group in groups] == [(None, 2), ("web", 2)]
        assert total == 3
        assert {group.name: group.count for group in (await client.group_sessions("tool")).groups} == {
            "echo": 4,
            None: 1,
        }
        assert [session.id for session in await client.list_sessions(owner="web")] == ["a", "b"]
        assert await client.delete_sessions(owner="web", dry_run=True) == 2
        assert await client.delete_sessions(owner="web") == 2
        assert await client.delete_sessions(owner="web") == 0
        stats = await client.stats()
        assert (stats.deleted, stats.live) == (2, 3)
        with pytest.raises(ConfigurationError, match="owner, site or tool"):
            await client.group_sessions("colour")
        with pytest.raises(InvalidSession):
            await client.delete_sessions(owner="")


async def test_strict_mode_is_switched_while_running(pit: Snakepit) -> None:
    """From then on call sites of clients are known, and of older sessions the owner; it is off again after a stop."""
    async with Client(pit.socket) as client:
        await ask(client, "old", "web")
        assert await client.set_strict_mode(True)
        assert (await client.status()).strict_mode
        await client.execute("echo", {"value": 1}, session_id="old")  # the answer says that strict mode is on
        await ask(client, "new")
        async for _ in client.stream("count", {"to": 1}, session_id="streamed"):
            pass
        sites = {group.name: group.count for group in (await client.group_sessions("site")).groups}
        assert sites[ASK] == 1
        assert sites[None] == 1
        assert any("in test_strict_mode_is_switched_while_running" in (site or "") for site in sites)
        report = await pit.sessions._backend.suspects()
        assert "made before strict mode was on, tool echo, owner web" in "\n".join(report.lines())
        assert pit.pool.workers[0]._controls.strict_mode
        assert not await client.set_strict_mode(False)
    await pit.set_strict_mode(True)
    await pit.stop()
    assert not pit.sessions.strict_mode


async def test_the_first_request_of_a_client_names_its_line(pit: Snakepit) -> None:
    """A program that makes one request is named, too, where strict mode is on."""
    await pit.set_strict_mode(True)
    async with Client(pit.socket) as client:
        await ask(client, "a")
    assert (await pit.sessions.get("a")).origin.creator.call_site == ASK


async def test_the_command_line(pit: Snakepit, tmp_path: Path) -> None:
    """Totals, one owner's sessions, and their deletion, which is confirmed; strict mode."""
    for session_id in ("a", "b"):
        await pit.sessions.create(session_id, owner="web")
    at = ("--address", pit.socket)
    code, output, _ = await run("sessions", "list", "--by", "owner", *at)
    assert (code, output.split()[:6]) == (0, ["owner", "sessions", "bytes", "oldest", "web", "2"])
    code, output, _ = await run("sessions", "list", "--by", "site", *at)
    assert "made in strict mode" in output
    assert "sessions strict on" in output
    code, output, _ = await run("sessions", "list", "--owner", "web", "--json", *at)
    assert [session["id"] for session in json.loads(output)] == ["a", "b"]
    code, _, errors = await run("sessions", "delete", "--owner", "web", *at)
    assert (code, "2 sessions of owner web would be deleted; confirm with --yes" in errors) == (2, True)
    code, output, _ = await run("sessions", "strict", "on", *at)
    assert (code, pit.sessions.strict_mode) == (0, True)
    code, output, _ = await run("sessions", "delete", "--owner", "web", "--yes", *at)
    assert (code, output) == (0, "deleted 2 sessions of owner web\n")
    assert (await run("sessions", "delete", "--owner", "web", "--yes", *at))[0] == 3
