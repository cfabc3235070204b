"""Router: all pools of an authority, and the choice of one of them for a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, Self

from snakepit_otel.bridge.authority.jobs import Job, TakeChunk
from snakepit_otel.bridge.wire.restart_report import Replacement, RestartReport
from snakepit_otel.bridge.wire.status import ToolStatus
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.bridge.wire.tool_listing import ListedTool
from snakepit_otel.errors import PoolNotFound
from snakepit_otel.pool.context import PoolContext
from snakepit_otel.pool.pool import WorkerPool
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.status import register_gauges
from snakepit_otel.pool.workers.launch import process_workers


class WorkerPools(Mapping[str, WorkerPool]):
    """Pools by name, at least one. A request goes to the pool it names, the first with its tool, or the first."""

    def __init__(self, pools: Mapping[str, WorkerPool]) -> None:
        self._pools = dict(pools)
        self._first = next(iter(self._pools.values()))
        for pool in self._pools.values():
            register_gauges(pool)

    @classmethod
    def of(cls, settings: Mapping[str, tuple[str, PoolSettings]], context: PoolContext) -> Self:
        """Return pools of worker processes, of each pool's adapter and settings."""
        return cls(
            {
                name: WorkerPool(name, adapter, pool, process_workers(name, adapter, pool, context))
                for name, (adapter, pool) in settings.items()
            }
        )

    def __getitem__(self, name: str) -> WorkerPool:
        """Return a pool. Raises `PoolNotFound`."""
        try:
            return self._pools[name]
        except KeyError:
            existing = ", ".join(self._pools)
            raise PoolNotFound(
                f"there is no pool {name!r:.80}; there are: {existing}; nothing was run", pool=name[:80]
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    def label(self, tool: str) -> str:
        """Return a tool's name as an attribute of metrics."""
        return self._of(tool).label(tool)

    def pool_of(self, tool: str) -> str:
        """Return the name of the pool that runs a tool whose request names none."""
        return self._of(tool).name

    def tools(self) -> list[ListedTool]:
        """Return the tools of all pools."""
        return [ListedTool.of(one, pool.name, pool.adapter) for pool in self.values() for one in pool.descriptions]

    def tool_statuses(self) -> list[ToolStatus]:
        """Return what became of the calls of each pool's tools."""
        return [status for pool in self.values() for status in pool.requests.outcomes.statuses(pool.requests.tools)]

    def on_refused(self, tool: str, pool: str | None) -> None:
        """Count a request that was refused before it came here."""
        chosen = self._pools.get(pool) if pool else self._of(tool)
        if chosen is not None:
            chosen.requests.outcomes.on_refused(chosen.label(tool))

    def execute(self, job: Job) -> Coroutine[Any, Any, Any]:
        """Run a request; see `WorkerPool.execute`. Raises `PoolNotFound`, too."""
        return self._for(job).execute(job)

    async def stream(self, job: Job, take: TakeChunk) -> None:
        """Run a request and await `take` for each chunk; see `WorkerPool.stream`. Raises `PoolNotFound`, too."""
        await self._for(job).stream(job, take)

    async def start(self) -> None:
        """Start all pools; where one fails, the others are stopped."""
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
        """Refuse new requests, and return when the present ones have ended, or their grace is over."""
        await asyncio.gather(*(pool.drain() for pool in self.values()))

    async def stop(self) -> None:
        """Stop all workers."""
        await asyncio.gather(*(pool.stop() for pool in self.values()))

    async def configure(self, controls: Controls) -> None:
        """Set what all workers record; see `WorkerPool.configure`."""
        await asyncio.gather(*(pool.configure(controls) for pool in self.values()))

    async def restart(self, pool: str | None, progress: Callable[[Replacement], None]) -> RestartReport:
        """Replace all workers of a pool, or of all pools at a time; `progress` gets each result."""
        done: list[Replacement] = []

        def on_replaced(replacement: Replacement) -> None:
            done.append(replacement)
            progress(replacement)

        chosen = list(self.values()) if pool is None else [self[pool]]
        await asyncio.gather(*(one.replace_all(on_replaced) for one in chosen))
        return RestartReport(tuple(done))

    def _for(self, job: Job) -> WorkerPool:
        return self._of(job.tool_name) if job.pool is None else self[job.pool]

    def _of(self, tool: str) -> WorkerPool:
        if len(self._pools) == 1:
            return self._first
        return next((pool for pool in self.values() if tool in pool.requests.tools), self._first)
