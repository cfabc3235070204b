"""Choice, opening and closing of session backends."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from pathlib import Path

import pytest

from snakepit_otel import Snakepit
from snakepit_otel.bridge.authority.admin_service import AdminService
from snakepit_otel.errors import AdapterNotLoaded, ConfigurationError
from snakepit_otel.sessions import Limits, MemoryBackend, SessionBackend, SessionStore
from snakepit_otel.settings._loading import load
from snakepit_otel.testing import FakeClock
from tests.sessions.remote_backend import RemoteBackend

REMOTE = "tests.sessions.remote_backend:RemoteBackend"


def test_the_default_is_memory() -> None:
    """Without a choice, sessions are kept in memory, with the limits of the settings."""
    backend = SessionStore(max_sessions=5)._backend
    assert isinstance(backend, MemoryBackend)
    assert backend.limits.max_sessions == 5


def test_settings_name_a_backend_and_its_options() -> None:
    """The class is called with the limits and the options."""
    backend = SessionStore(max_sessions=5, backend=REMOTE, backend_options={"url": "x:1"})._backend
    assert isinstance(backend, RemoteBackend)
    assert (backend.limits.max_sessions, backend.url) == (5, "x:1")


@pytest.mark.parametrize("given", ["instance", "class", "partial"])
def test_a_program_passes_a_backend(given: str) -> None:
    """An instance is taken as it is; a class or function is called with the limits."""
    instance = RemoteBackend(Limits(max_sessions=5))
    backends = {"instance": instance, "class": RemoteBackend, "partial": partial(RemoteBackend, url="x:1")}
    backend = SessionStore(max_sessions=5, backend=backends[given])._backend
    assert isinstance(backend, RemoteBackend)
    assert backend.limits.max_sessions == 5
    assert (backend == instance) == (given == "instance")
    assert backend.url == ("x:1" if given == "partial" else "")


def test_sources_of_settings_choose_a_backend(tmp_path: Path) -> None:
    """A file names it, and variables add options, which `config show` masks."""
    file = tmp_path / "snakepit.toml"
    file.write_text(f'[session_store]\nbackend = "{REMOTE}"\nbackend_options = {{ url = "x:1" }}\n')
    settings = load(file, environ={"SNAKEPIT_OTEL_SESSION_STORE__MAX_SESSIONS": "5"}).settings.session_store
    backend = SessionStore(settings)._backend
    assert isinstance(backend, RemoteBackend)
    assert (backend.limits.max_sessions, backend.url) == (5, "x:1")
    options = '{"url": "x:2"}'
    settings = load(file, environ={"SNAKEPIT_OTEL_SESSION_STORE__BACKEND_OPTIONS": options}).settings.session_store
    assert settings.backend_options == {"url": "x:2"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "redis"}, 'session_store.backend: .*must be "memory" or "package.module:Class"'),
        ({"backend_options": {"url": "x"}}, "session_store.backend_options: are for another backend"),
        ({"backend": "no.such:Thing"}, r"session_store.backend: 'no.such:Thing' cannot be imported: ModuleNotFoundErr"),
        ({"backend": "tests:Nothing"}, r"session_store.backend: 'tests:Nothing' cannot be imported: AttributeError"),
        ({"backend": REMOTE, "backend_options": {"port": 1}}, "session_store.backend_options: .*TypeError: .*'port'"),
        ({"backend": "builtins:repr"}, r"session_store.backend: .*is no session backend; it has no 'assign_wo"),
    ],
)
def test_a_backend_that_cannot_be_is_a_clear_error(settings: dict[str, object], message: str) -> None:
    """The error names the setting and the reason."""
    with pytest.raises(ConfigurationError, match=message):
        Snakepit("tests.adapters_for_tests:Useful", session_store=settings)


async def test_a_backend_is_opened_at_the_start_and_closed_at_the_stop() -> None:
    """Once each, and again with the next start; sessions stay in between."""
    backend = RemoteBackend(Limits())
    store = SessionStore(backend=backend)
    for _ in range(2):
        await store.start()
        await store.start()
        await store.create("a")
        await store.stop()
        await store.stop()
    assert backend.calls == ["open", "close"] * 2
    assert store.stats_snapshot().created == 1


async def test_a_backend_that_cannot_be_opened_is_closed() -> None:
    """The start fails, with the reason."""
    backend = RemoteBackend(Limits(), error="connection refused")
    store = SessionStore(backend=backend)
    with pytest.raises(
        ConfigurationError, match=r"session_store.backend: RemoteBackend cannot be opened: OSError: conn"
    ):
        await store.start()
    assert backend.calls == ["open", "close"]


async def test_a_start_that_fails_later_closes_the_backend() -> None:
    """Whatever fails after it has been opened: here, no worker becomes ready."""
    backend = RemoteBackend(Limits())
    pit = Snakepit("tests.no_such_module:Adapter", workers=1, session_backend=backend)
    with pytest.raises(AdapterNotLoaded):
        await pit.start()
    assert backend.calls == ["open", "close"]


async def test_a_snakepit_works_over_a_remote_backend() -> None:
    """Requests create and use sessions of the backend that the program passed."""
    backend = RemoteBackend(Limits())
    async with Snakepit("tests.adapters_for_tests:Useful", workers=1, session_backend=backend) as pit:
        await pit.execute("echo", {"value": 1}, session_id="a")
        assert (await backend.get("a", touch=False)).last_worker_id
    assert backend.calls == ["open", "close"]


async def test_two_authorities_share_a_server() -> None:
    """A session of one is the other's, the ledger is that of both, and a lease finds out that a session is gone."""
    server, lost = MemoryBackend(), []
    async with (
        SessionStore(backend=RemoteBackend(Limits(), server=server)) as one,
        SessionStore(backend=RemoteBackend(Limits(), server=server)) as other,
        one.lease(lost.append) as lease,
    ):
        await lease.create("a")
        assert (await other.get("a")).id == "a"
        await other.update("a", lambda state: state | {"n": 1})
        assert await one.get_state("a", "n") == 1
        assert await other.delete("a")
        await lease.touch()
        assert (lost, len(lease)) == (["a"], 0)
        assert await one.stats() == await other.stats() == server.last_stats


