"""A pool of database connections in each worker, opened once: python examples/db_pool.py."""

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from snakepit_otel import BaseAdapter, Snakepit, WorkerContext, tool


class ConnectionPool:
    """A stand-in for asyncpg.create_pool(...) or psycopg_pool.AsyncConnectionPool(...)."""

    def __init__(self, path: str, size: int) -> None:
        self._path = path
        self._size = size
        self._free: asyncio.Queue[sqlite3.Connection] = asyncio.Queue()

    async def open(self) -> None:
        for _ in range(self._size):
            self._free.put_nowait(sqlite3.connect(self._path, check_same_thread=False))

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[sqlite3.Connection]:
        connection = await self._free.get()
        try:
            with connection:
                yield connection
        finally:
            self._free.put_nowait(connection)

    async def close(self) -> None:
        for _ in range(self._size):
            (await self._free.get()).close()


class Shop(BaseAdapter):
    __thread_safe__ = True
    database: ClassVar[ConnectionPool]

    @classmethod
    async def on_worker_start(cls, worker: WorkerContext) -> None:
        """Open the pool on the event loop that async tools run on; as many connections as requests at a time."""
        cls.database = ConnectionPool(os.environ["DATABASE"], worker.concurrency)
        await cls.database.open()

    @classmethod
    async def on_worker_stop(cls) -> None:
        """Close the pool, after the worker's last request."""
        await cls.database.close()

    @tool
    async def order(self, item: str) -> int:
        """Add an order, and return its number."""
        async with self.database.connection() as connection:
            return int(connection.execute("INSERT INTO orders (item) VALUES (?)", (item,)).lastrowid or 0)


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "shop.db"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE orders (number INTEGER PRIMARY KEY, item TEXT)")
        pool: dict[str, Any] = {
            "size": 2,
            "profile": "thread",
            "threads_per_worker": 4,
            "environment": {"DATABASE": str(path)},
        }
        async with Snakepit(Shop, pool=pool) as pit:
            numbers = await asyncio.gather(
                *(pit.execute("order", {"item": item}, timeout=60) for item in ("tea", "milk", "sugar"))
            )
            print("orders:", sorted(numbers))
        with sqlite3.connect(path) as connection:
            print("items:", sorted(item for (item,) in connection.execute("SELECT item FROM orders")))


if __name__ == "__main__":
    asyncio.run(main())
