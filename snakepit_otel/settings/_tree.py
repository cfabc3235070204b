"""Tree of all settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from snakepit_otel.bridge.authority.settings import AuthoritySettings, ServerSettings
from snakepit_otel.common.validation import build
from snakepit_otel.middleware._settings import MiddlewareSettings
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.sessions._settings import SessionSettings
from snakepit_otel.settings._log import LogSettings
from snakepit_otel.zero_copy._settings import ZeroCopySettings

DEFAULT_POOL = "default"  # the pool of `[pool]`


def _pool_name(name: str) -> str:
    if name == DEFAULT_POOL:
        raise ValueError("this is the name of the pool that [pool] describes; choose another")
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,63}", name):
        raise ValueError("a pool's name is 1 to 64 of a-z, 0-9, _ and -, and begins with a letter")
    return name


def _without_adapter(pool: PoolSettings) -> PoolSettings:
    if pool.adapter is not None:
        raise ValueError("adapter is for [pools.NAME]; that of [pool] is the top-level adapter")
    return pool


def _with_adapter(pool: PoolSettings) -> PoolSettings:
    if pool.adapter is None:
        raise ValueError('needs an adapter of its own: adapter = "package.module:Class"')
    return pool


Pools = dict[Annotated[str, AfterValidator(_pool_name)], Annotated[PoolSettings, AfterValidator(_with_adapter)]]


class Settings(BaseModel):
    """All settings. The constructor reads neither environment nor file; `load_settings` does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    adapter: str | None = Field(
        default=None, description="The adapter class: `package.module:Class` or `path/to/file.py:Class`."
    )
    authority_tools: tuple[str, ...] = Field(
        default=(), description="Modules whose `@authority_tool` functions are registered."
    )
    authority: AuthoritySettings = Field(default=AuthoritySettings(), description="Limits of these tools.")
    session_store: SessionSettings = SessionSettings()

    pool: Annotated[PoolSettings, AfterValidator(_without_adapter)] = Field(
        default=PoolSettings(), description="The workers of the top-level adapter."
    )
    pools: Pools = Field(default={}, description="Further pools by name, each with an adapter of its own.")
    middleware: MiddlewareSettings = MiddlewareSettings()
    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()
    zero_copy: ZeroCopySettings = ZeroCopySettings()


class _FurtherPools(BaseModel):
    pools: Pools


def further_pools(given: Mapping[str, PoolSettings | Mapping[str, Any]]) -> dict[str, PoolSettings]:
    """Return the settings of `[pools]` as a program gives them.

    Raises `ConfigurationError` for a name that cannot be, a pool without an adapter, or a bad setting.
    """
    pools = {name: pool if isinstance(pool, PoolSettings) else dict(pool) for name, pool in given.items()}
    return build(_FurtherPools, {"pools": pools}).pools
