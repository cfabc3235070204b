"""Worker processes: launching, choosing, queueing and supervising them."""

from snakepit_otel.pool.home import Home
from snakepit_otel.pool.orphans import Roster, kill_orphans
from snakepit_otel.pool.pool import WorkerPool
from snakepit_otel.pool.pools import WorkerPools
from snakepit_otel.pool.reporting import status_of
from snakepit_otel.pool.settings import PoolSettings

__all__ = ["Home", "PoolSettings", "Roster", "WorkerPool", "WorkerPools", "kill_orphans", "status_of"]
