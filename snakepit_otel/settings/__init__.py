"""One tree of settings: keyword arguments, then environment, then a TOML file, then defaults."""

from snakepit_otel.bridge.authority.limits import LimitSettings
from snakepit_otel.bridge.authority.settings import AuthoritySettings, ServerSettings, TlsSettings
from snakepit_otel.middleware._settings import MiddlewareSettings
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.sessions._settings import SessionSettings
from snakepit_otel.settings._loading import load_settings
from snakepit_otel.settings._log import LogSettings
from snakepit_otel.settings._tree import Settings
from snakepit_otel.zero_copy._settings import ZeroCopySettings

__all__ = [
    "AuthoritySettings",
    "LimitSettings",
    "LogSettings",
    "MiddlewareSettings",
    "PoolSettings",
    "ServerSettings",
    "SessionSettings",
    "Settings",
    "TlsSettings",
    "ZeroCopySettings",
    "load_settings",
]
