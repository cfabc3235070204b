"""URLs of session stores, and the settings that belong to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from snakepit_otel.common.validation import build
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.sessions import MemoryBackend, SessionSettings, SessionStore
from snakepit_otel.sessions.backends.redis import RedisBackend
from snakepit_otel.sessions.backends.redis._address import Address, Kind, parse_url
from snakepit_otel.sessions.backends.sqlite import SqliteBackend


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", Address(Kind.SINGLE, False, (("cache", 6379),), "", 0, None, None)),
        ("rediss://u:p%40ss@cache:7000/3", Address(Kind.SINGLE, True, (("cache", 7000),), "", 3, "u", "p@ss")),
        ("redis://:p@[::1]:1", Address(Kind.SINGLE, False, (("::1", 1),), "", 0, None, "p")),
        (
            "redis+sentinel://a,b:1/main/2",
            Address(Kind.SENTINEL, False, (("a", 26379), ("b", 1)), "main", 2, None, None),
        ),
        ("rediss+cluster://a:1,b:2", Address(Kind.CLUSTER, True, (("a", 1), ("b", 2)), "", 0, None, None)),
    ],
)
def test_a_url_is_an_address(url: str, address: Address) -> None:
    """Scheme, servers, database and credentials; the text that people see has no secrets."""
    assert parse_url(url) == address
    assert "p@ss" not in str(address)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "mysql://u:very-secret@h/"}, r"url: the URL begins with none of sqlite:///, redis://"),
        ({"url": "sqlite://x.db"}, "url: the URL of a SQLite file is sqlite:///FILE"),
        ({"url": "sqlite:///"}, "url: the URL of a SQLite file is sqlite:///FILE"),
        ({"url": "redis://u:very-secret@h:70000"}, "url: the URL has a port that is no number"),
        ({"url": "redis://u:very-secret@"}, "url: the URL names no host"),
        ({"url": "redis://h?db=1"}, "url: the URL has a query"),
        ({"url": "redis://h/x"}, "url: the URL has a path that is no number of a database"),
        ({"url": "redis://a,b"}, "url: the URL names several hosts"),
        ({"url": "redis+sentinel://h"}, "url: the URL names no master"),
        ({"url": "redis+cluster://h/1"}, "url: the URL names a database; a cluster has only number 0"),
        ({"namespace": "x"}, "namespace: is for a store with a url"),
        ({"url": "redis://h", "namespace": "a b"}, "namespace: string should match"),
        ({"url": "sqlite:///x", "connections": 3}, "connections: is for a Redis or Valkey"),
        ({"url": "sqlite:///x", "durability": "replica"}, 'durability: is "replica", which a SQLite file has not'),
        ({"url": "redis://h", "durability": "disk"}, "durability: input should be 'memory', 'fsync' or 'replica'"),
        ({"url": "redis://h", "backend": "a:B"}, "url: is for the stores of this package"),
        ({"url": "redis://h", "ca": "ca.pem"}, "ca: is for TLS"),
        ({"url": "rediss://h", "key": "key.pem"}, "certificate: and session_store.key belong together"),
        ({"url": "redis://:very-secret@h", "password_file": "x"}, "password_file: is given, and the url has"),
        ({"url": "redis://u@h", "username": "x"}, "username: is given, and the url has"),
        ({"url": "redis://h", "timeout": 5}, "timeout: input should be greater than or equal to 10"),
        ({"url": "redis://h", "shards": 0}, "shards: input should be greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_be_are_clear_errors(settings: dict[str, object], message: str) -> None:
    """The message names the setting and the reason, and shows no password."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        build(SessionSettings, settings)
    assert "very-secret" not in str(caught.value)


def test_the_url_chooses_the_backend(tmp_path: Path) -> None:
    """None is memory; none of them connects before the start."""
    assert isinstance(SessionStore()._backend, MemoryBackend)
    file = tmp_path / "sessions.db"
    sqlite = SessionStore(url=f"sqlite:///{file}", timeout=500)._backend
    assert isinstance(sqlite, SqliteBackend)
    assert (sqlite.path, file.exists()) == (file, False)
    redis = SessionStore(url="redis://cache:1", namespace="ours", max_sessions=7)._backend
    assert isinstance(redis, RedisBackend)
    assert redis.limits.max_sessions == 7
