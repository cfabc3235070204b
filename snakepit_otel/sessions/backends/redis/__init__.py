"""Session backend in a Redis or Valkey that several authorities share."""

from typing import TYPE_CHECKING

from snakepit_otel.common.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from snakepit_otel.sessions.backends.redis._options import RedisOptions
    from snakepit_otel.sessions.backends.redis.backend import RedisBackend

__all__ = ["RedisBackend", "RedisOptions"]

# Loaded when used: addresses are checked also where the package of the clients is not installed.
__getattr__, __dir__ = lazy_exports(__name__, {"RedisBackend": "backend", "RedisOptions": "_options"})
