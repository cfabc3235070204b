"""Servers of the Redis backend's tests, one for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.sessions.redis.stores import Stores
from tests.stores.servers import StoreServer, cluster_of, join, running


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Stores in a Valkey."""
    server = StoreServer(tmp_path_factory.mktemp("valkey"))
    with running(server):
        found = Stores(server.client(), server.url)
        yield found
        found.client.close()


@pytest.fixture(scope="session")
def cluster_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Stores in a cluster of three, which refuses scripts whose keys are not all in one slot."""
    servers = cluster_of(tmp_path_factory.mktemp("cluster"), replicas=0)
    with running(*servers):
        join(servers)
        found = Stores(
            redis.RedisCluster(port=servers[0].port, host="127.0.0.1"), f"redis+cluster://127.0.0.1:{servers[0].port}"
        )
        yield found
        found.client.close()
