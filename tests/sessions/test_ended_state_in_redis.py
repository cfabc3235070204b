"""State that sessions leave in Redis at their end: sweeps remove it, some keys at a time."""

from __future__ import annotations

from pathlib import Path

from snakepit_otel.sessions import SessionStore
from snakepit_otel.sessions.backends.redis import RedisBackend, RedisOptions
from tests.stores.servers import StoreServer, running


async def test_many_keys_of_an_ended_session_are_removed_by_sweeps(tmp_path: Path) -> None:
    """They hold the server for no longer than a batch does, and are counted no more from the end on."""
    server = StoreServer(tmp_path)
    with running(server):
        options = RedisOptions(server.url, namespace="test", timeout=20)
        async with SessionStore(backend=lambda limits: RedisBackend(limits, options)) as store:
            await store.create("a")
            await store.write("a", {f"key-{number}": b"1" for number in range(1_200)})
            await store.delete("a")
            client = server.client()
            assert (client.hlen("{test:0}:state"), store.stats_snapshot().memory_bytes) == (1_200, 0)
            await store.sweep()
            assert not client.exists("{test:0}:state", "{test:0}:keyset", "{test:0}:gone")
