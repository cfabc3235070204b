"""The fleet of a pool: its workers, from their launch to their end."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from snakepit_otel import telemetry
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable, printable_error, printable_lines
from snakepit_otel.errors import SnakepitError, WorkerStartFailed
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.workers.base import PRESENT, Suspicion, Worker, WorkerState
from snakepit_otel.pool.workers.recycling import ExitReason
from snakepit_otel.pool.workers.restart_policy import RestartPolicy
from snakepit_otel.telemetry import names

_log = logging.getLogger("snakepit_otel.pool")
StartOutcome = asyncio.Future[SnakepitError | None]  # None: the worker is ready


class WorkerListener(Protocol):
    """Receiver of the events of a fleet's workers."""

    def on_serving(self, worker: Worker) -> None:
        """The worker takes requests from now on."""

    def on_draining(self, worker: Worker) -> None:
        """The worker takes no more requests."""

    def on_suspected(self, worker: Worker, /) -> None:
        """The worker gets requests only where all are suspect."""

    def on_recovered(self, worker: Worker) -> None:
        """The worker is no longer suspect."""

    def on_exit(self, worker: Worker, reason: ExitReason) -> None:
        """The worker is gone."""

    def on_start_blocked(self) -> None:
        """No worker is started for a while, as too many ended before their first result; may be repeated."""


