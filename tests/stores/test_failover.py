"""Fail-over by Sentinel, under load."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from snakepit_otel.errors import SessionStoreUnavailable
from tests.stores.conftest import store_at
from tests.stores.load import Load
from tests.stores.servers import StoreServer, free_port, running, wait_until
from tests.waiting import BUSY

GAP_S = 3.0


@dataclass
class Watched:
    """A master and its replicas, and the Sentinels that watch over them."""

    servers: list[StoreServer]
    sentinels: list[StoreServer]

    @property
    def url(self) -> str:
        """The URL of the Sentinels."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/main"

    @property
    def master(self) -> StoreServer:
        """The server that the Sentinels take for the master."""
        host = self.sentinels[0].client().execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
        return next(one for one in self.servers if one.port == int(host[1]))


@contextmanager
def watched(directory: Path) -> Iterator[Watched]:
    """Run three Redis servers, of which two are replicas, and three Sentinels."""
    settings = ("--appendonly", "yes", "--repl-diskless-sync-delay", "0")
    first = StoreServer(directory / "first", *settings, program="redis-server")
    follow = ("--replicaof", "127.0.0.1", str(first.port))
    replicas = [
        StoreServer(directory / name, *settings, *follow, program="redis-server") for name in ("second", "third")
    ]
    with running(first, *replicas):
        sentinels = []
        for number in range(3):
            folder = directory / f"sentinel-{number}"
            folder.mkdir(parents=True)
            (folder / "sentinel.conf").write_text(
                f"sentinel monitor main 127.0.0.1 {first.port} 2\n"
                "sentinel down-after-milliseconds main 600\nsentinel failover-timeout main 3000\n"
            )
            sentinels.append(Sentinel(folder, port=free_port()))
        with running(*sentinels):
            for one in replicas:
                wait_until(lambda one=one: one.client().info("replication")["master_link_status"] == "up")
            for one in sentinels:
                wait_until(lambda one=one: _knows(one))
            yield Watched([first, *replicas], sentinels)


class Sentinel(StoreServer):
    """A Sentinel, whose settings are in its file."""

    def __init__(self, directory: Path, port: int) -> None:
        super().__init__(directory, program="redis-sentinel", port=port)
        self.arguments = (str(directory / "sentinel.conf"),)


def _knows(sentinel: StoreServer) -> bool:
    state = sentinel.client().sentinel_master("main")
    return bool(state["num-slaves"] == 2 and state["num-other-sentinels"] == 2)


@pytest.mark.matrix
@pytest.mark.parametrize("how", ["failover", "killed"])
async def test_a_new_master_serves_within_three_seconds(tmp_path: Path, how: str) -> None:
    """Ordered, or since the master was killed: no restart is needed, and no acknowledged write is lost at `replica`."""
    with watched(tmp_path) as group:
        store = store_at(group.url, durability="replica", timeout=1.0)
        await store.start()
        load = Load(store)
        await load.start()
        await load.successes(200)
        master = group.master
        if how == "failover":
            group.sentinels[0].client().execute_command("SENTINEL", "FAILOVER", "main")
        else:
            master.kill()
        async with asyncio.timeout(60):
            while group.master is master:
                await asyncio.sleep(0.02)
        await load.successes(200)
        await load.stop()
        print(f"fail-over ({how}): gap {load.gap:.2f} s, {load.failures} calls failed")
        values = await load.values()
        assert all(value >= done for value, done in zip(values, load.acknowledged, strict=True))
        assert all(value <= begun for value, begun in zip(values, load.begun, strict=True))
        assert load.gap < GAP_S + BUSY
        await store.stop()


@pytest.mark.matrix
async def test_a_master_that_was_demoted_is_left_though_its_connection_stays(tmp_path: Path) -> None:
    """It answers READONLY, or the Sentinels name another: connections to it are closed."""
    with watched(tmp_path) as group:
        store = store_at(group.url)
        await store.start()
        await store.create("a")
        old = group.master
        group.sentinels[0].client().execute_command("SENTINEL", "FAILOVER", "main")
        async with asyncio.timeout(30):
            while True:
                try:
                    await store.set_state("a", "n", 1)
                    if group.master is not old:
                        break
                except SessionStoreUnavailable:
                    pass  # in the moment of the fail-over
                await asyncio.sleep(0.02)
        await store.set_state("a", "n", 2)
        client: redis.Redis = group.master.client()
        assert client.info("replication")["role"] == "master"
        assert await store.get_state("a", "n") == 2
        await store.stop()
