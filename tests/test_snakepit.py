"""The whole thing in one process, its workers aside: attribution, telemetry, clients."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from snakepit_otel import Client, Snakepit
from snakepit_otel.errors import (
    ConfigurationError,
    InvalidArguments,
    InvalidSession,
    SessionNotFound,
    SessionQuotaExceeded,
    ToolError,
    ToolNotFound,
)
from snakepit_otel.testing import Capture
from tests.adapters_for_tests import Useful
from tests.authority_tools import greet, secret
from tests.waiting import PATIENT, until


async def leak(pit: Snakepit, number: int) -> None:
    """Use a session that nobody deletes."""
    await pit.execute("echo", {"value": number}, session_id=f"leaked-{number}")


async def test_strict_mode_names_who_executes(capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """Sessions made by `execute` are laid at the door of its caller, with the tool and a trace."""
    async with Snakepit(Useful, workers=1, session_store={"max_sessions": 5, "strict_mode": True}) as pit:
        for number in range(4):
            await leak(pit, number)
    warning = next(record.getMessage() for record in caplog.records if "accumulate" in record.getMessage())
    assert "4 sessions" in warning
    assert "tests/test_snakepit.py" in warning
    assert "in leak, tool echo, trace " in warning
    (event,) = capture.events("snakepit.bridge.session.accumulation_warning")
    assert "in leak, tool echo" in event.attributes["snakepit.session.creator"]
    traces = {span.trace_id for span in capture.spans("execute request")}
    assert event.attributes["snakepit.session.creator"].rpartition("trace ")[2] in traces


async def test_strict_mode_names_a_client_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    """Sessions made over gRPC name the client's call site and its owner."""
    pit = Snakepit(Useful, workers=1, session_store={"max_sessions": 5, "strict_mode": True})
    async with pit, Client(pit.socket) as client:
        for number in range(4):
            await client.create_session(f"s{number}", owner="batch")
    warning = next(record.getMessage() for record in caplog.records if "accumulate" in record.getMessage())
    assert "in test_strict_mode_names_a_client_elsewhere, owner batch" in warning


async def test_dispatch_tells_worker_and_affinity(capture: Capture) -> None:
    """The span of a dispatch says which worker served it, and what became of the hint."""
    async with Snakepit(Useful, workers=1) as pit:
        for _ in range(2):
            await pit.execute("echo", {"value": 1}, session_id="s")
        worker = pit.pool.workers[0].id
        workers = [point for point in capture.metrics()["snakepit.pool.worker.count"] if point.value]
    first, second = capture.spans("dispatch request")
    assert (first.attributes["snakepit.worker.id"], second.attributes["snakepit.worker.id"]) == (worker, worker)
    assert first.attributes["snakepit.affinity.outcome"] == "none"
    assert second.attributes["snakepit.affinity.outcome"] == "hit"
    assert [(point.value, point.attributes["snakepit.worker.state"]) for point in workers] == [(1, "ready")]


async def test_failed_requests_are_failed_in_telemetry(capture: Capture) -> None:
    """A tool's error type is that of the request's span and metric, although the call over gRPC was fine."""
    async with Snakepit(Useful, workers=1) as pit:
        with pytest.raises(ToolError) as raised:
            await pit.execute("fail", {"message": "no"})
        with pytest.raises(ToolNotFound):
            await pit.execute("made_up_by_a_client", {})
    assert (raised.value.type, raised.value.message) == ("ValueError", "no")
    assert raised.value.context["phase"] == "execute"
    assert "adapters_for_tests.py" in raised.value.traceback
    failed, unknown = capture.spans("execute request")
    assert (failed.ok, failed.attributes["error.type"]) == (False, "ValueError")
    assert unknown.attributes["snakepit.tool.name"] == "_OTHER"
    points = capture.points("snakepit.request.duration")
    assert {(point.attributes["snakepit.tool.name"], point.attributes["error.type"]) for point in points} == {
        ("fail", "ValueError"),
        ("_OTHER", "ToolNotFound"),
    }


async def test_crash_is_an_event_and_a_count(capture: Capture, tmp_path: Path) -> None:
    """A worker that ends unasked is said once, with its name, and counted by reason."""
    async with Snakepit(Useful, workers=1, pool=PATIENT) as pit:
        with pytest.raises(Exception, match="SIGKILL"):
            await pit.execute("die", {"marker": str(tmp_path / "ran")})
        await until(lambda: capture.events("snakepit.worker.crash"))
        await pit.execute("echo", {"value": 1})
    (event,) = capture.events("snakepit.worker.crash")
    assert event.attributes["snakepit.worker.id"] == "default-1.1"
    exits = capture.points("snakepit.worker.exits")
    assert {(point.attributes["snakepit.worker.exit_reason"], point.value) for point in exits} == {
        ("crash", 1),
        ("stop", 1),
    }


async def test_tools_of_the_authority_run_here_for_callers() -> None:
    """Callers may run all of the authority's tools; with a session they know it."""
    async with Snakepit(Useful, workers=1, authority_tools=[greet, secret]) as pit:
        assert await pit.execute("greet", {"name": "you"}) == "hello you"
        assert await pit.execute("secret", session_id="s") == "secret of s"
        assert [chunk async for chunk in pit.stream("greet", {"name": "you"})] == ["hello you"]
        with pytest.raises(InvalidArguments):
            _ = [chunk async for chunk in pit.stream("greet", {"nam": "you"})]


