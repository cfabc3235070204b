"""Heartbeats: checks that workers are responsive, which is more than being alive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from snakepit_otel import telemetry
from snakepit_otel.bridge.authority.jobs import CallFailed, CallTimedOut
from snakepit_otel.pool.workers.base import STARTED, Suspicion, Worker, WorkerState
from snakepit_otel.pool.workers.fleet import Fleet
from snakepit_otel.telemetry import names


class Heartbeats:
    """Pings the workers of a fleet at `heartbeat_interval`.

    A late worker is set aside, as code may hold the interpreter for long. `on_unresponsive` gets one that was late too
    often and has no request, whose deadline would decide.
    """

    def __init__(self, fleet: Fleet, on_unresponsive: Callable[[Worker], None]) -> None:
        self._fleet = fleet
        self._on_unresponsive = on_unresponsive
        self._pending: dict[Worker, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Ping, until cancelled."""
        try:
            while True:
                await asyncio.sleep(self._fleet.settings.heartbeat_interval / 1000)
                self._pending = {worker: task for worker, task in self._pending.items() if not task.done()}
                for worker in self._fleet.workers:
                    if worker.state in STARTED and worker not in self._pending:
                        self._pending[worker] = asyncio.ensure_future(self.check(worker))
        finally:
            for task in self._pending.values():
                task.cancel()
            await asyncio.gather(*self._pending.values(), return_exceptions=True)

    async def check(self, worker: Worker) -> None:
        """Ping one worker, and act on its answer."""
        fleet, settings = self._fleet, self._fleet.settings
        labels = {names.SNAKEPIT_POOL_NAME: fleet.pool}
        started = fleet.clock()
        try:
            await worker.ping(settings.heartbeat_timeout / 1000)
        except CallFailed as error:
            if worker.state is WorkerState.GONE:
                return
            telemetry.record(
                names.METRIC_WORKER_HEARTBEAT_DURATION,
                fleet.clock() - started,
                {**labels, names.ERROR_TYPE: error.status},
            )
            if not isinstance(error, CallTimedOut):
                fleet.suspect(worker, Suspicion.CONNECTION)
                return
            worker.missed_heartbeats += 1
            text = f"worker {worker.id} has not answered {worker.missed_heartbeats} heartbeats in a row; it has "
            text += worker.requests
            telemetry.emit(
                names.EVENT_HEARTBEAT_TIMEOUT, {**labels, names.SNAKEPIT_WORKER_ID: worker.id}, {"count": 1}, body=text
            )
            fleet.suspect(worker, Suspicion.HEARTBEAT)
            if worker.missed_heartbeats >= settings.heartbeat_max_missed and not worker.active:
                self._on_unresponsive(worker)
        else:
            worker.last_heartbeat = fleet.clock()
            telemetry.record(names.METRIC_WORKER_HEARTBEAT_DURATION, worker.last_heartbeat - started, labels)
            worker.missed_heartbeats = 0
            fleet.clear_suspicion(worker)
