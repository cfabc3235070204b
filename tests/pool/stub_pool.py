"""Pools of stub workers, for tests in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from snakepit_otel.bridge.authority.jobs import Job
from snakepit_otel.pool.pool import WorkerPool
from snakepit_otel.pool.router import WorkerPools
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.workers.base import WorkerState
from snakepit_otel.pool.workers.stub import StubScript, StubWorker


async def echo(worker: StubWorker, _request: Any) -> str:
    """Return the worker's id."""
    return worker.id


async def sleep(worker: StubWorker, seconds: float) -> str:
    """Take so long, and return the worker's id."""
    await asyncio.sleep(seconds)
    return worker.id


async def wait_for(worker: StubWorker, event: asyncio.Event) -> str:
    """Wait for an event, and return the worker's id."""
    await event.wait()
    return worker.id


async def crash(worker: StubWorker, runs: list[str]) -> None:
    """Note the worker's id in `runs`, and end the worker."""
    runs.append(worker.id)
    worker.exit()
    await asyncio.Event().wait()


async def crash_once(worker: StubWorker, runs: list[str]) -> str:
    """End the first worker that runs it."""
    if not runs:
        await crash(worker, runs)
    runs.append(worker.id)
    return worker.id


async def stubborn(worker: StubWorker, release: asyncio.Event) -> str:
    """Ignore cancellation until an event."""
    while not release.is_set():
        try:
            await release.wait()
        except asyncio.CancelledError:
            continue
    return worker.id


TOOLS = {
    "echo": echo,
    "sleep": sleep,
    "wait_for": wait_for,
    "crash": crash,
    "crash_once": crash_once,
    "stubborn": stubborn,
}


class StubPool:
    """A pool of stub workers, and the sessions' last workers."""

    def __init__(self, **settings: Any) -> None:
        self.clock = asyncio.get_running_loop().time
        self.script = StubScript(dict(TOOLS))
        self.pool = WorkerPool(
            "default",
            "stub:Stub",
            PoolSettings(**settings),
            lambda worker_id, slot, _controls: StubWorker(worker_id, "default", self.script, self.clock, slot=slot),
            self.clock,
        )
        self.pools = WorkerPools({"default": self.pool})
        self.last_workers: dict[str, str] = {}
        self._numbers = itertools.count()

    @property
    def made(self) -> list[StubWorker]:
        """All workers that were made."""
        return self.script.made

    def in_state(self, state: WorkerState) -> list[str]:
        """Return the ids of the workers in a state."""
        return [worker.id for worker in self.pool.workers if worker.state is state]

    def job(
        self,
        tool: str,
        request: Any = None,
        *,
        session: str = "",
        timeout: float | None = None,
        idempotent: bool = False,
    ) -> Job:
        """Return a job, `timeout` seconds before its deadline."""

        async def on_assigned(worker_id: str) -> None:
            if session:
                self.last_workers[session] = worker_id

        deadline = None if timeout is None else self.clock() + timeout
        preferred = self.last_workers.get(session)
        number = str(next(self._numbers))
        return Job(request, tool, session, number, preferred, on_assigned, deadline, idempotent=idempotent)

    async def execute(self, tool: str, request: Any = None, **options: Any) -> Any:
        """Run a tool, and return its value; see `job`."""
        return (await self.pool.execute(self.job(tool, request, **options))).value

    def begin(self, tool: str, request: Any = None, **options: Any) -> asyncio.Task[Any]:
        """Run a tool in a task; see `job`."""
        return asyncio.create_task(self.execute(tool, request, **options))


@asynccontextmanager
async def stub_pool(**settings: Any) -> AsyncIterator[StubPool]:
    """Run a pool of stub workers."""
    stubs = StubPool(**{"size": 1, **settings})
    await stubs.pools.start()
    try:
        yield stubs
    finally:
        await stubs.pools.drain()
        await stubs.pools.stop()
