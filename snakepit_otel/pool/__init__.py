"""Worker processes: launching, choosing and keeping them."""

from snakepit_otel.pool.pool import WorkerPool
from snakepit_otel.pool.settings import PoolSettings

__all__ = ["PoolSettings", "WorkerPool"]
