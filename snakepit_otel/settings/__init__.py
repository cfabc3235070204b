"""One tree of settings: keyword arguments, then environment, then a TOML file, then defaults."""

from snakepit_otel.bridge.authority.settings import ServerSettings, TlsSettings
from snakepit_otel.middleware._settings import MiddlewareSettings
from snakepit_otel.settings._loading import Loaded, load, load_settings
from snakepit_otel.settings._tree import (
    DEFAULT_POOL,
    Pools,
    Settings,
    further_pools,
)

__all__ = [
    "DEFAULT_POOL",
    "Loaded",
    "MiddlewareSettings",
    "Pools",
    "ServerSettings",
    "Settings",
    "TlsSettings",
    "further_pools",
    "load",
    "load_settings",
]
