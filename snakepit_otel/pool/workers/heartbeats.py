"""Heartbeats: whether workers are responsive, which is not the same as alive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

import grpc
from grpc import aio

from snakepit_otel import telemetry
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.workers.process import State, Suspicion, Worker
from snakepit_otel.telemetry import names


class Heartbeats:
    """Asks each worker now and then whether its event loop turns.

    A late answer is not death: code that holds the interpreter may hold it for long, and ends by itself. A
    busy worker is judged by its requests' deadlines; a late one is given requests only where there is no other.
    `unresponsive` hears of a worker that has no request, and so no deadline, and was late too often;
    `suspected` of one that is set aside, and `trusted` of one that is not any more.
    """

    def __init__(
        self,
        pool: str,
        settings: PoolSettings,
        workers: Collection[Worker],
        *,
        unresponsive: Callable[[Worker], None],
        suspected: Callable[[Worker], None],
        trusted: Callable[[Worker], None],
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._workers = workers
        self._unresponsive = unresponsive
        self._suspected = suspected
        self._trusted = trusted
        self._asked: dict[Worker, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Ask, until cancelled."""
        try:
            while True:
                await asyncio.sleep(self._settings.heartbeat_interval / 1000)
                self._asked = {worker: task for worker, task in self._asked.items() if not task.done()}
                for worker in self._workers:
                    if worker.state in (State.SPARE, State.READY) and worker not in self._asked:
                        self._asked[worker] = asyncio.ensure_future(self.ask(worker))
        finally:
            for task in self._asked.values():
                task.cancel()
            await asyncio.gather(*self._asked.values(), return_exceptions=True)

    async def ask(self, worker: Worker) -> None:
        """Ask one worker, and draw conclusions from how it answers."""
        labels = {names.SNAKEPIT_POOL_NAME: self._pool}
        started = time.monotonic()
        try:
            await worker.ping(self._settings.heartbeat_timeout / 1000)
        except aio.UsageError:
            # It is gone since it was to be asked, and its channel closed.
            return
        except aio.AioRpcError as error:
            if worker.state is State.GONE:
                return
            code = error.code()
            telemetry.record(
                names.METRIC_WORKER_HEARTBEAT_DURATION,
                time.monotonic() - started,
                {**labels, names.ERROR_TYPE: code.name},
            )
            if code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                self.suspect(worker, Suspicion.CONNECTION)
                return
            worker.missed_heartbeats += 1
            text = f"worker {worker.id} has not answered {worker.missed_heartbeats} heartbeats in a row"
            telemetry.emit(
                names.EVENT_HEARTBEAT_TIMEOUT, {**labels, names.SNAKEPIT_WORKER_ID: worker.id}, {"count": 1}, body=text
            )
            self.suspect(worker, Suspicion.HEARTBEAT)
            if worker.missed_heartbeats >= self._settings.heartbeat_max_missed and not worker.active:
                self._unresponsive(worker)
        else:
            telemetry.record(names.METRIC_WORKER_HEARTBEAT_DURATION, time.monotonic() - started, labels)
            worker.missed_heartbeats = 0
            if worker.suspicion not in (None, Suspicion.SOCKET):
                worker.suspicion = None
                self._trusted(worker)

    def suspect(self, worker: Worker, why: Suspicion) -> None:
        """Set a worker aside until it answers a heartbeat."""
        if worker.suspicion is not None:
            return
        worker.suspicion = why
        telemetry.emit(
            names.EVENT_WORKER_TAINTED,
            {
                names.SNAKEPIT_POOL_NAME: self._pool,
                names.SNAKEPIT_WORKER_ID: worker.id,
                names.SNAKEPIT_WORKER_SUSPICION: why.value,
            },
            {"count": 1},
            body=f"worker {worker.id} is set aside: {why}",
        )
        self._suspected(worker)
