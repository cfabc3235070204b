"""Connections of the Redis backend to its server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from snakepit_otel.errors import SessionStoreUnavailable
from snakepit_otel.sessions.backends.redis._options import RedisOptions
from snakepit_otel.sessions.backends.redis._scripts import Script


class Driver(Protocol):
    """Runs scripts."""

    async def open(self) -> None:
        """Connect and check the server. Raises `SessionStoreUnavailable` and `ConfigurationError`."""

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | int | float | str]) -> Any:
        """Return a script's reply. Raises `SessionStoreUnavailable`."""

    async def close(self) -> None:
        """Disconnect."""


def create_driver(options: RedisOptions) -> Driver:
    """Return the driver for an address."""
    return _Standalone(options)


class _Standalone:
    def __init__(self, options: RedisOptions) -> None:
        self._options = options
        self._client: Any = None

    async def open(self) -> None:
        pool = BlockingConnectionPool.from_url(
            self._options.url,
            max_connections=self._options.connections,
            timeout=self._options.timeout,
            socket_timeout=self._options.timeout,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
        )
        self._client = Redis.from_pool(pool)

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | int | float | str]) -> Any:
        assert self._client is not None
        try:
            try:
                return await self._client.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
            except NoScriptError:
                return await self._client.execute_command("EVAL", script.source, len(keys), *keys, *args)
        except RedisError as error:
            raise SessionStoreUnavailable(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
