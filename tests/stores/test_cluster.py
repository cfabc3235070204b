"""A cluster under load: slots move, and masters die."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis.crc import key_slot

from tests.stores.conftest import store_at
from tests.stores.load import Load
from tests.stores.servers import StoreServer, cluster_of, join, running
from tests.waiting import BUSY

GAP_S = 3.0
NAMESPACE = "clustered"
SLOT = key_slot(b"{%b:0}:stat" % NAMESPACE.encode())


def owner_of(servers: list[StoreServer]) -> StoreServer:
    """Return the master that has the slot of the sessions, as a server that lives sees it."""
    for server in servers:
        try:
            slots = server.client().execute_command("CLUSTER", "SLOTS")
        except Exception:
            continue
        for first, last, master, *_ in slots:
            if first <= SLOT <= last:
                return next(one for one in servers if one.port == master[1])
    raise AssertionError("no server has the slot")


@pytest.mark.matrix
async def test_a_master_that_dies_is_replaced_within_three_seconds(tmp_path: Path) -> None:
    """Its replica takes the slots, no acknowledged write is lost, and no restart is needed."""
    servers = cluster_of(tmp_path, 3, 6)
    with running(*servers):
        join(servers)
        url = f"redis+cluster://127.0.0.1:{servers[0].port},127.0.0.1:{servers[1].port}"
        store = store_at(url, NAMESPACE, durability="replica")
        await store.start()
        load = Load(store)
        await load.start()
        await load.successes(200)
        master = owner_of(servers)
        master.kill()
        await load.successes(400)
        await load.stop()
        print(f"cluster: gap {load.gap:.2f} s, {load.failures} calls failed")
        values = await load.values()
        assert all(value >= done for value, done in zip(values, load.acknowledged, strict=True))
        assert load.gap < GAP_S + BUSY
        assert owner_of([one for one in servers if one is not master]) is not master
        await store.stop()


@pytest.mark.matrix
async def test_a_slot_that_moves_fails_no_call(tmp_path: Path) -> None:
    """The slot of all sessions is moved to another master while they are used, and back."""
    servers = cluster_of(tmp_path, 3, 0)
    with running(*servers):
        join(servers)
        store = store_at(f"redis+cluster://127.0.0.1:{servers[0].port}", NAMESPACE)
        await store.start()
        load = Load(store)
        await load.start()
        for _ in range(2):
            await load.successes(100)
            source = owner_of(servers)
            target = next(one for one in servers if one is not source)
            await asyncio.to_thread(_move, servers, source, target)
            assert owner_of(servers) is target
        await load.successes(100)
        await load.stop()
        assert load.failures == 0, load.messages
        assert await load.values() == load.acknowledged
        await store.stop()


def _move(servers: list[StoreServer], source: StoreServer, target: StoreServer) -> None:
    """Move the slot with its keys, as tools for clusters do."""
    to, of = target.client(), source.client()
    ids = [one.execute_command("CLUSTER", "MYID") for one in (of, to)]
    to.execute_command("CLUSTER", "SETSLOT", SLOT, "IMPORTING", ids[0])
    of.execute_command("CLUSTER", "SETSLOT", SLOT, "MIGRATING", ids[1])
    while keys := of.execute_command("CLUSTER", "GETKEYSINSLOT", SLOT, 100):
        of.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)
    for one in (target, source, *servers):
        one.client().execute_command("CLUSTER", "SETSLOT", SLOT, "NODE", ids[1])
