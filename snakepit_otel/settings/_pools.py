"""Settings of all pools, from what a program gives for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from snakepit_otel.adapters._adapter_loading import spec_of
from snakepit_otel.common.validation import build
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.settings._tree import DEFAULT_POOL, further_pools

Given = PoolSettings | Mapping[str, Any]
M = TypeVar("M", bound=BaseModel)


def settings_of(model: type[M], given: M | Mapping[str, Any] | None, prefix: str) -> M:
    """Return settings given as an object or as a mapping. Raises `ConfigurationError`, naming the key by `prefix`."""
    return given if isinstance(given, model) else build(model, dict(given or {}), prefix)


def pool_settings(
    adapter: type | str | None, workers: int | None, pool: Given | None, pools: Mapping[str, Given] | None
) -> dict[str, tuple[str, PoolSettings]]:
    """Return each pool's adapter and settings by name; see `Snakepit`. Raises `ConfigurationError`."""
    found: dict[str, tuple[str, PoolSettings]] = {}
    if adapter is not None:
        settings = settings_of(PoolSettings, pool, "pool.")
        if workers is not None:
            settings = build(PoolSettings, {**settings.model_dump(exclude_unset=True), "size": workers}, "pool.")
        if settings.adapter is not None:
            raise ConfigurationError(
                "pool.adapter is only for entries of `pools`; for the default pool pass Snakepit(adapter=...)"
            )
        found[DEFAULT_POOL] = (spec_of(adapter), settings)
    elif pool or workers is not None:
        raise ConfigurationError("pool and workers are for the top-level adapter, and there is none")
    for name, settings in further_pools({name: _named(one) for name, one in (pools or {}).items()}).items():
        found[name] = (settings.adapter or "", settings)
    if not found:
        raise ConfigurationError("no adapter to run: pass Snakepit(adapter=...), or pools with one each")
    return found


def _named(pool: Given) -> Given:
    """Return a pool's settings with the name of its adapter in place of a class."""
    if isinstance(pool, Mapping) and isinstance(pool.get("adapter"), type):
        return {**pool, "adapter": spec_of(pool["adapter"])}
    return pool
