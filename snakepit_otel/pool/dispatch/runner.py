"""The way of a request through a pool: permit, slot, worker, retry; and its end after its caller has gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from snakepit_otel import telemetry
from snakepit_otel.bridge.authority.jobs import (
    Job,
    Permit,
    TakeChunk,
    describe_response,
)
from snakepit_otel.bridge.authority.tool_error_log import Place
from snakepit_otel.bridge.authority.tool_outcomes import ToolOutcomes
from snakepit_otel.errors import (
    AuthorityUnavailable,
    CircuitOpen,
    DeadlineExceeded,
    PoolError,
    PoolNotStarted,
    ToolRefused,
)
from snakepit_otel.pool.dispatch.affinity import Choice, Wait
from snakepit_otel.pool.dispatch.circuit_breaker import BreakerState, CircuitBreaker
from snakepit_otel.pool.dispatch.rejections import Rejections
from snakepit_otel.pool.dispatch.retry import Retries, RetryPlan
from snakepit_otel.pool.dispatch.slots import WorkerSlots
from snakepit_otel.pool.dispatch.worker_runs import WorkerRuns
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.workers.base import Worker
from snakepit_otel.pool.workers.fleet import Fleet
from snakepit_otel.pool.workers.recycling import ExitReason
from snakepit_otel.pool.workers.replacement import Replacer
from snakepit_otel.telemetry import AttributeSet, Details, names
from snakepit_otel.telemetry._events import mark
from snakepit_otel.telemetry._labels import LabelSets

_EVENTS = {
    BreakerState.OPEN: names.EVENT_CIRCUIT_BREAKER_OPENED,
    BreakerState.HALF_OPEN: names.EVENT_CIRCUIT_BREAKER_HALF_OPEN,
    BreakerState.CLOSED: names.EVENT_CIRCUIT_BREAKER_CLOSED,
}
_Dispatch = Callable[[Choice, Job], Awaitable[Any]]


def _queue_labels(runner: RequestRunner, *_: Any) -> AttributeSet:
    return runner.pool_labels


def _session(_runner: RequestRunner, job: Job, *_: Any) -> Details | None:
    return Details.of_text(names.SESSION_ID, job.session_id) if job.session_id else None


def _labels(runner: RequestRunner, choice: Choice, job: Job, *_: Any) -> AttributeSet:
    return runner.affinity_labels(choice).plus(runner.tool_labels.of(job.label))


def _details(_runner: RequestRunner, choice: Choice, job: Job, *_: Any) -> Details:
    of_worker = choice.worker.details
    if not job.session_id and job.attempt == 1:
        return of_worker
    session = {names.SESSION_ID: job.session_id} if job.session_id else {}
    attempt = {names.SNAKEPIT_REQUEST_ATTEMPTS: job.attempt} if job.attempt > 1 else {}
    return Details({**of_worker.values, **session, **attempt})


class RequestRunner:
    """Runs the requests of one pool: once, unless idempotent; not at all if the deadline cannot be met."""

    def __init__(
        self, settings: PoolSettings, fleet: Fleet, replacer: Replacer, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = fleet.pool
        self.tools: frozenset[str] = frozenset()
        self.idempotent_tools: frozenset[str] = frozenset()
        self.outcomes = ToolOutcomes(fleet.pool, clock)
        self.failed = self.retried = 0
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
        self.pool_labels = telemetry.interned({names.SNAKEPIT_POOL_NAME: self.name})
        self.tool_labels = LabelSets(names.SNAKEPIT_TOOL_NAME)
        self._affinity_labels: dict[tuple[str, str], AttributeSet] = {}
        self._jobs = 0
        self._retries = Retries(settings.max_retries, clock)
        self._runs = WorkerRuns(self.slots, fleet, replacer, clock, self._update_drained)
        self.wait_abandoned = self._runs.wait_abandoned
        self._drained = asyncio.Event()
        self._drained.set()

    def label(self, tool: str) -> str:
        """Return a tool's name as an attribute of metrics."""
        return self._labels.of(tool, self.tools)

    def affinity_labels(self, choice: Choice) -> AttributeSet:
        """Return a choice as attributes of metrics."""
        found = self._affinity_labels.get(choice[1:])
        if found is None:
            _, outcome, reason = choice
            found = self._affinity_labels[outcome, reason] = telemetry.interned(
                {
                    **self.pool_labels.values,
                    names.SNAKEPIT_AFFINITY_OUTCOME: outcome.value,
                    names.SNAKEPIT_AFFINITY_REASON: reason.value,
                }
            )
        return found

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

    def execute(self, job: Job) -> Coroutine[Any, Any, Any]:
        """Run a request on a worker and return its response.

        Raises `PoolSaturated`, `QueueTimeout`, `WorkerBusy`, `SessionWorkerUnavailable`, `CircuitOpen` and
        `PoolNotStarted` for one that did not run; `WorkerExited` if its worker dies, `DeadlineExceeded`,
        `MessageTooLarge`.
        """
        return self._run(job, self._dispatch)

    async def stream(self, job: Job, take: TakeChunk) -> None:
        """Run a request and await `take` for each chunk; see `execute`. There are no retries after the first chunk."""

        async def take_first(chunk: Any) -> None:
            job.idempotent = False
            await take(chunk)

        async def dispatch(choice: Choice, job: Job) -> None:
            await self._dispatch_stream(choice, job, take_first if job.idempotent else take)

        await self._run(job, dispatch)

    async def _run(self, job: Job, dispatch: _Dispatch) -> Any:
        label = job.label = self._labels.of(job.tool_name, self.tools)
        if not self.is_accepting:
            error = self.not_running()
            error.tool = job.tool_name
            self.rejections.count(error)
            self.outcomes.on_refused(label)
            raise error
        self._jobs += 1
        self._drained.clear()
        try:
            try:
                self._check_retries(job)
                if job.peer.is_known:
                    self.anonymous.on_known_caller()
                else:
                    job.permit = await self._permit(job)
                choice = self._choose(job)
                if isinstance(choice, Wait):
                    choice = await self._wait(job, choice)
            except BaseException:
                self.outcomes.on_refused(label)
                raise
            return await self._run_with_retries(choice, job, dispatch, label)
        except (PoolError, AuthorityUnavailable) as error:
            error.pool, error.tool = self.name, job.tool_name
            raise
        finally:
            job.release_permit()
            self._jobs -= 1
            self._update_drained()

    def _check_retries(self, job: Job) -> None:
        """Set whether the request may run again. Raises `ToolRefused` where its caller wants what it may not."""
        if job.tool_name in self.idempotent_tools:
            job.idempotent = True
        elif job.has_retry and not job.idempotent:
            raise ToolRefused(
                f"tool {job.tool_name!r:.100} is not called with retry=…, as it might then be carried out twice: call "
                "it with idempotent=True as well, or declare it with @tool(idempotent=True); it did not run"
            )

    async def _permit(self, job: Job) -> Permit:
        permit = self.anonymous.acquire()
        if permit is not None:
            return permit
        try:
            return await self._queue_for_permit(job)
        except PoolError as error:
            self.rejections.count(error)
            raise

    async def _run_with_retries(self, choice: Choice, job: Job, dispatch: _Dispatch, label: str) -> Any:
        while True:
            job.begin_run()
            try:
                result = await dispatch(choice, job)
            except BaseException as error:
                if job.failure is None:
                    self.failed += 1
                    self.breaker.on_abandoned()
                else:
                    self._on_answer(choice)
                again = await self._run_again(choice, job, error, label)
                if again is None:
                    raise
            else:
                self._on_answer(choice)
                if job.failure is None:
                    self.outcomes.on_result(label, job.seconds)
                    return result
                again = await self._run_again(choice, job, None, label)
                if again is None:
                    return result
            choice = again

    async def _run_again(self, choice: Choice, job: Job, error: BaseException | None, label: str) -> Choice | None:
        """Return the choice for a further run, after the wait for it; None, and the run is counted, if it was the last.

        No slot is held meanwhile.
        """
        place = Place(job.tool_name, job.request_id, job.session_id, choice.worker.id)
        try:
            plan = self._retries.plan(job, error)
            if plan is not None and (found := await self._acquire_later(job, plan.wait)) is not None:
                self._count_retry(job, plan, place, label)
                return found
        except BaseException:
            self.outcomes.on_lost(label)
            raise
        if job.failure is not None:
            self.outcomes.on_failure(label, job.failure, job.seconds, place)
        elif isinstance(error, DeadlineExceeded) and error.may_have_run:
            self.outcomes.on_late(label, str(error), place)
        elif isinstance(error, PoolError) and not error.may_have_run:
            self.outcomes.on_refused(label)
        else:
            self.outcomes.on_lost(label)
        return None

    async def _acquire_later(self, job: Job, wait: float) -> Choice | None:
        """Return the choice for a further run, after a wait; None if no worker can be had."""
        await asyncio.sleep(wait)
        try:
            choice = self._choose(job)
            return await self._wait(job, choice) if isinstance(choice, Wait) else choice
        except PoolError:
            # The error that there was is the one that the caller needs.
            return None

    def _count_retry(self, job: Job, plan: RetryPlan, place: Place, label: str) -> None:
        self.retried += 1
        again = f"; it is run again ({plan.number} of at most {plan.most} times)"
        self.outcomes.on_retry(label, job.failure, place, again)
        telemetry.record(
            names.METRIC_POOL_RETRIES,
            1,
            {names.SNAKEPIT_POOL_NAME: self.name, names.SNAKEPIT_RETRY_REASON: plan.reason.value},
        )
        # Of the request; that of each run is on its own span.
        mark({names.SNAKEPIT_REQUEST_ATTEMPTS: job.attempt})

    def _on_answer(self, choice: Choice) -> None:
        self.breaker.on_success()
        self._fleet.on_completed(choice.worker)
        if choice.worker.assigned_requests >= self._settings.worker_max_requests:
            self._replacer.replace_soon(choice.worker, ExitReason.MAX_REQUESTS)

    def _choose(self, job: Job) -> Choice | Wait:
        """Acquire a slot at once, or return what to wait for."""
        try:
            # While draining, requests accepted before may still be run again.
            if self.is_over:
                raise self.not_running()
            if not self.breaker.allow():
                raise self._circuit_open()
            try:
                choice = self.slots.acquire(job.preferred_worker)
            except BaseException:
                self.breaker.on_abandoned()
                raise
        except PoolError as error:
            self.rejections.count(error)
            raise
        if isinstance(choice, Choice):
            telemetry.record(names.METRIC_POOL_AFFINITY_DECISIONS, 1, self.affinity_labels(choice))
        return choice

    async def _wait(self, job: Job, wait: Wait) -> Choice:
        try:
            choice = wait.choice_of(await self._queue(job, wait))
        except BaseException as error:
            self.breaker.on_abandoned()
            if isinstance(error, PoolError):
                self.rejections.count(error)
            raise
        telemetry.record(names.METRIC_POOL_AFFINITY_DECISIONS, 1, self.affinity_labels(choice))
        return choice

    @telemetry.observed(names.POOL_QUEUE, labels=_queue_labels, details=_session)
    async def _queue(self, job: Job, wait: Wait) -> Worker:
        return await self.slots.wait(wait, job.tool_name, job.label, job.deadline)

    @telemetry.observed(names.POOL_QUEUE, labels=_queue_labels, details=_session)
    async def _queue_for_permit(self, job: Job) -> Permit:
        return await self.slots.wait_for_permit(job.tool_name, job.label, job.deadline)

    @telemetry.observed(names.POOL_DISPATCH, labels=_labels, details=_details, result=describe_response)
    async def _dispatch(self, choice: Choice, job: Job) -> Any:
        return await self._runs.run(choice.worker, job, None)

    @telemetry.observed(names.POOL_DISPATCH, labels=_labels, details=_details)
    async def _dispatch_stream(self, choice: Choice, job: Job, take: TakeChunk) -> None:
        await self._runs.run(choice.worker, job, take)

    def _update_drained(self) -> None:
        if not self._jobs and not self._runs.abandoned:
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
