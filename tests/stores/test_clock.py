"""Clocks of servers that are set back or ahead: no expired session comes back, and none ends too early for it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit_otel.errors import SessionNotFound
from tests.stores.conftest import store_at
from tests.stores.servers import AT_ONCE, StoreServer, running

_SHARED_MEMORY = Path("/dev/shm")


def _faketime() -> str:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        reason = "libfaketime is not installed: scripts/install-redis"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return str(found[0])


def _server(directory: Path, offset: Path) -> StoreServer:
    environment = {
        "LD_PRELOAD": _faketime(),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    return StoreServer(directory, "--appendonly", "yes", environment=environment)


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    """Remove what the library leaves in shared memory where its process is killed."""
    before = set(_SHARED_MEMORY.glob("*faketime_*"))
    yield
    for left in set(_SHARED_MEMORY.glob("*faketime_*")) - before:
        left.unlink(missing_ok=True)


async def _set_clock(server: StoreServer, file: Path, offset: int) -> None:
    """Set the server's clock, and wait until it is seen to be."""
    file.write_text(f"{offset:+}")
    async with asyncio.timeout(30):
        while abs(server.client().time()[0] - time.time() - offset) > 60:
            await asyncio.sleep(0.01)


async def test_a_clock_that_is_set_back_revives_nothing(tmp_path: Path) -> None:
    """Ten minutes ahead a session expires; ten minutes back it stays so, and the skew is seen."""
    offset = tmp_path / "offset"
    offset.write_text("+0")
    server = _server(tmp_path / "server", offset)
    with running(server):
        store = store_at(server.url)
        await store.start()
        await store.create("short", ttl=60)
        await store.create("long", ttl=3_600)
        await _set_clock(server, offset, 600)
        with pytest.raises(SessionNotFound):
            await store.get("short")
        assert (await store.get("long")).id == "long"
        await _set_clock(server, offset, -600)
        with pytest.raises(SessionNotFound):
            await store.get("short")
        session = await store.get("long")
        assert session.idle < 5
        assert await store.sweep() == 1
        stats = await store.stats()
        assert (stats.created, stats.pruned_ttl, stats.live) == (2, 1, 1)
        skew = store._backend.client.clock_skew
        assert skew is not None
        assert 1_100 < skew < 1_300
        await store.stop()


@pytest.mark.matrix
async def test_a_replica_whose_clock_is_behind_revives_nothing(tmp_path: Path) -> None:
    """It takes over with the time that the store has reached."""
    offset = tmp_path / "offset"
    offset.write_text("-600")
    master = StoreServer(tmp_path / "master", *AT_ONCE)
    replica = _server(tmp_path / "replica", offset)
    replica.settings = (*replica.settings, "--replicaof", "127.0.0.1", str(master.port))
    with running(master, replica):
        store = store_at(master.url, "clock")
        await store.start()
        await store.create("short", ttl=0.2)
        await store.create("long", ttl=3_600)
        async with asyncio.timeout(60):
            while await store.exists("short"):
                await asyncio.sleep(0.01)
            await store.sweep()
            # Before that a master counts a replica that has nothing yet.
            while replica.client().info("replication")["master_link_status"] != "up":
                await asyncio.sleep(0.01)
            while master.client().execute_command("WAIT", 1, 100) < 1:
                pass
        await store.stop()
        master.kill()
        replica.client().replicaof("NO", "ONE")
        after = store_at(replica.url, "clock")
        await after.start()
        with pytest.raises(SessionNotFound):
            await after.get("short")
        assert (await after.get("long")).idle < 60
        await after.stop()
