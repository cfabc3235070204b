"""Planned replacement of workers: those that are due for recycling, those that are stuck, or all of them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from snakepit_otel import telemetry
from snakepit_otel.bridge.wire.restart_report import Replacement
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.errors import SnakepitError, WorkerStartFailed
from snakepit_otel.pool.settings import ReplacementOrder
from snakepit_otel.pool.workers.base import STARTED, Suspicion, Worker, WorkerState
from snakepit_otel.pool.workers.fleet import Fleet
from snakepit_otel.pool.workers.recycling import ExitReason, recycle_reason
from snakepit_otel.telemetry import names

_log = logging.getLogger("snakepit_otel.pool")
_INSPECTION_INTERVAL_S = 1.0
# A stuck worker is of no use until it is replaced, so its successor is not waited for.
_STUCK = (ExitReason.DEADLINE, ExitReason.CANCELLED, ExitReason.UNRESPONSIVE)


def _labels(me: Replacer, _worker: Worker, reason: ExitReason) -> dict[str, str]:
    return {names.SNAKEPIT_POOL_NAME: me.pool, names.SNAKEPIT_WORKER_EXIT_REASON: reason.value}


def _details(_me: Replacer, worker: Worker, _reason: ExitReason) -> dict[str, str]:
    return {names.SNAKEPIT_WORKER_ID: worker.id}


class Replacer:
    """Replaces workers one at a time, each only once its successor is ready; stuck ones at once.

    With the order `stop_first`, each worker, stuck or not, is gone before its successor starts.
    """

    def __init__(self, fleet: Fleet, draw: Callable[[], float] = random.random) -> None:
        self.pool = fleet.pool
        self._fleet = fleet
        self._draw = draw
        self._scheduled: set[Worker] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._closed = False

    @property
    def _stops_first(self) -> bool:
        return self._fleet.settings.replacement_order is ReplacementOrder.STOP_FIRST

    async def run(self) -> None:
        """Inspect the workers at intervals, and replace those that are due, until cancelled."""
        fleet = self._fleet
        jitters: dict[Worker, float] = {}
        while True:
            await asyncio.sleep(_INSPECTION_INTERVAL_S)
            now = fleet.clock()
            started = [worker for worker in fleet.workers if worker.state in STARTED]
            jitters = {worker: jitters.get(worker, self._draw()) for worker in started}
            for worker in started:
                self._check_socket(worker)
                worker.read_memory()
                reason = recycle_reason(
                    age=now - worker.started,
                    requests=worker.assigned_requests,
                    memory=worker.memory,
                    settings=fleet.settings,
                    ttl_jitter=jitters[worker],
                )
                # Where workers do not start, the old ones are better than none.
                if reason is not None and not fleet.restarts.delay():
                    self.replace_soon(worker, reason)

    def _check_socket(self, worker: Worker) -> None:
        """Replace a worker whose socket was removed: it answers only as long as its connection lasts."""
        if worker.is_reachable or worker.exit_reason is not None or worker.has_successor:
            return
        if worker.suspicion is not Suspicion.SOCKET:
            self._fleet.suspect(worker, Suspicion.SOCKET)
            _log.warning(
                "the socket of worker %s (pid %d) is gone, so that no new connection to it is possible; it is replaced",
                printable(worker.id),
                worker.pid,
            )
        if not self._fleet.restarts.delay():
            self.replace_soon(worker, ExitReason.SOCKET_GONE)

    async def close(self) -> None:
        """Stop replacing; workers that are being replaced are left as they are."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def replace_all(self, on_replaced: Callable[[Replacement], None]) -> None:
        """Replace the current workers, one after the other; `on_replaced` gets each result.

        Where workers stop first, those after one whose successor did not start are left as they are.
        """
        workers = [worker for worker in self._fleet.workers if worker.state in STARTED]
        blocker: str | None = None
        for remaining, worker in zip(range(len(workers) - 1, -1, -1), workers, strict=True):
            failure, successor = blocker, ""
            try:
                if blocker is None:
                    successor = await self._replace_in_turn(worker, ExitReason.ROLLING_RESTART)
            except SnakepitError as error:
                failure = str(error)
                if self._stops_first:
                    blocker = "it goes on, since the one before it has no successor"
            if successor or failure:
                on_replaced(Replacement(self.pool, worker.id, successor, failure, remaining))

    def replace_soon(self, worker: Worker, reason: ExitReason) -> None:
        """Replace a worker in the background; repeated calls have no effect."""
        if worker in self._scheduled or worker.exit_reason is not None or self._closed:
            return
        self._scheduled.add(worker)
        task = asyncio.get_running_loop().create_task(self._replace_in_background(worker, reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace_in_background(self, worker: Worker, reason: ExitReason) -> None:
        try:
            if reason in _STUCK:
                await self._replace(worker, reason)
            else:
                await self._replace_in_turn(worker, reason)
        except SnakepitError as error:
            text = f"worker {worker.id} was due ({reason}) and "
            text += "has no successor" if worker.state is WorkerState.GONE else "goes on, as it has no successor"
            _log.error("%s: %s", printable(text, MAX_MESSAGE_CHARACTERS), printable(error, MAX_MESSAGE_CHARACTERS))
        finally:
            self._scheduled.discard(worker)

    async def _replace_in_turn(self, worker: Worker, reason: ExitReason) -> str:
        async with self._one_at_a_time:
            restarts = self._fleet.restarts
            if restarts.is_blocked:
                raise WorkerStartFailed(f"no worker of pool {self.pool!r} is started for {restarts.delay():.0f} s")
            return await self._replace(worker, reason)

    @telemetry.observed(names.WORKER_REPLACE, labels=_labels, details=_details)
    async def _replace(self, worker: Worker, reason: ExitReason) -> str:
        """Return the successor's id, "" for a worker that ends anyway. Raises the error of one that is not ready."""
        if worker.state not in STARTED or worker.exit_reason is not None:
            return ""
        is_stuck = reason in _STUCK
        if self._stops_first:
            return await self._stop_then_start(worker, reason, kill=is_stuck)
        worker.has_successor = True
        successor, outcome = self._fleet.relaunch(worker.slot)
        if not is_stuck and (failure := await outcome) is not None:
            worker.has_successor = False
            raise failure
        if worker.state is not WorkerState.GONE:
            self._report(worker, reason)
            await self._fleet.retire(worker, reason, kill=is_stuck)
        return successor.id

    async def _stop_then_start(self, worker: Worker, reason: ExitReason, *, kill: bool) -> str:
        with self._fleet.reserved(worker.slot):
            self._report(worker, reason)
            await self._fleet.retire(worker, reason, kill=kill)
            if self._closed:
                return ""
            successor, outcome = self._fleet.relaunch(worker.slot)
        if (failure := await outcome) is not None:
            raise WorkerStartFailed(f"it was stopped, and its successor did not start: {failure}") from failure
        return successor.id

    def _report(self, worker: Worker, reason: ExitReason) -> None:
        text = f"worker {worker.id} (pid {worker.pid}) is replaced: {reason}"
        if reason in _STUCK:
            text += f"; it has {worker.requests}"
            _log.warning("%s", printable(text, MAX_MESSAGE_CHARACTERS))
        else:
            _log.info("%s", printable(text, MAX_MESSAGE_CHARACTERS))
        attributes: dict[str, Any] = {
            names.SNAKEPIT_POOL_NAME: self.pool,
            names.SNAKEPIT_WORKER_ID: worker.id,
            names.SNAKEPIT_WORKER_EXIT_REASON: reason.value,
        }
        if worker.memory is not None:
            attributes[names.SNAKEPIT_WORKER_MEMORY] = worker.memory
        telemetry.emit(names.EVENT_WORKER_RECYCLED, attributes, {"count": 1}, body=text)