async def test_quota_is_refused_by_name() -> None:
    """A request that would need a session beyond the quota is refused, and a live session's is not."""
    async with Snakepit(Useful, workers=1, session_store={"max_sessions": 1}) as pit:
        await pit.execute("echo", {"value": 1}, session_id="a")
        with pytest.raises(SessionQuotaExceeded):
            await pit.execute("echo", {"value": 1}, session_id="b")
        assert await pit.execute("echo", {"value": 2}, session_id="a") == 2
        async with Client(pit.socket) as client:
            with pytest.raises(SessionQuotaExceeded):
                await client.execute("echo", {"value": 1}, session_id="b")
            with pytest.raises(SessionQuotaExceeded):
                await client.create_session("b")
        assert (await pit.sessions.stats()).rejected == 3


async def test_client_does_all_that_the_authority_offers() -> None:
    """A client creates, uses, lists, shows and deletes sessions, and runs tools of every kind."""
    async with Snakepit(Useful, workers=1) as pit, Client(pit.socket) as client:
        await client.ping()
        await client.create_session("s", ttl=60, metadata={"plan": "free"}, owner="me")
        assert await client.execute("add", {"amount": 2}, session_id="s") == 2
        assert [chunk async for chunk in client.stream("count", {"to": 2})] == [{"number": 1}, {"number": 2}]
        (session,) = await client.list_sessions()
        assert (session.id, session.owner, session.ttl_seconds) == ("s", "me", 60)
        shown = await client.show_session("s")
        assert [(entry.key, entry.json) for entry in shown.state] == [("total", b"2")]
        assert dict(shown.session.metadata) == {"plan": "free"}
        assert await client.heartbeat("s")
        await client.delete_session("s")
        assert not await client.heartbeat("s")
        with pytest.raises(SessionNotFound, match="'s'"):
            await client.show_session("s")
        with pytest.raises(InvalidSession, match="at most"):
            await client.create_session("t", ttl=1e300)
        assert not await client.remove_session("s")
        assert (await client.stats()).deleted == 1


async def test_an_option_that_there_is_not() -> None:
    """A misspelt option of a request is refused as of any function, by authority and client."""
    pit = Snakepit(Useful, workers=1)
    async with pit, Client(pit.socket) as client:
        for caller in (pit, client):
            with pytest.raises(TypeError, match="sesion_id"):
                await caller.execute("echo", {"value": 1}, sesion_id="s")  # type: ignore[call-arg]


async def test_admin_is_not_offered_on_tcp() -> None:
    """What lists and shows sessions is on the private socket alone."""
    async with Snakepit(Useful, workers=1, server={"listen": "127.0.0.1:0"}) as pit:
        assert pit.address is not None
        async with Client(pit.address) as client:
            assert await client.execute("echo", {"value": 1}) == 1
            with pytest.raises(ToolError, match="use the authority's Unix socket"):
                await client.list_sessions()


async def test_socket_in_a_directory_that_is_not_there_yet(short_path: Path) -> None:
    """The directory of the socket is made, for this user alone; both sockets are gone in the end."""
    directory = short_path / "new"
    async with Snakepit(Useful, workers=1, server={"socket": str(directory / "a.sock")}) as pit:
        assert await pit.execute("echo", {"value": 1}) == 1
        assert directory.stat().st_mode & 0o777 == 0o700
    assert list(directory.iterdir()) == []


async def test_no_room_for_the_socket_of_shared_memory(short_path: Path) -> None:
    """Where the file-descriptor server cannot listen, that is said with its path, and nothing is left running."""
    (short_path / "a.sock.memory").mkdir()
    with pytest.raises(ConfigurationError, match=r"no socket for shared memory at .*a\.sock\.memory"):
        async with Snakepit(Useful, workers=1, server={"socket": str(short_path / "a.sock")}):
            raise AssertionError("it must not start")


async def test_two_pits_in_one_process() -> None:
    """Pits do not get in each other's way."""
    async with Snakepit(Useful, workers=1) as one, Snakepit(Useful, workers=1) as two:
        await asyncio.gather(
            one.execute("add", {"amount": 1}, session_id="s"), two.execute("add", {"amount": 5}, session_id="s")
        )
        assert await one.sessions.get_state("s", "total") == 1
        assert await two.sessions.get_state("s", "total") == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": 0}, "pool.size"),
        ({"session_store": {"max_sessions": 0}}, "session_store.max_sessions"),
        ({"session_store": {"defualt_ttl": 1}}, "did you mean 'default_ttl'"),
        ({"pool": {"size": True}}, "not a boolean"),
        ({"server": {"listen": "somewhere"}}, "is no address"),
    ],
)
async def test_bad_settings_are_said(options: dict[str, object], words: str) -> None:
    """A setting that cannot be is named, and nothing is left running."""
    with pytest.raises(ConfigurationError, match=words):
        async with Snakepit(Useful, **options):  # type: ignore[arg-type]
            raise AssertionError("it must not start")


async def test_a_task_that_exits_ends_no_worker() -> None:
    """What calls `sys.exit` beside a tool's own coroutine is the tool's error at most; the worker serves on."""
    async with Snakepit(Useful, workers=1) as pit:
        worker = await pit.execute("pid")
        with pytest.raises(ToolError, match="SystemExit: 3"):
            await pit.execute("exit_in_a_task")
        assert await pit.execute("pid") == worker
