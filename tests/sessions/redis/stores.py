"""Backends over one Valkey, each with a store of its own, whose time a test's clock is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from snakepit_otel.common.clock import Clock
from snakepit_otel.sessions import Limits
from snakepit_otel.sessions.backends.redis import RedisBackend, RedisOptions
from snakepit_otel.sessions.backends.redis._scripts import Script
from snakepit_otel.sessions.backends.redis.driver import create_driver

_NAMESPACES = itertools.count()


class Stores:
    """One server or cluster, and the backends over it."""

    def __init__(self, client: Any, url: str) -> None:
        self.client, self._url = client, url

    def backend(
        self, limits: Limits | None = None, clock: Clock | None = None, namespace: str = "", **options: Any
    ) -> RedisBackend:
        """A backend over a store of its own, unless a namespace is given, and on that clock, if given."""
        chosen = RedisOptions(self._url, namespace or f"test{next(_NAMESPACES)}", timeout=20, **options)
        driver = None if clock is None else ClockDriver(self.client, chosen, clock)
        return RedisBackend(limits or Limits(), chosen, driver=driver)


class ClockDriver:
    """The driver of an address, which sets the store's time to that of a test's clock."""

    def __init__(self, client: Any, options: RedisOptions, clock: Clock) -> None:
        self.clock = clock
        self._client = client
        self._driver = create_driver(options)
        self._stats = [f"{{{options.namespace}:{shard}}}:stat" for shard in range(options.shards)]
        # Whole seconds, since microseconds of the epoch are more than a float can tell apart.
        self._epoch = int(clock.time()) - int(clock.monotonic())
        self._set = -1.0

    async def open(self) -> None:
        await self._driver.open()

    async def close(self) -> None:
        await self._driver.close()

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[Any]) -> Any:
        if (now := self.clock.monotonic()) != self._set:
            for stat in self._stats:
                self._client.hset(stat, "manual", self._epoch * 1_000_000 + int(now * 1_000_000))
            self._set = now
        return await self._driver.run(script, keys, args)
