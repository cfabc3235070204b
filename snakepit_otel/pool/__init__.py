"""Worker processes: launching, choosing and keeping them."""

from snakepit_otel.pool.pool import SharedMemory, WorkerPool
from snakepit_otel.pool.settings import PoolSettings

__all__ = ["PoolSettings", "SharedMemory", "WorkerPool"]
