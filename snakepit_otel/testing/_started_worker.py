"""A worker's life around tools that tests run: the adapter's hooks, and the threads that they share with its tools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from snakepit_otel.adapters import WorkerContext
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.adapters._worker_hooks import WorkerHooks
from snakepit_otel.errors import AlreadyStarted

_STOP_TIMEOUT_S = 10.0


class _Worker:
    """One worker of an adapter in this process: begun by the first who uses it, ended by the last."""

    def __init__(self, adapter: type, context: WorkerContext) -> None:
        self.threads = ToolThreads()
        self.users = 0
        self.ended = asyncio.Event()
        self._context = context
        self._hooks = WorkerHooks(adapter, self.threads)
        self._starting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Run the start hook, or wait until it has run for another user."""
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._hooks.start(self._context))
        await asyncio.shield(self._starting)

    async def stop(self) -> None:
        """Run the stop hook, if the start hook has run."""
        try:
            if self._starting is not None and not self._starting.done():
                self._starting.cancel()
                await asyncio.wait([self._starting])
            await self._hooks.stop(self._context, _STOP_TIMEOUT_S)
        finally:
            self.threads.close()
            self.ended.set()


_workers: dict[type, _Worker] = {}


@asynccontextmanager
async def started_worker(
    adapter: type,
    *,
    worker_id: str = "test-1.1",
    pool: str | None = "test",
    slot: int | None = 0,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[WorkerContext]:
    """Run an adapter's `on_worker_start`, then the block, then `on_worker_stop`, which has ten seconds.

    Calls of `run_tool` in the block run in this worker, whose hooks they do not run again. Raises `WorkerStartFailed`
    if `on_worker_start` fails, whose cause is what it raised; `AdapterNotLoaded` for a hook that cannot be one;
    `AlreadyStarted` inside of another block for the same adapter.
    """
    if adapter in _workers:
        raise AlreadyStarted(f"a worker of {adapter.__qualname__} runs in this test already")
    context = WorkerContext(worker_id, pool, slot, 1, dict(environment or {}))
    async with _use(adapter, _Worker(adapter, context)):
        yield context


@asynccontextmanager
async def threads_of_worker(adapter: type) -> AsyncIterator[ToolThreads]:
    """Give the threads of the worker that the adapter runs in: the present one, or one for this block.

    Blocks at the same time share one.
    """
    while (worker := _workers.get(adapter)) is not None and not worker.users:
        await worker.ended.wait()
    async with _use(adapter, worker or _Worker(adapter, WorkerContext("test-1.1", "test", 0))) as used:
        yield used.threads


@asynccontextmanager
async def _use(adapter: type, worker: _Worker) -> AsyncIterator[_Worker]:
    _workers[adapter] = worker
    worker.users += 1
    try:
        await worker.start()
        yield worker
    finally:
        worker.users -= 1
        if not worker.users:
            try:
                await worker.stop()
            finally:
                del _workers[adapter]
