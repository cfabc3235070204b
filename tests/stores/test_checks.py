"""Checks of a server at the start: one that would lose sessions is refused, and the message says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from snakepit_otel.errors import ConfigurationError, SessionStoreUnavailable
from snakepit_otel.sessions.backends.redis._checks import ServerInfo, findings_of
from tests.stores.conftest import backend_at
from tests.stores.servers import StoreServer, free_port, running


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
async def test_a_server_that_evicts_is_refused(tmp_path: Path, policy: str) -> None:
    """It would evict sessions that nobody has ended."""
    server = StoreServer(tmp_path, "--maxmemory", "100mb", "--maxmemory-policy", policy)
    with running(server), pytest.raises(ConfigurationError, match=f"maxmemory-policy is {policy}"):
        await backend_at(server.url).open()


async def test_a_replica_is_refused(tmp_path: Path) -> None:
    """It takes no writes."""
    master = StoreServer(tmp_path / "master")
    replica = StoreServer(tmp_path / "replica", "--replicaof", "127.0.0.1", str(master.port))
    with running(master, replica), pytest.raises(ConfigurationError, match="it is a replica"):
        await backend_at(replica.url).open()


@pytest.mark.parametrize(
    ("durability", "reason"), [("fsync", "no append-only file"), ("replica", "no replica of it is online")]
)
async def test_a_server_without_what_durability_needs_is_refused(
    shared_server: StoreServer, durability: str, reason: str
) -> None:
    """A file for fsync, a replica for replica."""
    with pytest.raises(ConfigurationError, match=reason):
        await backend_at(shared_server.url, durability=durability).open()


async def test_a_user_who_may_not_look_is_warned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where INFO is forbidden, the start goes on, and the log says what was not checked."""
    server = StoreServer(tmp_path)
    with running(server):
        server.client().execute_command(
            "ACL SETUSER",
            *("app", "on", ">a-password", "resetkeys", "~{ns:*", "nocommands", "+@all", "-info", "-@admin"),
        )
        backend = backend_at(server.url, "ns", username="app", password="a-password")
        await backend.open()
        await backend.close()
    assert "may not use INFO" in caplog.text
    assert "a-password" not in caplog.text


async def test_a_wrong_password_names_the_settings(tmp_path: Path) -> None:
    """And not the password."""
    server = StoreServer(tmp_path, "--requirepass", "right-password")
    with running(server):
        for options in ({}, {"password": "wrong-password"}):
            with pytest.raises(
                ConfigurationError, match=r"session_store.username, session_store.password_file"
            ) as caught:
                await backend_at(server.url, **options).open()
            assert "wrong-password" not in str(caught.value)


async def test_no_server_is_a_clear_error() -> None:
    """Nobody listens there."""
    with pytest.raises(SessionStoreUnavailable, match=r"127.0.0.1:\d+: cannot be reached: ConnectionError"):
        await backend_at(f"redis://127.0.0.1:{free_port()}").open()


def test_an_old_server_is_refused() -> None:
    """Below 7.0 scripts behave otherwise; Valkey's own version does not matter."""
    old = {"redis_version": "6.2.14", "role": "master", "aof_enabled": "1"}
    (finding,) = findings_of(ServerInfo(old), "memory")
    assert finding.is_refusal
    assert "6.2.14; 7.0 or later" in finding.text
    assert not findings_of(ServerInfo(old | {"redis_version": "7.2.4", "valkey_version": "9.1.2"}), "memory")