class Fleet:
    """The workers of one pool: launch, promotion, suspicion and end. `make` makes the worker of an id and a slot."""

    def __init__(
        self,
        pool: str,
        settings: PoolSettings,
        make: Callable[[str, int], Worker],
        listener: WorkerListener,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pool = pool
        self.settings = settings
        self.clock = clock
        self.workers: list[Worker] = []
        self.restarts = RestartPolicy(settings.max_restarts, settings.restart_window / 1000, clock)
        self.restart_count = 0
        self.holds_failures = False  # failures of starts are reported by whoever awaits their outcomes
        self.changed = asyncio.Event()  # a worker has ended
        self._make = make
        self._listener = listener
        self._generations: dict[int, int] = {}
        self._reserved: set[int] = set()  # slots whose next worker is launched by whoever reserved them
        self._lives: dict[Worker, asyncio.Task[None]] = {}

    @property
    def missing(self) -> int:
        """The number of workers to be launched."""
        return self.settings.size + self.settings.spares - len(self._held_slots())

    def _held_slots(self) -> list[int]:
        held = [worker.slot for worker in self.workers if worker.state in PRESENT and not worker.has_successor]
        return [*held, *self._reserved]

    @contextmanager
    def reserved(self, slot: int) -> Iterator[None]:
        """Have nobody else launch a worker in a slot, whose worker is about to end."""
        self._reserved.add(slot)
        try:
            yield
        finally:
            self._reserved.discard(slot)

    def launch(self, slot: int | None = None) -> tuple[Worker, StartOutcome]:
        """Launch a worker in a slot; by default in the first that is free."""
        if slot is None:
            held = self._held_slots()
            slot = next(number for number in itertools.count() if number not in held)
        generation = self._generations[slot] = self._generations.get(slot, 0) + 1
        # The number in an id is the slot's, from 1.
        worker = self._make(f"{self.pool}-{slot + 1}.{generation}", slot)
        self.workers.append(worker)
        loop = asyncio.get_running_loop()
        outcome: StartOutcome = loop.create_future()
        life = self._lives[worker] = loop.create_task(self._live(worker, outcome), name=f"life of worker {worker.id}")
        life.add_done_callback(lambda _: self._lives.pop(worker))
        return worker, outcome

    def relaunch(self, slot: int | None = None) -> tuple[Worker, StartOutcome]:
        """Launch a worker in place of another; see `launch`."""
        self.restart_count += 1
        self.restarts.on_start()
        return self.launch(slot)

    def promote(self) -> None:
        """Have spares serve, where too few workers do."""
        serving = sum(worker.state is WorkerState.READY and not worker.has_successor for worker in self.workers)
        for worker in self.workers:
            if serving >= self.settings.size:
                return
            if worker.state is WorkerState.SPARE and not worker.has_successor:
                worker.state = WorkerState.READY
                serving += 1
                self._listener.on_serving(worker)

    async def retire(self, worker: Worker, reason: ExitReason, *, kill: bool) -> None:
        """Drain a worker for `shutdown_grace` at most, then stop or kill it; return when it is removed."""
        worker.exit_reason = reason
        worker.state = WorkerState.DRAINING
        self._listener.on_draining(worker)
        self.promote()
        await worker.idle(self.settings.shutdown_grace / 1000)
        if worker.active:
            self._report_interrupted(worker, "killed" if kill else "stopped")
        if kill:
            worker.revoke()
            worker.kill()
        else:
            await worker.stop()
        await worker.removed.wait()

    def suspect(self, worker: Worker, suspicion: Suspicion) -> None:
        """Set a worker aside until it answers a heartbeat; one whose socket is gone, until its end."""
        if worker.suspicion is suspicion or (worker.suspect and suspicion is not Suspicion.SOCKET):
            return
        worker.suspicion = suspicion
        telemetry.emit(
            names.EVENT_WORKER_TAINTED,
            {**self._attributes(worker), names.SNAKEPIT_WORKER_SUSPICION: suspicion.value},
            {"count": 1},
            body=f"worker {worker.id} is set aside: {suspicion}",
        )
        self._listener.on_suspected(worker)

    def clear_suspicion(self, worker: Worker) -> None:
        """Have a worker, which has answered a heartbeat, serve as before."""
        if worker.suspicion not in (None, Suspicion.SOCKET):
            worker.suspicion = None
            self._listener.on_recovered(worker)

    def on_completed(self, worker: Worker) -> None:
        """Count a request that the worker has completed."""
        if not worker.completed_requests:
            self.restarts.on_first_result()
        worker.completed_requests += 1

    async def stop(self) -> None:
        """Stop all workers, whose grace is over."""
        lives = dict(self._lives)
        for worker, life in lives.items():
            worker.exit_reason = worker.exit_reason or ExitReason.STOP
            if worker.state is WorkerState.STARTING:
                life.cancel()
        running = [worker for worker in lives if worker.state not in (WorkerState.STARTING, WorkerState.GONE)]
        for worker in running:
            if worker.active and worker.state is not WorkerState.STOPPING:
                self._report_interrupted(worker, "stopped")
        await asyncio.gather(*(worker.stop() for worker in running))
        await asyncio.gather(*lives.values(), return_exceptions=True)

    async def _live(self, worker: Worker, outcome: StartOutcome) -> None:
        failure: SnakepitError | None = None
        try:
            await worker.start(self.settings.startup_timeout / 1000)
        except asyncio.CancelledError:
            self._remove(worker, ExitReason.STOP)
            outcome.cancel()
            await worker.close()
            raise
        except SnakepitError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - otherwise the pool would wait for this worker forever
            failure = WorkerStartFailed(f"worker {worker.id} could not be started: {printable_error(error)}")
        if failure is not None:
            if not self.holds_failures:
                self.report_failures([failure])
            self._remove(worker, ExitReason.START_FAILED)
            _settle(outcome, failure)
            await worker.close()
            return
        self._on_started(worker)
        _settle(outcome, None)
        description = await worker.wait()
        if worker.stop_requested:
            self._remove(worker, worker.exit_reason or ExitReason.STOP)
        else:
            self._report_crash(worker, description)
            self._remove(worker, ExitReason.CRASH)
        await worker.close()

    def _on_started(self, worker: Worker) -> None:
        worker.state = WorkerState.SPARE
        worker.admit()
        attributes = self._attributes(worker)
        telemetry.emit(names.EVENT_WORKER_READY, attributes, body=f"worker {worker.id} ({worker.pid}) is ready")
        if worker.is_restart:
            telemetry.emit(names.EVENT_WORKER_RESTARTED, attributes, {"count": 1})
        self.promote()

    def _remove(self, worker: Worker, reason: ExitReason) -> None:
        worker.state = WorkerState.GONE
        self.workers.remove(worker)
        worker.revoke()
        self._listener.on_exit(worker, reason)
        telemetry.record(
            names.METRIC_WORKER_EXITS,
            1,
            {names.SNAKEPIT_POOL_NAME: self.pool, names.SNAKEPIT_WORKER_EXIT_REASON: reason.value},
        )
        if reason in (ExitReason.CRASH, ExitReason.START_FAILED):
            was_blocked = self.restarts.is_blocked
            self.restarts.on_exit(useful=worker.completed_requests > 0)
            if self.restarts.is_blocked:
                if not was_blocked:
                    self._report_blocked_starts()
                self._listener.on_start_blocked()
        self.promote()
        self.changed.set()
        worker.removed.set()

    def report_failures(self, failures: Iterable[SnakepitError]) -> None:
        """Log the errors of starts, each text once, with the number of workers."""
        for text, count in Counter(map(str, failures)).items():
            more = f" ({count} workers)" if count > 1 else ""
            _log.error("%s%s", printable_lines(text, "  "), printable(more))

    def _report_crash(self, worker: Worker, description: str) -> None:
        text = f"worker {worker.id} (pid {worker.pid}) {description}; it is being replaced; it had {worker.requests}"
        _log.error("%s", printable(text, MAX_MESSAGE_CHARACTERS))
        attributes = {**self._attributes(worker), names.SNAKEPIT_WORKER_EXIT_REASON: ExitReason.CRASH.value}
        telemetry.emit(names.EVENT_WORKER_CRASH, attributes, body=text)

    def _report_interrupted(self, worker: Worker, how: str) -> None:
        text = f"worker {worker.id} (pid {worker.pid}) is {how} ({worker.exit_reason}) with {worker.requests}"
        _log.warning("%s", printable(text, MAX_MESSAGE_CHARACTERS))

    def _report_blocked_starts(self) -> None:
        text = (
            f"{self.settings.max_restarts} workers of pool {self.pool!r} ended within "
            f"{self.settings.restart_window / 1000:g} s without having completed a request; "
            f"none is started for {self.restarts.delay():.0f} s"
        )
        _log.error("%s", printable(text, MAX_MESSAGE_CHARACTERS))
        telemetry.emit(names.EVENT_POOL_START_BLOCKED, {names.SNAKEPIT_POOL_NAME: self.pool}, body=text)

    def _attributes(self, worker: Worker) -> dict[str, str]:
        return {names.SNAKEPIT_POOL_NAME: self.pool, names.SNAKEPIT_WORKER_ID: worker.id}


def _settle(outcome: StartOutcome, failure: SnakepitError | None) -> None:
    # The task that awaited it may have been cancelled, and the future with it.
    if not outcome.done():
        outcome.set_result(failure)
