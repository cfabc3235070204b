"""Worker processes: launching, choosing, queueing and supervising them."""

from snakepit_otel.pool.context import Home
from snakepit_otel.pool.pool import WorkerPool
from snakepit_otel.pool.router import WorkerPools
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.status import status_of
from snakepit_otel.pool.workers.orphans import Roster, kill_orphans

__all__ = ["Home", "PoolSettings", "Roster", "WorkerPool", "WorkerPools", "kill_orphans", "status_of"]
