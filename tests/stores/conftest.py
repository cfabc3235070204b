"""Servers and stores for the tests of what befalls them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from snakepit_otel.sessions import Limits, SessionStore
from snakepit_otel.sessions.backends.redis import RedisBackend, RedisOptions
from tests.stores.proxy import Proxy
from tests.stores.servers import StoreServer, running

_namespaces = itertools.count()


def backend_at(url: str, namespace: str | None = None, *, limits: Limits | None = None, **options: Any) -> RedisBackend:
    """Return a backend over a store of its own, unless a namespace is given."""
    namespace = namespace or f"test-{next(_namespaces)}"
    return RedisBackend(limits or Limits(), RedisOptions(url, namespace, **options))


def store_at(url: str, namespace: str | None = None, *, quota: float = 10_000, **options: Any) -> SessionStore:
    """Return a store over `backend_at`, with a quota."""
    return SessionStore(
        backend=backend_at(url, namespace, limits=Limits(max_sessions=quota), **options), max_sessions=quota
    )


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """A Valkey that no test stops."""
    server = StoreServer(tmp_path_factory.mktemp("valkey"))
    with running(server):
        yield server


@pytest.fixture
def server(tmp_path: Any) -> Iterator[StoreServer]:
    """A Valkey of the test's own, with an append-only file, which it may stop and kill."""
    server = StoreServer(tmp_path / "server", "--appendonly", "yes")
    with running(server):
        yield server


@pytest.fixture
async def proxy(shared_server: StoreServer) -> AsyncIterator[Proxy]:
    """A proxy before the shared server."""
    proxy = Proxy(shared_server.port)
    await proxy.start()
    yield proxy
    await proxy.stop()
