"""Conformance of the backend over Valkey, by itself and in cluster mode."""

from __future__ import annotations

import pytest

from snakepit_otel.sessions import Limits, SessionBackend
from snakepit_otel.sessions.backends import Clock
from snakepit_otel.sessions.backends.redis import RedisBackend
from snakepit_otel.testing.backends import BackendTests
from tests.sessions.redis.stores import ClockDriver, Stores


class TestValkey(BackendTests):
    """Sessions in a Valkey server."""

    share_of_examples = 0.15

    @pytest.fixture(autouse=True)
    def _stores(self, stores: Stores) -> None:
        self.stores = stores

    def make_backend(self, limits: Limits, clock: Clock) -> RedisBackend:
        return self.stores.backend(limits, clock)

    def make_second(self, first: SessionBackend, limits: Limits) -> RedisBackend:
        assert isinstance(first, RedisBackend)
        assert isinstance(first._driver, ClockDriver)
        return self.stores.backend(limits, first._driver.clock, namespace=first.options.namespace)


class TestValkeyInClusterMode(TestValkey):
    """Sessions in a Valkey server in cluster mode."""

    share_of_examples = 0.05

    @pytest.fixture(autouse=True)
    def _stores(self, cluster_stores: Stores) -> None:
        self.stores = cluster_stores
