"""One run of a request on a worker, and its end after its caller has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from snakepit_otel.bridge.authority.jobs import CallFailed, CallTimedOut, ConnectionLost, Job, TakeChunk
from snakepit_otel.bridge.wire.failures import failure_in
from snakepit_otel.errors import DeadlineExceeded, WorkerExited
from snakepit_otel.pool.dispatch.slots import WorkerSlots
from snakepit_otel.pool.workers.base import Suspicion, Worker, WorkerState
from snakepit_otel.pool.workers.fleet import Fleet
from snakepit_otel.pool.workers.in_flight import WorkerGone
from snakepit_otel.pool.workers.recycling import ExitReason
from snakepit_otel.pool.workers.replacement import Replacer

_LOST_WORKER_EXIT_S = 1.0  # for a worker whose connection broke to be seen gone


class WorkerRuns:
    """Runs requests on workers that were chosen for them; `on_end` is called after the end of abandoned ones."""

    def __init__(
        self,
        slots: WorkerSlots,
        fleet: Fleet,
        replacer: Replacer,
        clock: Callable[[], float],
        on_end: Callable[[], None],
    ) -> None:
        self._slots = slots
        self._fleet = fleet
        self._replacer = replacer
        self._clock = clock
        self._on_end = on_end
        self._cancel_grace = fleet.settings.cancel_grace / 1000
        self._abandoned: set[asyncio.Task[None]] = set()

    @property
    def abandoned(self) -> int:
        """The number of requests that run on without a caller."""
        return len(self._abandoned)

    async def wait_abandoned(self) -> None:
        """Return when no abandoned request runs any more; the workers have been stopped."""
        if self._abandoned:
            await asyncio.wait(self._abandoned)

    async def run(self, worker: Worker, job: Job, take: TakeChunk | None) -> Any:
        """Run a request on a worker; the slot is released once nothing of the request runs there any more."""
        started = self._clock()
        abandoned: ExitReason | None = None
        worker.running[job.request_id] = job
        try:
            assigned = job.on_assigned(worker.id)
            if assigned is not None:
                await assigned
            left = None if job.deadline is None else self._time_left(job, job.deadline)
            abandoned = ExitReason.CANCELLED
            result: Any
            with worker.until_gone():
                result = await (worker.execute(job, left) if take is None else worker.stream(job, take, left))
        except WorkerGone:
            abandoned = None
            raise await _worker_exited(worker, job) from None
        except CallFailed as failure:
            abandoned = ExitReason.DEADLINE if isinstance(failure, CallTimedOut) else None
            job.failure, job.seconds = failure.failure, self._clock() - started
            raise await self._failure(worker, job, failure, started) from None
        else:
            abandoned = None
            job.seconds = seconds = self._clock() - started
            self._slots.times.add(job.label, seconds)
            if take is None and not result.success:
                job.failure = failure_in(result.error_message)
            return result
        finally:
            if abandoned is None:
                self._release(worker, job)
            else:
                self._abandon(worker, job, abandoned)

    def _release(self, worker: Worker, job: Job) -> None:
        worker.running.pop(job.request_id, None)
        self._slots.release(worker)

    def _time_left(self, job: Job, deadline: float) -> float:
        left = deadline - self._clock()
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
        for held in (job.permit, job.listing):
            if held is not None:
                held.retain()
        task = asyncio.get_running_loop().create_task(self._follow_abandoned(worker, job, reason))
        self._abandoned.add(task)
        task.add_done_callback(self._on_abandoned_end)

    def _on_abandoned_end(self, task: asyncio.Task[None]) -> None:
        self._abandoned.discard(task)
        self._on_end()

    async def _follow_abandoned(self, worker: Worker, job: Job, reason: ExitReason) -> None:
        try:
            if not await worker.await_request_end(job.request_id, self._cancel_grace):
                self._replacer.replace_soon(worker, reason)
                await worker.wait()
        finally:
            worker.end_abandoned()
            self._release(worker, job)
            job.release_permit()
            if job.listing is not None:
                job.listing.release()


async def _worker_exited(worker: Worker, job: Job) -> WorkerExited:
    description = await worker.wait()
    # Wait until the worker is removed: a caller that retries at once must not be routed back to it.
    await worker.removed.wait()
    replaced = f"; it was being replaced ({worker.exit_reason})" if worker.exit_reason is not None else ""
    return WorkerExited(
        f"worker {worker.id} {description} while it ran {job.tool_name!r}{replaced}; the request may have run in part",
        worker=worker.id,
    )
