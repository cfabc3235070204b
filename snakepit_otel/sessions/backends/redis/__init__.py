"""Session backend in a Redis or Valkey that several authorities share."""

from snakepit_otel.sessions.backends.redis._options import RedisOptions
from snakepit_otel.sessions.backends.redis.backend import RedisBackend

__all__ = ["RedisBackend", "RedisOptions"]