async def test_concurrent_updates_over_a_remote_backend_lose_nothing() -> None:
    """An update that was overtaken is made again."""
    async with SessionStore(backend=RemoteBackend) as store:
        await store.create("a")
        await asyncio.gather(*(store.update("a", lambda state: {"n": state.get("n", 0) + 1}) for _ in range(20)))
        assert await store.get_state("a", "n") == 20


async def test_the_snapshot_of_the_ledger_is_read_from_any_thread() -> None:
    """It is what the last reply had, without a call."""
    read: list[int] = []
    async with SessionStore(backend=RemoteBackend) as store:
        await store.create("a")
        thread = threading.Thread(target=lambda: read.append(store.stats_snapshot().live))
        thread.start()
        thread.join()
    assert read == [1]


@pytest.mark.parametrize("make", [MemoryBackend, RemoteBackend])
async def test_times_of_a_session_are_wall_clock(make: type[SessionBackend]) -> None:
    """They mean the same in every process, and the admin service shows idle time by them."""
    clock = FakeClock(time=1_700_000_000.0)
    async with SessionStore(backend=partial(make, clock=clock), clock=clock) as store:
        await store.create("a", ttl=60)
        clock.advance(10)
        await store.get("a")
        clock.advance(5)
        session = await store.get("a", touch=False)
        assert (session.created_at, session.last_accessed) == (1_700_000_000.0, 1_700_000_010.0)
        info = AdminService(store)._info(session)
        assert (info.idle_seconds, info.expires_in_seconds) == (5.0, 55.0)


async def test_workers_of_another_authority_are_not_taken_for_ones_own() -> None:
    """Both have a `default-1`; each knows its own by the hint, and the other's is nobody's."""
    server = MemoryBackend()
    async with (
        SessionStore(backend=RemoteBackend(Limits(), server=server)) as one,
        SessionStore(backend=RemoteBackend(Limits(), server=server)) as other,
    ):
        await one.create("a")
        await one.assign_worker("a", "default-1")
        await one._hints.wait()
        assert one.worker_of(await one.get("a")) == "default-1"
        assert other.worker_of(await other.get("a")) not in (None, "default-1")
        await other.assign_worker("a", "")
        await other._hints.wait()
        assert one.worker_of(await one.get("a")) == ""


async def test_a_request_at_the_same_worker_assigns_it_no_more() -> None:
    """One operation of the backend is all that such a request takes besides what its tool asks for."""
    backend, calls = RemoteBackend(Limits()), []
    call = backend._call

    async def counted(method: str, *args: object, **kwargs: object) -> object:
        if method != "stats":  # for metrics, once at the start and with each export
            calls.append(method)
        return await call(method, *args, **kwargs)

    backend._call = counted  # type: ignore[method-assign]
    async with Snakepit("tests.adapters_for_tests:Useful", workers=1, session_backend=backend) as pit:
        for _ in range(3):
            await pit.execute("echo", {"value": 1}, session_id="a")
            await pit.sessions._hints.wait()
    assert calls[:4] == ["create", "assign_worker", "create", "create"]
