"""A worker's life around tools that tests run: the adapter's hooks, and the threads that they share with its tools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from snakepit_otel.adapters import WorkerContext
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.adapters._worker_hooks import WorkerHooks
from snakepit_otel.errors import AlreadyStarted

_STOP_TIMEOUT_S = 10.0
_threads_of: dict[type, ToolThreads] = {}


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
    if adapter in _threads_of:
        raise AlreadyStarted(f"a worker of {adapter.__qualname__} runs in this test already")
    threads = ToolThreads()
    try:
        worker = WorkerContext(worker_id, pool, slot, 1, dict(environment or {}))
        hooks = WorkerHooks(adapter, threads)
        await hooks.start(worker)
        _threads_of[adapter] = threads
        try:
            yield worker
        finally:
            del _threads_of[adapter]
            await hooks.stop(worker, _STOP_TIMEOUT_S)
    finally:
        threads.close()


@asynccontextmanager
async def threads_of_worker(adapter: type) -> AsyncIterator[ToolThreads]:
    """Give the threads of the worker that the adapter runs in, which lives for this block if there is none."""
    if adapter in _threads_of:
        yield _threads_of[adapter]
    else:
        async with started_worker(adapter):
            yield _threads_of[adapter]
