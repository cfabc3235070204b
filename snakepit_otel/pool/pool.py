"""A pool of workers: takes requests, and hands each to a worker that has room for it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc
from grpc import aio

from snakepit_otel import rpc, telemetry
from snakepit_otel.adapters._adapter_loading import located
from snakepit_otel.bridge.authority.dispatcher import Job, TakeChunk, describe_response
from snakepit_otel.bridge.wire import methods
from snakepit_otel.bridge.wire.raw_messages import Chunk, ToolResponse
from snakepit_otel.bridge.wire.restart_report import Replacement
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.bridge.wire.tool_calls import stream_error
from snakepit_otel.errors import (
    AuthorityUnavailable,
    CircuitOpen,
    DeadlineExceeded,
    PoolError,
    PoolNotStarted,
    SnakepitError,
    WorkerExited,
)
from snakepit_otel.pool import status as reporting
from snakepit_otel.pool.context import PoolContext
from snakepit_otel.pool.dispatch.affinity import Choice, Wait
from snakepit_otel.pool.dispatch.anonymous_share import Permit
from snakepit_otel.pool.dispatch.circuit_breaker import BreakerState, CircuitBreaker
from snakepit_otel.pool.dispatch.queue import RequestQueue
from snakepit_otel.pool.dispatch.rejections import Rejections
from snakepit_otel.pool.dispatch.slots import WorkerSlots
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.workers.in_flight import WorkerGone
from snakepit_otel.pool.workers.launch import prepare
from snakepit_otel.pool.workers.os_process import describe_exit
from snakepit_otel.pool.workers.process import State, Suspicion, Worker
from snakepit_otel.pool.workers.recycling import ExitReason
from snakepit_otel.pool.workers.supervisor import Supervisor
from snakepit_otel.rpc.transports.grpc import rpc_error
from snakepit_otel.telemetry import names

_TIME_TO_DIE = 1.0
"""Seconds in which a worker whose connection broke is expected to be seen gone."""
_FIRST_RETRY = 0.02
"""Seconds; doubled from retry to retry, and drawn below that."""
_EVENTS = {
    BreakerState.OPEN: names.EVENT_CIRCUIT_BREAKER_OPENED,
    BreakerState.HALF_OPEN: names.EVENT_CIRCUIT_BREAKER_HALF_OPEN,
    BreakerState.CLOSED: names.EVENT_CIRCUIT_BREAKER_CLOSED,
}
_Chosen = Choice[Worker]
_Dispatch = Callable[[_Chosen, Job], Awaitable[Any]]


def _labels(pool: WorkerPool, choice: _Chosen, job: Job, *_: Any) -> dict[str, str]:
    return {
        names.SNAKEPIT_POOL_NAME: pool.name,
        names.SNAKEPIT_TOOL_NAME: pool.label(job.request.tool_name),
        names.SNAKEPIT_AFFINITY_OUTCOME: choice.outcome.value,
        names.SNAKEPIT_AFFINITY_REASON: choice.reason.value,
    }


def _details(_pool: WorkerPool, choice: _Chosen, job: Job, *_: Any) -> dict[str, str]:
    return {names.SNAKEPIT_WORKER_ID: choice.worker.id, **_session(job)}


def _session(job: Job) -> dict[str, str]:
    return {names.SESSION_ID: job.request.session_id} if job.request.session_id else {}


class WorkerPool:
    """`settings.size` workers for one adapter, and the line in front of them.

    A request runs at most once, and one whose worker dies fails with `WorkerExited`; unless it is idempotent: then
    it is run again. What cannot be done before its deadline is refused rather than begun.
    """

    def __init__(self, name: str, adapter: str, settings: PoolSettings, context: PoolContext) -> None:
        self.name = name
        self.adapter = adapter
        # Workers that start later are to find it, wherever the program is by then.
        self._located = located(adapter)
        self.settings = settings
        self.answered = self.failed = self.retried = 0
        self.slots = WorkerSlots(name, settings)
        self.anonymous = self.slots.anonymous_share()
        self.breaker = CircuitBreaker(
            settings.breaker_failures, settings.breaker_reset / 1000, time.monotonic, self._breaker_changed
        )
        self.rejections = Rejections(name)
        self.tools: frozenset[str] = frozenset()
        self._labels = telemetry.Labels()
        self._context = context
        self.supervisor = Supervisor(name, settings, self._make, self)
        self._jobs = 0
        self._waits: set[asyncio.Task[None]] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self.running = False
        self._taking = False
        self._is_over = True
        self._controls: Controls | None = None
        reporting.observe(self)

    @property
    def queue(self) -> RequestQueue[Worker]:
        """The requests that wait for a worker, but for those of anonymous callers that may not yet."""
        return self.slots.queue

    @property
    def waiting(self) -> int:
        """The number of requests that wait."""
        return len(self.queue) + len(self.anonymous.queue)

    @property
    def longest_wait(self) -> float:
        """Seconds that the first of them has waited; 0 where there is none."""
        return max(self.queue.longest_wait, self.anonymous.queue.longest_wait)

    @property
    def workers(self) -> list[Worker]:
        """The workers, in whatever state."""
        return self.supervisor.workers

    def label(self, tool: str) -> str:
        """Return a tool's name as an attribute of metrics."""
        return self._labels.of(tool, self.tools)

    async def start(self) -> None:
        """Start all workers and return when each has tried; raise what the first said if none is ready."""
        self.running = True
        await self.supervisor.start()
        self._taking, self._is_over = True, False

    async def drain(self) -> None:
        """Take no more requests, and return when those there are have ended, or after `shutdown_grace`."""
        self._taking = False
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.shutdown_grace / 1000):
                await self._quiet.wait()
        self._is_over = True
        self._fail_all(self._not_running)

    async def stop(self) -> None:
        """Stop the workers; `drain` comes first."""
        self._taking, self._is_over = False, True
        await self.supervisor.stop()
        if self._waits:
            await asyncio.wait(self._waits)
        self.rejections.report()
        self.running = False

    async def replace_all(self, told: Callable[[Replacement], None]) -> None:
        """Replace all workers, one after the other, each only when its successor is ready; `told` hears of each."""
        if not self._taking:
            raise self._not_running()
        await self.supervisor.replacements.replace_all(told)

    async def record(self, controls: Controls) -> None:
        """Have all workers record so, those that are started later too.

        Returns when they do; a worker too busy to say so is waited for five seconds, and obeys later.
        """
        self._controls = controls
        await asyncio.gather(*(worker.record(controls) for worker in self.workers))

    async def execute(self, job: Job) -> ToolResponse:
        """Run a request on a worker.

        Raises `PoolSaturated`, `QueueTimeout`, `WorkerBusy`, `SessionWorkerUnavailable`, `CircuitOpen` and
        `PoolNotStarted` for one that did not run; `WorkerExited` if its worker dies, `DeadlineExceeded`,
        `MessageTooLarge`.
        """
        response: ToolResponse = await self._run(job, self._dispatch)
        return response

    async def stream(self, job: Job, take: TakeChunk) -> None:
        """Run a request on a worker and hand on its chunks; see `execute`.

        An idempotent one is run again only as long as nothing has been handed on.
        """

        async def take_the_first(chunk: Chunk) -> None:
            job.idempotent = False
            await take(chunk)

        async def dispatch(choice: _Chosen, job: Job) -> None:
            await self._dispatch_stream(choice, job, take_the_first if job.idempotent else take)

        await self._run(job, dispatch)

    # The way of a request

    async def _run(self, job: Job, dispatch: _Dispatch) -> Any:
        if not self._taking:
            error = self._not_running()
            self.rejections.count(error)
            raise error
        self._jobs += 1
        self._quiet.clear()
        try:
            job.permit = await self._admit(job)
            return await self._run_again_if_lost(job, dispatch)
        finally:
            _release_permit(job)
            self._jobs -= 1
            self._note_if_quiet()

    async def _admit(self, job: Job) -> Permit | None:
        """Take an anonymous request's part of the pool, waiting for it if need be; others need none."""
        if job.peer.is_known:
            self.anonymous.on_known_caller()
            return None
        part = self.anonymous.acquire()
        if part is not None:
            return part
        try:
            return await self._queue_for_permit(job)
        except PoolError as error:
            self.rejections.count(error)
            raise

    async def _run_again_if_lost(self, job: Job, dispatch: _Dispatch) -> Any:
        """Run a request; again where its worker was lost and that does no harm."""
        choice = await self._find(job)
        for tries in range(self.settings.max_retries):
            try:
                return await self._run_once(choice, job, dispatch)
            except (WorkerExited, AuthorityUnavailable) as lost:
                if not job.idempotent or not await self._may_run_again(job, tries):
                    raise
                try:
                    choice = await self._find(job)
                except PoolError:
                    # That it was lost is the news.
                    raise lost from None
                self.retried += 1
                telemetry.record(names.METRIC_POOL_RETRIES, 1, {names.SNAKEPIT_POOL_NAME: self.name})
        return await self._run_once(choice, job, dispatch)

    async def _may_run_again(self, job: Job, tries: int) -> bool:
        # At random, so that what a worker had does not fall upon the next one all at once.
        wait = _FIRST_RETRY * 2**tries * random.random()  # noqa: S311 - no secret
        if job.deadline is not None and time.monotonic() + wait >= job.deadline:
            return False
        await asyncio.sleep(wait)
        # The session's own worker is gone, so any other will do.
        job.prefer = None
        return True

    async def _run_once(self, choice: _Chosen, job: Job, dispatch: _Dispatch) -> Any:
        try:
            result = await dispatch(choice, job)
        except BaseException:
            self.failed += 1
            self.breaker.on_abandoned()
            raise
        self.answered += 1
        self.breaker.on_success()
        self.supervisor.answered(choice.worker)
        return result

    async def _find(self, job: Job) -> _Chosen:
        """Return a worker, with a place on it taken; the request did not run if this raises."""
        try:
            # What was taken before the pool began to stop may still be run again, as long as others run.
            if self._is_over:
                raise self._not_running()
            if not self.breaker.allow():
                raise self._circuit_open()
            try:
                choice = self.slots.acquire(job.prefer)
                if isinstance(choice, Wait):
                    choice = await self._queue(job, choice)
            except BaseException:
                self.breaker.on_abandoned()
                raise
        except PoolError as error:
            self.rejections.count(error)
            raise
        telemetry.record(
            names.METRIC_POOL_AFFINITY_DECISIONS,
            1,
            {
                names.SNAKEPIT_POOL_NAME: self.name,
                names.SNAKEPIT_AFFINITY_OUTCOME: choice.outcome.value,
                names.SNAKEPIT_AFFINITY_REASON: choice.reason.value,
            },
        )
        return choice

    @telemetry.observed(
        names.POOL_QUEUE,
        labels=lambda me, *_: {names.SNAKEPIT_POOL_NAME: me.name},
        details=lambda _me, job, *_: _session(job),
    )
    async def _queue(self, job: Job, wait: Wait) -> _Chosen:
        """Wait in line for a place."""
        tool = job.request.tool_name
        return await self.slots.wait(wait, tool, self.label(tool), job.deadline)

    @telemetry.observed(
        names.POOL_QUEUE,
        labels=lambda me, *_: {names.SNAKEPIT_POOL_NAME: me.name},
        details=lambda _me, job, *_: _session(job),
    )
    async def _queue_for_permit(self, job: Job) -> Permit:
        """Wait in line for a part of what anonymous callers may have."""
        tool = job.request.tool_name
        return await self.slots.wait_for_permit(self.anonymous, tool, self.label(tool), job.deadline)

    @telemetry.observed(names.POOL_DISPATCH, labels=_labels, details=_details, result=describe_response)
    async def _dispatch(self, choice: _Chosen, job: Job) -> ToolResponse:
        async def call(worker: Worker, left: float | None) -> Any:
            return await rpc.call(worker.stub, methods.EXECUTE_TOOL, job.request, left, job.headers, worker.peer)

        response: ToolResponse = await self._serve(choice.worker, job, call)
        return response

    @telemetry.observed(names.POOL_DISPATCH, labels=_labels, details=_details)
    async def _dispatch_stream(self, choice: _Chosen, job: Job, take: TakeChunk) -> None:
        async def pour(worker: Worker, left: float | None) -> None:
            method = methods.EXECUTE_STREAMING_TOOL
            await rpc.pour(worker.stub, method, job.request, take, left, worker.peer, job.headers)

        await self._serve(choice.worker, job, pour)

    async def _serve(self, worker: Worker, job: Job, call: Callable[[Worker, float | None], Awaitable[Any]]) -> Any:
        """Have a worker answer; its place is free again once nothing of the request runs there any more."""
        tool, started = job.request.tool_name, time.monotonic()
        goes_on: ExitReason | None = None
        try:
            await job.chosen(worker.id)
            left = _left(job)
            goes_on = ExitReason.CANCELLED
            with worker.in_flight.until_end():
                result = await call(worker, left)
        except WorkerGone:
            goes_on = None
            raise await _exited(worker, tool) from None
        except aio.AioRpcError as error:
            goes_on = ExitReason.DEADLINE if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else None
            raise await self._failure(worker, tool, error) from None
        else:
            goes_on = None
            self.slots.times.add(self.label(tool), time.monotonic() - started)
            return result
        finally:
            if goes_on is None:
                self.slots.release(worker)
            else:
                self._await_end(worker, job, goes_on)

    async def _failure(self, worker: Worker, tool: str, error: aio.AioRpcError) -> SnakepitError:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            if worker.state is State.STOPPING:
                # It is sending its telemetry, which its caller need not wait for.
                return WorkerExited(
                    f"worker {worker.id} was stopped while it ran {tool!r} ({worker.exit_reason}); "
                    "the request may have run in part"
                )
            if await worker.exited(_TIME_TO_DIE) is not None:
                return await _exited(worker, tool)
            self.supervisor.heartbeats.suspect(worker, Suspicion.CONNECTION)
        return stream_error(rpc_error(error), f"worker {worker.id}")

    def _await_end(self, worker: Worker, job: Job, reason: ExitReason) -> None:
        """Keep the place of a request that nobody waits for any more, until the worker says that it has ended."""
        worker.abandon()
        if job.permit is not None:
            job.permit.retain()
        task = asyncio.get_running_loop().create_task(self._see_it_end(worker, job, reason))
        self._waits.add(task)
        task.add_done_callback(self._waits.discard)

    async def _see_it_end(self, worker: Worker, job: Job, reason: ExitReason) -> None:
        try:
            if not await worker.end_of(job.request.metadata[methods.REQUEST_ID], self.settings.cancel_grace / 1000):
                self.supervisor.replacements.replace_soon(worker, reason)
                await worker.wait()
        finally:
            worker.end_abandoned()
            self.slots.release(worker)
            _release_permit(job)
            # This task is still among those that are waited for.
            asyncio.get_running_loop().call_soon(self._note_if_quiet)

    def _note_if_quiet(self) -> None:
        if not self._jobs and not self._waits:
            self._quiet.set()

    # What the supervisor says

    def serves(self, worker: Worker) -> None:
        """Give the worker requests from here on."""
        self.tools |= set(worker.tools)
        self.slots.add(worker)

    def serves_no_more(self, worker: Worker) -> None:
        """Give it none any more."""
        self.slots.remove(worker)

    def suspects(self, worker: Worker) -> None:  # noqa: ARG002 - it says so itself
        """Set it aside, as long as there are others."""
        self.slots.assign_all()

    def trusts(self, worker: Worker) -> None:
        """Let it have its share again."""
        self.slots.assign(worker)

    def ready(self, worker: Worker) -> None:
        """Know its process for one of ours."""
        self._context.buffer_store.add_worker(worker.pid, worker.id)

    def dismissed(self, worker: Worker) -> None:
        """Take nothing from it any more: it is about to be killed, or gone."""
        self._context.fencing_tokens.revoke(worker.id)
        self._context.buffer_store.remove_worker(worker.pid)
        self._context.pid_file.remove(worker.pid)

    def crashed(self, worker: Worker) -> None:
        """Count that it ended unasked: once, however many requests it had."""
        if worker.active:
            self.breaker.on_failure()

    def barred(self) -> None:
        """Have nobody wait for workers that are not started."""
        if not self.slots.serving:
            self.breaker.trip()

    def _make(self, slot: int, generation: int) -> Worker:
        return prepare(self.name, self._located, self.settings, self._context, f"{slot}.{generation}", self._controls)

    # Telling

    def _breaker_changed(self, state: BreakerState) -> None:
        telemetry.emit(_EVENTS[state], {names.SNAKEPIT_POOL_NAME: self.name}, body=f"pool {self.name}: {state}")
        if state is BreakerState.OPEN:
            self._fail_all(self._circuit_open)

    def _fail_all(self, error: Callable[[], Exception]) -> None:
        self.queue.fail_all(error)
        self.anonymous.queue.fail_all(error)

    def _circuit_open(self) -> CircuitOpen:
        return CircuitOpen(
            f"workers of pool {self.name!r} die of its requests, or of their start; the next request is tried in "
            f"{self.breaker.retry_after:.1f} s; this one did not run"
        )

    def _not_running(self) -> PoolNotStarted:
        return PoolNotStarted(f"pool {self.name!r} is not running, or about to stop; the request did not run")


def _release_permit(job: Job) -> None:
    if job.permit is not None:
        job.permit.release()


def _left(job: Job) -> float | None:
    if job.deadline is None:
        return None
    left = job.deadline - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded("the request's deadline passed before a worker began it; it did not run")
    return left


async def _exited(worker: Worker, tool: str) -> WorkerExited:
    status = await worker.wait()
    # Or who hears of it would send the next request to the same worker, and its end would count as an idle one's.
    await worker.removed.wait()
    why = f"; it was being replaced ({worker.exit_reason})" if worker.exit_reason is not None else ""
    return WorkerExited(
        f"worker {worker.id} {describe_exit(status)} while it ran {tool!r}{why}; the request may have run in part"
    )
