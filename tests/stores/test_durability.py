"""Survival of acknowledged writes, by `durability`."""

from __future__ import annotations

from pathlib import Path

import pytest

from snakepit_otel.errors import SessionStoreUnavailable
from tests.stores.conftest import store_at
from tests.stores.load import Load
from tests.stores.servers import AT_ONCE, StoreServer, running, wait_until


@pytest.mark.matrix
async def test_what_a_replica_has_confirmed_survives_its_master(tmp_path: Path) -> None:
    """The replica is cut off for a while, then promoted: nothing that was acknowledged is lost."""
    master = StoreServer(tmp_path / "master", *AT_ONCE)
    replica = StoreServer(tmp_path / "replica", "--replicaof", "127.0.0.1", str(master.port))
    with running(master, replica):
        wait_until(lambda: replica.client().info("replication")["master_link_status"] == "up")
        safe = store_at(master.url, "safe", durability="replica", timeout=0.5)
        fast = store_at(master.url, "fast")
        for store in (safe, fast):
            await store.start()
        careful, careless = Load(safe), Load(fast)
        for load in (careful, careless):
            await load.start()
            await load.successes(100)
        replica.pause()
        await careless.successes(500)
        for load in (careful, careless):
            await load.stop()
        assert careful.failures
        assert any("may be lost" in message for message in careful.messages)
        assert safe._backend.client.not_durable >= careful.failures
        for store in (safe, fast):
            await store.stop()
        master.kill()
        replica.resume()
        replica.client().replicaof("NO", "ONE")
        lost = {}
        for name, load in (("safe", careful), ("fast", careless)):
            store = store_at(replica.url, name)
            await store.start()
            load._store = store
            values = await load.values()
            lost[name] = sum(max(0, done - value) for value, done in zip(values, load.acknowledged, strict=True))
            await store.stop()
        print(f"acknowledged writes lost: replica {lost['safe']}, memory {lost['fast']}")
        assert lost["safe"] == 0


@pytest.mark.parametrize("program", ["valkey-server", "redis-server"])
async def test_a_server_with_its_file_has_all_that_was_acknowledged(tmp_path: Path, program: str) -> None:
    """Killed under load and started again, at `fsync`: the counters are what was acknowledged, or one more."""
    server = StoreServer(tmp_path / "server", "--appendonly", "yes", program=program)
    with running(server):
        store = store_at(server.url, durability="fsync", timeout=2.0)
        await store.start()
        load = Load(store, tasks=4)
        await load.start()
        await load.successes(40)
        server.kill()
        server.start()
        await load.successes(40)
        await load.stop()
        values = await load.values()
        for value, done, begun in zip(values, load.acknowledged, load.begun, strict=True):
            assert done <= value <= begun
        await store.stop()


async def test_a_write_that_no_replica_confirms_is_an_error(tmp_path: Path) -> None:
    """It was done, and the error says so: that it may be lost."""
    master = StoreServer(tmp_path / "master", *AT_ONCE)
    replica = StoreServer(tmp_path / "replica", "--replicaof", "127.0.0.1", str(master.port))
    with running(master, replica):
        wait_until(lambda: replica.client().info("replication")["master_link_status"] == "up")
        store = store_at(master.url, durability="replica", timeout=0.4)
        await store.start()
        await store.create("a")
        replica.pause()
        with pytest.raises(SessionStoreUnavailable, match="no replica or disk has confirmed") as caught:
            await store.set_state("a", "n", 1)
        assert caught.value.may_have_run
        replica.resume()
        assert await store.get_state("a", "n") == 1
        await store.stop()
