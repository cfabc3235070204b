"""Replaces workers by intention: those that are due, those that are stuck, or all of them."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from snakepit_otel import telemetry
from snakepit_otel.bridge.wire.restart_report import Replacement
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.errors import SnakepitError, WorkerStartFailed
from snakepit_otel.pool.workers.process import State, Suspicion, Worker
from snakepit_otel.pool.workers.recycling import ExitReason, recycle_reason, resident_bytes
from snakepit_otel.telemetry import names

if TYPE_CHECKING:
    from snakepit_otel.pool.workers.supervisor import Supervisor

_log = logging.getLogger("snakepit_otel.pool")
_INSPECTION_INTERVAL = 1.0
_SERVING = (State.SPARE, State.READY)
_STUCK = (ExitReason.DEADLINE, ExitReason.CANCELLED, ExitReason.UNRESPONSIVE)
"""Reasons for which a worker is of no use until it is replaced, so that its successor is not waited for."""


def _labels(me: Replacer, _worker: Worker, reason: ExitReason) -> dict[str, str]:
    return {names.SNAKEPIT_POOL_NAME: me.pool, names.SNAKEPIT_WORKER_EXIT_REASON: reason.value}


def _details(_me: Replacer, worker: Worker, _reason: ExitReason) -> dict[str, str]:
    return {names.SNAKEPIT_WORKER_ID: worker.id}


class Replacer:
    """Has a successor become ready, lets it serve, and only then drains and stops the worker in whose place it is.

    One at a time, but for workers that are stuck. A worker whose successor does not become ready goes on.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self.pool = supervisor.pool
        self._supervisor = supervisor
        self._due: set[Worker] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._closed = False

    async def run(self) -> None:
        """Look for workers that are due, until cancelled."""
        jitters: dict[Worker, float] = {}
        while True:
            await asyncio.sleep(_INSPECTION_INTERVAL)
            now = time.monotonic()
            present = [worker for worker in self._supervisor.workers if worker.state in _SERVING]
            jitters = {worker: jitters.get(worker, random.random()) for worker in present}  # noqa: S311 - no secret
            for worker in present:
                self._look_for_socket(worker)
                worker.memory = resident_bytes(worker.pid)
                reason = recycle_reason(
                    age=now - worker.started,
                    requests=worker.served,
                    memory=worker.memory,
                    settings=self._supervisor.settings,
                    ttl_jitter=jitters[worker],
                )
                # Where workers do not start, the old ones are better than none.
                if reason is not None and not self._supervisor.restarts.delay():
                    self.replace_soon(worker, reason)

    def _look_for_socket(self, worker: Worker) -> None:
        """Replace a worker whose socket somebody has removed: it answers only as long as its connection lasts."""
        if worker.is_reachable or worker.exit_reason is not None or worker.has_successor:
            return
        if worker.suspicion is not Suspicion.SOCKET:
            worker.suspicion = None
            self._supervisor.heartbeats.suspect(worker, Suspicion.SOCKET)
            _log.warning(
                "the socket of worker %s (pid %d) is gone, so nobody could connect to it anew; it is replaced",
                printable(worker.id),
                worker.pid,
            )
        if not self._supervisor.restarts.delay():
            self.replace_soon(worker, ExitReason.SOCKET_GONE)

    async def close(self) -> None:
        """Replace none any more; those that are being replaced are left as they are."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def replace_all(self, told: Callable[[Replacement], None]) -> None:
        """Replace the workers of now, one after the other; `told` hears of each."""
        workers = [worker for worker in self._supervisor.workers if worker.state in _SERVING]
        for remaining, worker in zip(range(len(workers) - 1, -1, -1), workers, strict=True):
            failure, successor = None, ""
            try:
                successor = await self._replace_in_turn(worker, ExitReason.ROLLING_RESTART)
            except SnakepitError as error:
                failure = str(error)
            if successor or failure:
                told(Replacement(self.pool, worker.id, successor, failure, remaining))

    def replace_soon(self, worker: Worker, reason: ExitReason) -> None:
        """Replace a worker, aside; once is enough."""
        if worker in self._due or worker.exit_reason is not None or self._closed:
            return
        self._due.add(worker)
        task = asyncio.get_running_loop().create_task(self._replace_aside(worker, reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace_aside(self, worker: Worker, reason: ExitReason) -> None:
        try:
            if reason in _STUCK:
                await self._replace(worker, reason)
            else:
                await self._replace_in_turn(worker, reason)
        except SnakepitError as error:
            _log.error(
                "worker %s is due (%s) and goes on, for want of a successor: %s",
                printable(worker.id),
                printable(reason),
                printable(error, MAX_MESSAGE_CHARACTERS),
            )
        finally:
            self._due.discard(worker)

    async def _replace_in_turn(self, worker: Worker, reason: ExitReason) -> str:
        async with self._one_at_a_time:
            restarts = self._supervisor.restarts
            if restarts.is_blocked:
                raise WorkerStartFailed(f"no worker of pool {self.pool!r} is started for {restarts.delay():.0f} s")
            return await self._replace(worker, reason)

    @telemetry.observed(names.WORKER_REPLACE, labels=_labels, details=_details)
    async def _replace(self, worker: Worker, reason: ExitReason) -> str:
        """Return the successor's id; none for a worker that has ended meanwhile, or is about to.

        Raises what the successor said if that did not become ready.
        """
        if worker.state not in _SERVING or worker.exit_reason is not None:
            return ""
        supervisor, patience = self._supervisor, self._supervisor.settings.shutdown_grace / 1000
        worker.has_successor = True
        successor, tried = supervisor.launch_again()
        if reason not in _STUCK and (failure := await tried) is not None:
            worker.has_successor = False
            raise failure
        if worker.state is State.GONE:
            return successor.id
        worker.exit_reason = reason
        worker.state = State.DRAINING
        supervisor.watcher.serves_no_more(worker)
        supervisor.promote()
        self._note(worker, reason)
        await worker.idle(patience)
        if reason in _STUCK:
            supervisor.watcher.dismissed(worker)
            worker.kill()
            await worker.wait()
        else:
            await worker.stop()
        return successor.id

    def _note(self, worker: Worker, reason: ExitReason) -> None:
        text = f"worker {worker.id} (pid {worker.pid}) is replaced: {reason}"
        _log.info("%s", printable(text, MAX_MESSAGE_CHARACTERS))
        about: dict[str, Any] = {
            names.SNAKEPIT_POOL_NAME: self.pool,
            names.SNAKEPIT_WORKER_ID: worker.id,
            names.SNAKEPIT_WORKER_EXIT_REASON: reason.value,
        }
        if worker.memory is not None:
            about[names.SNAKEPIT_WORKER_MEMORY] = worker.memory
        telemetry.emit(names.EVENT_WORKER_RECYCLED, about, {"count": 1}, body=text)
