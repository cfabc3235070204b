"""Agreement of all authorities on the limits and the layout of their store, when each opens it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from snakepit_otel.errors import ConfigurationError
from snakepit_otel.sessions._quota import Limits
from snakepit_otel.sessions.backends.redis import _scripts as scripts
from snakepit_otel.sessions.backends.redis._layout import LAYOUT, Shard, limit_arguments, limits_of
from snakepit_otel.sessions.backends.redis._options import RedisOptions
from snakepit_otel.sessions.backends.redis.driver import Driver

_SETTINGS = ("max_sessions", "overflow", "max_session_bytes", "max_total_bytes", "max_sessions_per_owner")


class Agreement:
    """Writes the limits to a new store, and compares them with those of an older one."""

    def __init__(self, limits: Limits, options: RedisOptions, driver: Driver, shards: Sequence[Shard]) -> None:
        if len(shards) > 1:
            if limits.max_sessions < len(shards):
                raise ConfigurationError(
                    f"session_store.shards is {len(shards)}, and max_sessions only {limits.max_sessions:g}: "
                    "each shard has its share of that"
                )
            if limits.max_sessions_per_owner != float("inf"):
                raise ConfigurationError(
                    "session_store.max_sessions_per_owner needs shards = 1: it is counted within a shard"
                )
        self.name = f"snakepit-{secrets.token_hex(4)}"
        self._limits, self._options, self._driver, self._shards = limits, options, driver, shards

    async def agree(self) -> None:
        """Agree with the store. Raises `ConfigurationError` naming the setting and both values."""
        found = await self._exchange(force=False)
        stored = limits_of(found)
        for name in _SETTINGS:
            here, there = getattr(self._limits, name), getattr(stored, name)
            if here != there:
                raise ConfigurationError(
                    f"session_store.{name} is {_shown(here)} here, and {_shown(there)} in {self._place}, whose limits "
                    "hold for all that share it: set the same here, or change the store's "
                    "(snakepit-otel sessions limits --set)"
                )

    async def set_limits(self) -> None:
        """Write the limits to the store, whatever they were. Raises `ConfigurationError` for another layout."""
        await self._exchange(force=True)

    async def stored_limits(self) -> Limits | None:
        """Return the limits of the store, None for a new one. Raises `ConfigurationError` for another layout."""
        found = []
        for shard in self._shards:
            values = await self._driver.run(scripts.LIMITS, shard.keys(scripts.LIMITS), ())
            if values[0] is None:
                return None
            self._check(values)
            found.append(values[3:])
        return limits_of(found)

    async def _exchange(self, *, force: bool) -> list[list[bytes]]:
        """Return the limits that each shard has now; the first has the store's name for all."""
        found = []
        for shard in self._shards:
            limits = limit_arguments(self._limits, shard.number, len(self._shards))
            arguments = (LAYOUT, self.name, len(self._shards), "1" if force else "0", *limits)
            values = await self._driver.run(scripts.OPEN, shard.keys(scripts.OPEN), arguments)
            self._check(values)
            self.name = values[1].decode()
            found.append(values[3:])
        return found

    def _check(self, values: list[bytes]) -> None:
        layout, shards = values[0].decode(), int(values[2])
        if layout != LAYOUT:
            raise ConfigurationError(
                f"session_store.namespace: {self._place} has layout {layout!r:.40}, and this version uses {LAYOUT!r}; "
                "use another namespace"
            )
        if shards != len(self._shards):
            raise ConfigurationError(
                f"session_store.shards is {len(self._shards)} here, and {shards} in {self._place}, where it stays, "
                "as sessions stay in their shards: set the same here, or use another namespace"
            )

    @property
    def _place(self) -> str:
        return f"the store with namespace {self._options.namespace!r}"


def _shown(value: object) -> str:
    return (
        f"{value:g}"
        if isinstance(value, float) and value > 1e15
        else str(int(value))
        if isinstance(value, float)
        else str(value)
    )
