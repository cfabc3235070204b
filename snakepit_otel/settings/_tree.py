"""Tree of all settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from snakepit_otel.bridge.authority.limits import LimitSettings
from snakepit_otel.bridge.authority.settings import AuthoritySettings
from snakepit_otel.common.validation import build
from snakepit_otel.middleware._settings import MiddlewareSettings
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.rpc.tls import Tls
from snakepit_otel.sessions._settings import SessionSettings
from snakepit_otel.zero_copy._settings import ZeroCopySettings

DEFAULT_POOL = "default"  # the pool of `[pool]`


class TlsSettings(BaseModel):
    """PEM files for a TCP listener; when they change, new connections have the new ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: Path
    key: Path
    client_ca: Path | None = Field(
        default=None, description="The authority that signs clients' certificates; with it, clients must have one."
    )

    def files(self) -> Tls:
        """The files as listeners take them."""
        return Tls(self.certificate, self.key, self.client_ca)


class ServerSettings(BaseModel):
    """Listeners of the authority for callers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: str | None = Field(default=None, description="`HOST:PORT` for callers on TCP; none by default.")
    socket: Path | None = Field(
        default=None, description="Path of the Unix socket; by default in a new private directory."
    )
    tls: TlsSettings | None = None

    insecure: bool = Field(
        default=False,
        description="Listen beyond loopback without TLS or `client_ca`: everybody who reaches the port may call.",
    )
    trust_trace_context: bool | None = Field(
        default=None,
        description="Continue the traces and sampling decisions of all callers, or of none: their traces are linked "
        "then. By default those of callers on the Unix socket, and with a certificate on TCP.",
    )
    limits: LimitSettings = Field(default=LimitSettings(), description="Limits of callers.")


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
    zero_copy: ZeroCopySettings = ZeroCopySettings()


class _FurtherPools(BaseModel):
    pools: Pools


def further_pools(given: Mapping[str, PoolSettings | Mapping[str, Any]]) -> dict[str, PoolSettings]:
    """Return the settings of `[pools]` as a program gives them.

    Raises `ConfigurationError` for a name that cannot be, a pool without an adapter, or a bad setting.
    """
    pools = {name: pool if isinstance(pool, PoolSettings) else dict(pool) for name, pool in given.items()}
    return build(_FurtherPools, {"pools": pools}).pools
