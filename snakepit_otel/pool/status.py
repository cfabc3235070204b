"""Status of a pool: its gauges, and its part of `snakepit-otel status`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

from snakepit_otel import telemetry
from snakepit_otel.bridge.wire.status import PoolStatus, WorkerStatus
from snakepit_otel.pool.dispatch.circuit_breaker import BreakerState
from snakepit_otel.pool.pool import WorkerPool
from snakepit_otel.pool.workers.base import Worker, WorkerState
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._definitions import Metric

Points = Iterable[tuple[float, dict[str, str]]]


def register_gauges(pool: WorkerPool) -> None:
    """Register the pool's gauges, read whenever metrics are collected while it runs."""
    gauges: dict[Metric, Callable[[WorkerPool], Points]] = {
        names.METRIC_POOL_WORKER_COUNT: _worker_count,
        names.METRIC_POOL_REQUEST_ACTIVE: lambda me: _one(me, sum(worker.active for worker in me.workers)),
        names.METRIC_POOL_CAPACITY: lambda me: _one(me, _ready_slots(me)),
        names.METRIC_POOL_QUEUE_LENGTH: lambda me: _one(me, me.waiting),
        names.METRIC_POOL_QUEUE_LIMIT: lambda me: _one(me, me.settings.max_queue_size),
        names.METRIC_POOL_MEMORY_USAGE: lambda me: _one(me, sum(worker.memory or 0 for worker in me.workers)),
        names.METRIC_POOL_BREAKER_STATE: _breaker_state,
    }
    for metric, read in gauges.items():
        telemetry.observe(pool, metric, partial(_while_running, read))


def status_of(pool: WorkerPool) -> PoolStatus:
    """Return the state of a pool at this moment."""
    now, restarts = pool.clock(), pool.fleet.restarts
    return PoolStatus(
        name=pool.name,
        adapter=pool.adapter,
        profile=pool.settings.profile.value,
        affinity=pool.settings.affinity.value,
        size=pool.settings.size,
        spares=pool.settings.spares,
        concurrency=pool.settings.concurrency,
        ready_slots=_ready_slots(pool),
        busy_slots=sum(worker.active for worker in pool.workers if worker.state is WorkerState.READY),
        queue_length=pool.waiting,
        queue_limit=pool.settings.max_queue_size,
        queue_oldest_seconds=pool.longest_wait,
        breaker=pool.breaker.state.value,
        breaker_retry_seconds=pool.breaker.retry_after,
        start_blocked_seconds=restarts.delay() if restarts.is_blocked else 0.0,
        service_seconds=pool.slots.times.overall,
        answered=pool.requests.outcomes.answered,
        raised=pool.requests.outcomes.raised,
        failed=pool.requests.failed,
        rejected=dict(pool.requests.rejections.by_reason),
        retried=pool.requests.retried,
        restarts=pool.fleet.restart_count,
        workers=tuple(_status_of_worker(worker, now) for worker in pool.workers),
    )


def _status_of_worker(worker: Worker, now: float) -> WorkerStatus:
    return WorkerStatus(
        id=worker.id,
        pid=worker.pid,
        state=worker.state.value,
        active=worker.active,
        requests=worker.completed_requests,
        age_seconds=now - worker.started,
        memory_bytes=worker.memory,
        heartbeat_age_seconds=None if worker.last_heartbeat is None else now - worker.last_heartbeat,
        missed_heartbeats=worker.missed_heartbeats,
        suspect=None if worker.suspicion is None else worker.suspicion.value,
        slot=worker.slot,
        transport=worker.transport,
    )


def _while_running(read: Callable[[WorkerPool], Points], pool: WorkerPool) -> Points:
    return read(pool) if pool.running else []


def _one(pool: WorkerPool, value: float) -> Points:
    return [(value, {names.SNAKEPIT_POOL_NAME: pool.name})]


def _ready_slots(pool: WorkerPool) -> int:
    return pool.settings.concurrency * sum(worker.state is WorkerState.READY for worker in pool.workers)


def _worker_count(pool: WorkerPool) -> Points:
    states = Counter(worker.state for worker in pool.workers)
    for state in WorkerState:
        if state is not WorkerState.GONE:
            yield states[state], {names.SNAKEPIT_POOL_NAME: pool.name, names.SNAKEPIT_WORKER_STATE: state.value}


def _breaker_state(pool: WorkerPool) -> Points:
    for state in BreakerState:
        labels = {names.SNAKEPIT_POOL_NAME: pool.name, names.SNAKEPIT_BREAKER_STATE: state.value}
        yield float(pool.breaker.state is state), labels
