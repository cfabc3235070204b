"""All pools of an authority, and the way of a request to one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

from snakepit_otel.bridge.authority.dispatcher import Job, TakeChunk
from snakepit_otel.bridge.wire.raw_messages import ToolResponse
from snakepit_otel.bridge.wire.restart_report import Replacement, RestartReport
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.errors import PoolNotFound
from snakepit_otel.pool.pool import WorkerPool


class WorkerPools(Mapping[str, WorkerPool]):
    """Pools by name; there is at least one.

    A request goes to the pool that it names; else to the first one whose adapter has the tool; else to the first.
    """

    def __init__(self, pools: Mapping[str, WorkerPool]) -> None:
        self._pools = dict(pools)
        self._first = next(iter(self._pools.values()))

    def __getitem__(self, name: str) -> WorkerPool:
        """Return a pool. Raises `PoolNotFound`."""
        try:
            return self._pools[name]
        except KeyError:
            known = ", ".join(self._pools)
            raise PoolNotFound(f"there is no pool {name!r:.80}; there are: {known}; nothing was run") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    def label(self, tool: str) -> str:
        """Return a tool's name as an attribute of metrics."""
        return self._of(tool).label(tool)

    async def execute(self, job: Job) -> ToolResponse:
        """Run a request; see `WorkerPool.execute`. Raises `PoolNotFound`, too."""
        return await self._for(job).execute(job)

    async def stream(self, job: Job, take: TakeChunk) -> None:
        """Run a request and hand on its chunks; see `WorkerPool.stream`. Raises `PoolNotFound`, too."""
        await self._for(job).stream(job, take)

    async def start(self) -> None:
        """Start all of them; where one fails, the others are stopped."""
        starts = [asyncio.ensure_future(pool.start()) for pool in self.values()]
        try:
            await asyncio.gather(*starts)
        except BaseException:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            await self.stop()
            raise

    async def drain(self) -> None:
        """Take no more requests, and return when those there are have ended, or have had their time."""
        await asyncio.gather(*(pool.drain() for pool in self.values()))

    async def stop(self) -> None:
        """Stop all workers."""
        await asyncio.gather(*(pool.stop() for pool in self.values()))

    async def record(self, controls: Controls) -> None:
        """Have all workers record so; see `WorkerPool.record`."""
        await asyncio.gather(*(pool.record(controls) for pool in self.values()))

    async def restart(self, pool: str | None, progress: Callable[[Replacement], None]) -> RestartReport:
        """Replace all workers of a pool, or of all pools at a time; see `bridge.rolling.Restart`."""
        done: list[Replacement] = []

        def note(replacement: Replacement) -> None:
            done.append(replacement)
            progress(replacement)

        chosen = list(self.values()) if pool is None else [self[pool]]
        await asyncio.gather(*(one.replace_all(note) for one in chosen))
        return RestartReport(tuple(done))

    def _for(self, job: Job) -> WorkerPool:
        return self._of(job.request.tool_name) if job.pool is None else self[job.pool]

    def _of(self, tool: str) -> WorkerPool:
        if len(self._pools) == 1:
            return self._first
        return next((pool for pool in self.values() if tool in pool.tools), self._first)
