"""The way of a request through a pool: permit, slot, worker, retry; and its end after its caller has gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from snakepit_otel import telemetry
from snakepit_otel.bridge.authority.jobs import (
    CallFailed,
    CallTimedOut,
    ConnectionLost,
    Job,
    Permit,
    TakeChunk,
    describe_response,
)
from snakepit_otel.errors import (
    AuthorityUnavailable,
    CircuitOpen,
    DeadlineExceeded,
    PoolError,
    PoolNotStarted,
    WorkerExited,
)
from snakepit_otel.pool.dispatch.affinity import Choice, Wait
from snakepit_otel.pool.dispatch.circuit_breaker import BreakerState, CircuitBreaker
from snakepit_otel.pool.dispatch.rejections import Rejections
from snakepit_otel.pool.dispatch.retry import may_retry
from snakepit_otel.pool.dispatch.slots import WorkerSlots
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.workers.base import Suspicion, Worker, WorkerState
from snakepit_otel.pool.workers.fleet import Fleet
from snakepit_otel.pool.workers.in_flight import WorkerGone
from snakepit_otel.pool.workers.recycling import ExitReason
from snakepit_otel.pool.workers.replacement import Replacer
from snakepit_otel.telemetry import names

_LOST_WORKER_EXIT_S = 1.0  # for a worker whose connection broke to be seen gone
_EVENTS = {
    BreakerState.OPEN: names.EVENT_CIRCUIT_BREAKER_OPENED,
    BreakerState.HALF_OPEN: names.EVENT_CIRCUIT_BREAKER_HALF_OPEN,
    BreakerState.CLOSED: names.EVENT_CIRCUIT_BREAKER_CLOSED,
}
_Dispatch = Callable[[Choice, Job], Awaitable[Any]]


def _queue_labels(runner: RequestRunner, *_: Any) -> dict[str, str]:
    return {names.SNAKEPIT_POOL_NAME: runner.name}


def _session(_runner: RequestRunner, job: Job, *_: Any) -> dict[str, str]:
    return {names.SESSION_ID: job.session_id} if job.session_id else {}


def _labels(runner: RequestRunner, choice: Choice, job: Job, *_: Any) -> dict[str, str]:
    return {
        names.SNAKEPIT_POOL_NAME: runner.name,
        names.SNAKEPIT_TOOL_NAME: runner.label(job.tool_name),
        names.SNAKEPIT_AFFINITY_OUTCOME: choice.outcome.value,
        names.SNAKEPIT_AFFINITY_REASON: choice.reason.value,
    }


def _details(runner: RequestRunner, choice: Choice, job: Job, *_: Any) -> dict[str, str]:
    return {names.SNAKEPIT_WORKER_ID: choice.worker.id, **_session(runner, job)}


class RequestRunner:
    """Runs the requests of one pool: once, unless idempotent; not at all if the deadline cannot be met."""

    def __init__(
        self, settings: PoolSettings, fleet: Fleet, replacer: Replacer, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = fleet.pool
        self.tools: frozenset[str] = frozenset()
        self.answered = self.failed = self.retried = 0
        self.slots = WorkerSlots(fleet.pool, settings, clock)
        self.anonymous = self.slots.anonymous
        self.breaker = CircuitBreaker(
            settings.breaker_failures, settings.breaker_reset / 1000, clock, self._on_breaker_changed
        )
        self.rejections = Rejections(fleet.pool, clock)
        self.is_accepting = False
        self.is_over = True  # accepted requests may not be run again either
        self._settings = settings
        self._fleet = fleet
        self._replacer = replacer
        self._clock = clock
        self._labels = telemetry.Labels()
        self._jobs = 0
        self._abandoned: set[asyncio.Task[None]] = set()
        self._drained = asyncio.Event()
        self._drained.set()

    def label(self, tool: str) -> str:
        """Return a tool's name as an attribute of metrics."""
        return self._labels.of(tool, self.tools)

    def accept(self) -> None:
        """Accept requests from now on."""
        self.is_accepting, self.is_over = True, False

    async def drain(self) -> None:
        """Refuse new requests, and return when the present ones have ended, or after `shutdown_grace`."""
        self.is_accepting = False
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.shutdown_grace / 1000):
                await self._drained.wait()
        self.close()
        self._fail_all(self.not_running)

    def close(self) -> None:
        """Refuse all requests from now on, retries too."""
        self.is_accepting, self.is_over = False, True

    async def wait_abandoned(self) -> None:
        """Return when no abandoned request runs any more; the workers have been stopped."""
        if self._abandoned:
            await asyncio.wait(self._abandoned)

    async def execute(self, job: Job) -> Any:
        """Run a request on a worker and return its response.

        Raises `PoolSaturated`, `QueueTimeout`, `WorkerBusy`, `SessionWorkerUnavailable`, `CircuitOpen` and
        `PoolNotStarted` for one that did not run; `WorkerExited` if its worker dies, `DeadlineExceeded`,
        `MessageTooLarge`.
        """
        return await self._run(job, self._dispatch)

    async def stream(self, job: Job, take: TakeChunk) -> None:
        """Run a request and await `take` for each chunk; see `execute`. There are no retries after the first chunk."""

        async def take_first(chunk: Any) -> None:
            job.idempotent = False
            await take(chunk)

        async def dispatch(choice: Choice, job: Job) -> None:
            await self._dispatch_stream(choice, job, take_first if job.idempotent else take)

        await self._run(job, dispatch)

    async def _run(self, job: Job, dispatch: _Dispatch) -> Any:
        if not self.is_accepting:
            error = self.not_running()
            error.tool = job.tool_name
            self.rejections.count(error)
            raise error
        self._jobs += 1
        self._drained.clear()
        try:
            job.permit = await self._permit(job)
            return await self._run_with_retries(job, dispatch)
        except (PoolError, AuthorityUnavailable) as error:
            error.pool, error.tool = self.name, job.tool_name
            raise
        finally:
            _release_permit(job)
            self._jobs -= 1
            self._update_drained()

    async def _permit(self, job: Job) -> Permit | None:
        if job.peer.is_known:
            self.anonymous.on_known_caller()
            return None
        permit = self.anonymous.acquire()
        if permit is not None:
            return permit
        try:
            return await self._queue_for_permit(job)
        except PoolError as error:
            self.rejections.count(error)
            raise

    async def _run_with_retries(self, job: Job, dispatch: _Dispatch) -> Any:
        choice = await self._acquire(job)
        for attempt in range(self._settings.max_retries):
            try:
                return await self._run_once(choice, job, dispatch)
            except (WorkerExited, AuthorityUnavailable) as lost:
                if not job.idempotent or not await may_retry(job, attempt, self._clock):
                    raise
                try:
                    choice = await self._acquire(job)
                except PoolError:
                    # The loss is the cause that the caller needs.
                    raise lost from None
                self.retried += 1
                telemetry.record(names.METRIC_POOL_RETRIES, 1, {names.SNAKEPIT_POOL_NAME: self.name})
        return await self._run_once(choice, job, dispatch)

    async def _run_once(self, choice: Choice, job: Job, dispatch: _Dispatch) -> Any:
        try:
            result = await dispatch(choice, job)
        except BaseException:
            self.failed += 1
            self.breaker.on_abandoned()
            raise
        self.answered += 1
        self.breaker.on_success()
        self._fleet.on_completed(choice.worker)
        if choice.worker.assigned_requests >= self._settings.worker_max_requests:
            self._replacer.replace_soon(choice.worker, ExitReason.MAX_REQUESTS)
        return result

    async def _acquire(self, job: Job) -> Choice:
        try:
            # While draining, requests accepted before may still be run again.
            if self.is_over:
                raise self.not_running()
            if not self.breaker.allow():
                raise self._circuit_open()
            try:
                choice = self.slots.acquire(job.preferred_worker)
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

    @telemetry.observed(names.POOL_QUEUE, labels=_queue_labels, details=_session)
    async def _queue(self, job: Job, wait: Wait) -> Choice:
        return await self.slots.wait(wait, job.tool_name, self.label(job.tool_name), job.deadline)

    @telemetry.observed(names.POOL_QUEUE, labels=_queue_labels, details=_session)
    async def _queue_for_permit(self, job: Job) -> Permit:
        tool = job.tool_name
        return await self.slots.wait_for_permit(tool, self.label(tool), job.deadline)

    @telemetry.observed(names.POOL_DISPATCH, labels=_labels, details=_details, result=describe_response)
    async def _dispatch(self, choice: Choice, job: Job) -> Any:
        return await self._serve(choice.worker, job, None)

    @telemetry.observed(names.POOL_DISPATCH, labels=_labels, details=_details)
    async def _dispatch_stream(self, choice: Choice, job: Job, take: TakeChunk) -> None:
        await self._serve(choice.worker, job, take)

    async def _serve(self, worker: Worker, job: Job, take: TakeChunk | None) -> Any:
        """Run a request on a worker; the slot is released once nothing of the request runs there any more."""
        started = self._clock()
        abandoned: ExitReason | None = None
        try:
            await job.on_assigned(worker.id)
            left = self._time_left(job)
            abandoned = ExitReason.CANCELLED
            with worker.until_gone():
                result = await (worker.execute(job, left) if take is None else worker.stream(job, take, left))
        except WorkerGone:
            abandoned = None
            raise await _worker_exited(worker, job) from None
        except CallFailed as failure:
            abandoned = ExitReason.DEADLINE if isinstance(failure, CallTimedOut) else None
            raise await self._failure(worker, job, failure, started) from None
        else:
            abandoned = None
            self.slots.times.add(self.label(job.tool_name), self._clock() - started)
            return result
        finally:
            if abandoned is None:
                self.slots.release(worker)
            else:
                self._abandon(worker, job, abandoned)

    def _time_left(self, job: Job) -> float | None:
        if job.deadline is None:
            return None
        left = job.deadline - self._clock()
        if left <= 0:
            raise DeadlineExceeded(
                f"the deadline of a request for {job.tool_name!r} passed before a worker began it; it did not run",
                may_have_run=False,
            )
        return left

    async def _failure(self, worker: Worker, job: Job, failure: CallFailed, started: float) -> Exception:
        if isinstance(failure, CallTimedOut):
            return DeadlineExceeded(
                f"worker {worker.id} did not end {job.tool_name!r} within the request's deadline: it had "
                f"{self._clock() - started:.3g} s for it, and may still be running it",
                worker=worker.id,
            )
        if isinstance(failure, ConnectionLost):
            if worker.state is WorkerState.STOPPING:
                # The worker delivers its telemetry, for which the caller need not wait.
                return WorkerExited(
                    f"worker {worker.id} was stopped while it ran {job.tool_name!r} ({worker.exit_reason}); "
                    "the request may have run in part",
                    worker=worker.id,
                )
            if await worker.exited(_LOST_WORKER_EXIT_S) is not None:
                return await _worker_exited(worker, job)
            self._fleet.suspect(worker, Suspicion.CONNECTION)
        return failure.error

    def _abandon(self, worker: Worker, job: Job, reason: ExitReason) -> None:
        """Keep the slot of a request for which no caller waits any more, until the request has ended."""
        worker.abandon()
        if job.permit is not None:
            job.permit.retain()
        task = asyncio.get_running_loop().create_task(self._follow_abandoned(worker, job, reason))
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)

    async def _follow_abandoned(self, worker: Worker, job: Job, reason: ExitReason) -> None:
        try:
            if not await worker.await_request_end(job.request_id, self._settings.cancel_grace / 1000):
                self._replacer.replace_soon(worker, reason)
                await worker.wait()
        finally:
            worker.end_abandoned()
            self.slots.release(worker)
            _release_permit(job)
            # Later, as this task is still in the set.
            asyncio.get_running_loop().call_soon(self._update_drained)

    def _update_drained(self) -> None:
        if not self._jobs and not self._abandoned:
            self._drained.set()

    def _on_breaker_changed(self, state: BreakerState) -> None:
        telemetry.emit(_EVENTS[state], {names.SNAKEPIT_POOL_NAME: self.name}, body=f"pool {self.name}: {state}")
        if state is BreakerState.OPEN:
            self._fail_all(self._circuit_open)

    def _fail_all(self, error: Callable[[], Exception]) -> None:
        self.slots.queue.fail_all(error)
        self.anonymous.queue.fail_all(error)

    def _circuit_open(self) -> CircuitOpen:
        return CircuitOpen(
            f"workers of pool {self.name!r} die of its requests, or of their start; the next request is tried in "
            f"{self.breaker.retry_after:.1f} s; this one did not run",
            pool=self.name,
            retry_after=self.breaker.retry_after,
        )

    def not_running(self) -> PoolNotStarted:
        """Return the error of a request that is refused as the pool does not run."""
        why = f"pool {self.name!r} is not running, or about to stop; the request did not run"
        return PoolNotStarted(why, pool=self.name)


def _release_permit(job: Job) -> None:
    if job.permit is not None:
        job.permit.release()


async def _worker_exited(worker: Worker, job: Job) -> WorkerExited:
    description = await worker.wait()
    # Wait until the worker is removed: a caller that retries at once must not be routed back to it.
    await worker.removed.wait()
    replaced = f"; it was being replaced ({worker.exit_reason})" if worker.exit_reason is not None else ""
    return WorkerExited(
        f"worker {worker.id} {description} while it ran {job.tool_name!r}{replaced}; the request may have run in part",
        worker=worker.id,
    )
