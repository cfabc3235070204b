"""A pool of workers: keeps them running and hands them requests."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from grpc import aio

from snakepit_otel import telemetry
from snakepit_otel.backoff import Backoff
from snakepit_otel.bridge import methods, rpc
from snakepit_otel.bridge.client import stream_error
from snakepit_otel.bridge.gateway import Chosen, TakeChunk, describe_response
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.recording import Controls
from snakepit_otel.errors import (
    PoolNotStarted,
    QueueTimeout,
    SnakepitError,
    WorkerExited,
)
from snakepit_otel.pool.choosing import Choice, choose
from snakepit_otel.pool.process import describe_exit
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.worker import State, Worker, WorkerSpec
from snakepit_otel.telemetry import names
from snakepit_otel.zero_copy.holdings import Holdings

_log = logging.getLogger("snakepit_otel.pool")
_TIME_TO_DIE = 1.0
"""Seconds in which a worker whose connection broke is expected to be seen gone."""


def _labels(pool: WorkerPool, choice: Choice, request: pb.ExecuteToolRequest, *_: Any) -> dict[str, str]:
    return {
        names.SNAKEPIT_POOL_NAME: pool.settings.name,
        names.SNAKEPIT_TOOL_NAME: pool.label(request.tool_name),
        names.SNAKEPIT_AFFINITY_OUTCOME: choice.affinity.value,
    }


def _details(_pool: WorkerPool, choice: Choice, request: pb.ExecuteToolRequest, *_: Any) -> dict[str, str]:
    details = {names.SNAKEPIT_WORKER_ID: choice.worker.id}
    if request.session_id:
        details[names.SESSION_ID] = request.session_id
    return details


class SharedMemory(NamedTuple):
    """What an authority holds for its workers' requests, and the path of the socket where they get it."""

    holdings: Holdings
    broker: Path | None


