"""Stub worker without a process, for tests of pools: tools are coroutine functions, failures are scripted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from snakepit_otel.bridge.authority.jobs import CallFailed, CallTimedOut, ConnectionLost, Job, TakeChunk
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.errors import AuthorityUnavailable, DeadlineExceeded, SnakepitError, WorkerStartFailed
from snakepit_otel.pool.workers.base import Worker, WorkerState

StubTool = Callable[["StubWorker", Any], Coroutine[Any, Any, Any] | AsyncIterator[Any]]
StubHook = Callable[["StubWorker"], Coroutine[Any, Any, None]]


class StubResponse(NamedTuple):
    """Response of a stub worker."""

    value: Any
    success: bool = True
    error_message: str = ""


@dataclass
class StubScript:
    """Behaviour of stub workers; may be changed while they run. Tools get the worker and the job's request."""

    tools: Mapping[str, StubTool]
    start_seconds: float = 0.0
    stop_seconds: float = 0.0
    start_error: SnakepitError | None = None
    on_worker_start: StubHook | None = None  # what it raises is the start's failure
    on_worker_stop: StubHook | None = None
    made: list[StubWorker] = field(default_factory=list)


class StubWorker(Worker):
    """A worker whose requests run as tasks of this event loop."""

    def __init__(
        self,
        worker_id: str,
        pool: str,
        script: StubScript,
        clock: Callable[[], float] = time.monotonic,
        *,
        slot: int = 0,
    ) -> None:
        super().__init__(worker_id, pool, clock, slot=slot)
        self.script = script
        self.responsive = asyncio.Event()
        self.responsive.set()
        self.reachable = True
        self.next_memory: int | None = None
        self.controls: Controls | None = None
        self.admitted = False
        self.closed = False
        self._requests: dict[str, asyncio.Task[Any]] = {}
        self._exit: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        script.made.append(self)

    @property
    def is_reachable(self) -> bool:
        """The value of `reachable`."""
        return self.reachable

    async def start(self, timeout: float) -> None:
        """Take `start_seconds`, and raise `start_error` if there is one."""
        await asyncio.wait([self._exit], timeout=min(self.script.start_seconds, timeout))
        if self.script.start_seconds > timeout:
            self.exit("was killed by SIGKILL")
            raise WorkerStartFailed(f"worker {self.id} was not ready within {timeout:g} s and was killed")
        if self.script.start_error is not None:
            self.exit("exited with status 1")
            raise self.script.start_error
        if self.script.on_worker_start is not None:
            try:
                await self.script.on_worker_start(self)
            except SnakepitError:
                self.exit("exited with status 1")
                raise
        self.tools = list(self.script.tools)

    def exit(self, description: str = "was killed by SIGKILL") -> None:
        """End at once, as a crash unless it was requested; requests are lost."""
        if not self._exit.done():
            self._exit.set_result(description)
            for task in self._requests.values():
                task.cancel()

    async def execute(self, job: Job, timeout: float | None) -> Any:
        """Run the job's tool."""
        run = self.script.tools[job.tool_name](self, job.request)
        assert isinstance(run, Coroutine)
        return StubResponse(await self._call(job.request_id, run, timeout))

    async def stream(self, job: Job, take: TakeChunk, timeout: float | None) -> None:
        """Run the job's tool, an asynchronous generator."""

        async def run() -> None:
            chunks = self.script.tools[job.tool_name](self, job.request)
            assert isinstance(chunks, AsyncIterator)
            async for chunk in chunks:
                await take(chunk)

        await self._call(job.request_id, run(), timeout)

    async def _call(self, request_id: str, run: Coroutine[Any, Any, Any], timeout: float | None) -> Any:
        task = asyncio.get_running_loop().create_task(run)
        self._requests[request_id] = task
        task.add_done_callback(lambda _: self._requests.pop(request_id, None))
        try:
            await asyncio.wait([task, self._exit], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if self._exit.done():
            raise ConnectionLost(AuthorityUnavailable(f"worker {self.id} cannot be reached"), "UNAVAILABLE")
        if not task.done():
            task.cancel()
            raise CallTimedOut(DeadlineExceeded(f"worker {self.id} did not answer in time"), "DEADLINE_EXCEEDED")
        try:
            return task.result()
        except SnakepitError as error:
            raise CallFailed(error, "UNKNOWN") from None

    async def ping(self, timeout: float) -> None:
        """Answer while `responsive` is set."""
        try:
            async with asyncio.timeout(timeout):
                await self.responsive.wait()
        except TimeoutError:
            raise CallTimedOut(DeadlineExceeded(f"worker {self.id} did not answer"), "DEADLINE_EXCEEDED") from None
        if self._exit.done():
            raise ConnectionLost(AuthorityUnavailable(f"worker {self.id} cannot be reached"), "UNAVAILABLE")

    async def await_request_end(self, request_id: str, timeout: float) -> bool:
        """Wait for the request's task."""
        task = self._requests.get(request_id)
        if task is None:
            return True
        done, _ = await asyncio.wait([task, self._exit], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)

    async def configure(self, controls: Controls) -> None:
        """Keep the controls in `controls`."""
        self.controls = controls

    async def stop(self) -> None:
        """Exit after `stop_seconds`."""
        if self.state is WorkerState.GONE:
            return
        self.state, self.stop_requested = WorkerState.STOPPING, True
        await asyncio.wait([self._exit], timeout=self.script.stop_seconds)
        if self.script.on_worker_stop is not None and not self._exit.done():
            await self.script.on_worker_stop(self)
        self.exit("exited with status 0")

    def kill(self) -> None:
        """Exit at once, on request."""
        self.stop_requested = True
        self.exit()

    async def wait_exit(self) -> str:
        """See `Worker`."""
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        """Set `closed`."""
        await self._idle.wait()
        self.closed = True

    def admit(self) -> None:
        """Set `admitted`."""
        self.admitted = True

    def revoke(self) -> None:
        """Reset `admitted`."""
        self.admitted = False

    def read_memory(self) -> None:
        """Update `memory` from `next_memory`."""
        self.memory = self.next_memory
