"""Worker pools: launch, selection, queueing and supervision of workers."""

from snakepit_otel.pool.context import PoolContext
from snakepit_otel.pool.pool import WorkerPool
from snakepit_otel.pool.router import WorkerPools
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.status import status_of

__all__ = [
    "PoolContext",
    "PoolSettings",
    "WorkerPool",
    "WorkerPools",
    "status_of",
]