class WorkerPool:
    """`settings.size` workers for one adapter; each that ends is replaced, after a wait that grows.

    `directory` is a private one for the workers' sockets, `authority` the address they call back to.
    A request runs at most once: one whose worker dies fails with `WorkerExited`.
    """

    def __init__(
        self,
        adapter: str,
        authority: str,
        directory: str,
        settings: PoolSettings,
        environ: Mapping[str, str] | None = None,
        memory: SharedMemory | None = None,
    ) -> None:
        self.settings = settings
        self.workers: list[Worker] = []
        self._tools: frozenset[str] = frozenset()
        self._labels = telemetry.Labels()
        self._adapter = adapter
        self._authority = authority
        self._directory = directory
        self._environ = environ
        self._memory = memory or SharedMemory(Holdings(), None)
        self._keepers: list[asyncio.Task[None]] = []
        self._partings: set[asyncio.Future[None]] = set()
        self._changed = asyncio.Event()
        self._running = False
        self._controls: Controls | None = None
        telemetry.observe(self, names.METRIC_POOL_WORKER_COUNT, WorkerPool._read_workers)
        telemetry.observe(
            self,
            names.METRIC_POOL_REQUEST_ACTIVE,
            lambda me: [(sum(worker.active for worker in me.workers), {names.SNAKEPIT_POOL_NAME: me.settings.name})],
        )

    def label(self, tool: str) -> str:
        """Return a tool's name as an attribute of metrics."""
        return self._labels.of(tool, self._tools)

    async def start(self) -> None:
        """Start all workers and return when each has tried; raise what the first said if none is ready."""
        self._running = True
        first_tries = [asyncio.get_running_loop().create_future() for _ in range(self.settings.size)]
        self._keepers = [
            asyncio.get_running_loop().create_task(self._keep(slot, tried), name=f"keeper of worker {slot}")
            for slot, tried in enumerate(first_tries, 1)
        ]
        failures = [failure for failure in await asyncio.gather(*first_tries) if failure is not None]
        if len(failures) == self.settings.size:
            await self.stop()
            raise failures[0]

    async def stop(self) -> None:
        """Let every worker finish what it has, and stop it."""
        self._running = False
        self._changed.set()
        for keeper in self._keepers:
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers)
        self._keepers = []
        await asyncio.gather(*(worker.stop() for worker in self.workers), *self._partings)
        for worker in self.workers:
            self._count_exit("stop")
            worker.account_for_telemetry()
            _log.debug("worker %s has stopped", worker.id)
        self.workers.clear()

    async def record(self, controls: Controls) -> None:
        """Have all workers record so, those that are started later too.

        Returns when they do; a worker too busy to say so is waited for five seconds, and obeys later.
        """
        self._controls = controls
        await asyncio.gather(*(worker.record(controls) for worker in self.workers))

    async def execute(
        self, request: pb.ExecuteToolRequest, *, prefer: str | None, chosen: Chosen, timeout: float | None
    ) -> pb.ExecuteToolResponse:
        """Run a request on a worker; see `gateway.Workers`.

        Raises `QueueTimeout` if no worker becomes ready in time, `WorkerExited` if its worker dies,
        `DeadlineExceeded` after `timeout` seconds, `MessageTooLarge`.
        """
        choice = await self._choose(prefer)
        await chosen(choice.worker.id)
        return await self._dispatch(choice, request, timeout)

    async def stream(
        self,
        request: pb.ExecuteToolRequest,
        take: TakeChunk,
        *,
        prefer: str | None,
        chosen: Chosen,
        timeout: float | None,
    ) -> None:
        """Run a request on a worker and hand on its chunks; see `execute`."""
        choice = await self._choose(prefer)
        await chosen(choice.worker.id)
        await self._dispatch_stream(choice, request, take, timeout)

    @telemetry.observed(names.POOL_DISPATCH, labels=_labels, details=_details, result=describe_response)
    async def _dispatch(
        self, choice: Choice, request: pb.ExecuteToolRequest, timeout: float | None
    ) -> pb.ExecuteToolResponse:
        worker = choice.worker
        with worker.serving() as stub:
            try:
                response: pb.ExecuteToolResponse = await rpc.call(
                    stub, methods.EXECUTE_TOOL, request, timeout, peer=worker.peer
                )
            except aio.AioRpcError as error:
                raise await self._failure(worker, request.tool_name, error) from None
        return response

    @telemetry.observed(names.POOL_DISPATCH, labels=_labels, details=_details)
    async def _dispatch_stream(
        self, choice: Choice, request: pb.ExecuteToolRequest, take: TakeChunk, timeout: float | None
    ) -> None:
        worker = choice.worker
        with worker.serving() as stub:
            try:
                await rpc.pour(stub, methods.EXECUTE_STREAMING_TOOL, request, take, timeout, worker.peer)
            except aio.AioRpcError as error:
                raise await self._failure(worker, request.tool_name, error) from None

    async def _choose(self, prefer: str | None) -> Choice:
        if not self._running:
            raise PoolNotStarted("the pool is not running; use it inside 'async with', or start it first")
        capacity = self.settings.threads_per_worker
        choice = choose(self.workers, prefer, capacity)
        if choice is None:
            choice = await self._await_ready(prefer, capacity)
        telemetry.record(
            names.METRIC_POOL_AFFINITY_DECISIONS,
            1,
            {
                names.SNAKEPIT_POOL_NAME: self.settings.name,
                names.SNAKEPIT_AFFINITY_OUTCOME: choice.affinity.value,
            },
        )
        return choice

    async def _await_ready(self, prefer: str | None, capacity: int) -> Choice:
        timeout = self.settings.queue_timeout / 1000
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self._changed.clear()
                    await self._changed.wait()
                    if not self._running:
                        raise PoolNotStarted("the pool was stopped while the request waited")
                    choice = choose(self.workers, prefer, capacity)
                    if choice is not None:
                        return choice
        except TimeoutError:
            raise QueueTimeout(
                f"no worker of pool {self.settings.name!r} became ready within {timeout:g} s; the request did not run"
            ) from None

    async def _failure(self, worker: Worker, tool: str, error: aio.AioRpcError) -> SnakepitError:
        broken = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        status = await worker.exited(_TIME_TO_DIE) if broken else None
        if status is not None:
            return WorkerExited(
                f"worker {worker.id} {describe_exit(status)} while it ran {tool!r}; "
                "the request may have run in part and was not repeated"
            )
        return stream_error(error, f"worker {worker.id}")

    async def _keep(self, slot: int, first_try: asyncio.Future[SnakepitError | None]) -> None:
        """Keep one slot filled, for as long as the pool runs."""
        backoff = Backoff()
        generation = 0
        while True:
            generation += 1
            worker = Worker(self._spec(slot, generation), self._environ)
            if self._controls is not None:
                await worker.record(self._controls)
            self.workers.append(worker)
            started = time.monotonic()
            failure: SnakepitError | None = None
            try:
                await worker.start(self.settings.startup_timeout / 1000)
            except SnakepitError as error:
                failure = error
            if not first_try.done():
                first_try.set_result(failure)
            elif failure is not None:
                _log.error("%s", failure)
            if failure is None:
                self._memory.holdings.admit(worker.pid, worker.id)
                self._tools |= set(worker.tools)
                self._changed.set()
                status = await worker.wait()
                self._memory.holdings.dismiss(worker.pid)
                self._note_crash(worker, status)
            else:
                self._count_exit("start_failed")
            self.workers.remove(worker)
            worker.account_for_telemetry()
            parting = asyncio.ensure_future(worker.disconnect())
            self._partings.add(parting)
            parting.add_done_callback(self._partings.discard)
            await asyncio.sleep(backoff.after(time.monotonic() - started))

    def _spec(self, slot: int, generation: int) -> WorkerSpec:
        settings = self.settings
        return WorkerSpec(
            worker_id=f"{settings.name}-{slot}.{generation}",
            pool=settings.name,
            adapter=self._adapter,
            listen=f"unix:{self._directory}/{settings.name}-{slot}.{generation}.sock",
            authority=self._authority,
            threads=settings.threads_per_worker,
            max_message_bytes=settings.max_message_bytes,
            shutdown_grace=settings.shutdown_grace / 1000,
            parent=os.getpid(),
            broker=str(self._memory.broker) if self._memory.broker is not None else None,
            zero_copy=self._memory.holdings.settings.model_dump(),
            strict=self._memory.holdings.strict,
        )

    def _note_crash(self, worker: Worker, status: int) -> None:
        text = f"worker {worker.id} (pid {worker.pid}) {describe_exit(status)} with {worker.active} requests"
        _log.error("%s; it is being replaced", text)
        self._count_exit("crash")
        telemetry.emit(
            names.EVENT_WORKER_CRASH,
            {
                names.SNAKEPIT_POOL_NAME: self.settings.name,
                names.SNAKEPIT_WORKER_ID: worker.id,
                names.SNAKEPIT_WORKER_EXIT_REASON: "crash",
            },
            body=text,
        )

    def _count_exit(self, reason: str) -> None:
        telemetry.record(
            names.METRIC_WORKER_EXITS,
            1,
            {names.SNAKEPIT_POOL_NAME: self.settings.name, names.SNAKEPIT_WORKER_EXIT_REASON: reason},
        )

    def _read_workers(self) -> list[tuple[float, dict[str, str]]]:
        return [
            (
                sum(worker.state is state for worker in self.workers),
                {names.SNAKEPIT_POOL_NAME: self.settings.name, names.SNAKEPIT_WORKER_STATE: state.value},
            )
            for state in (State.STARTING, State.READY, State.STOPPING)
        ]
