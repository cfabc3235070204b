"""Keeps as many workers as a pool should have: starts them, counts those that end, and stops them all."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable

from snakepit_otel import telemetry
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable, printable_error, printable_lines
from snakepit_otel.errors import SnakepitError, WorkerStartFailed
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.workers.heartbeats import Heartbeats
from snakepit_otel.pool.workers.listener import WorkerListener
from snakepit_otel.pool.workers.os_process import describe_exit
from snakepit_otel.pool.workers.process import State, Worker
from snakepit_otel.pool.workers.recycling import ExitReason
from snakepit_otel.pool.workers.replacement import Replacer
from snakepit_otel.pool.workers.restart_policy import RestartPolicy
from snakepit_otel.telemetry import names

_log = logging.getLogger("snakepit_otel.pool")
_LONGEST_SLEEP = 1.0
_BUSY = 2.0
"""Seconds in which a start is taken to need a processor; what takes longer mostly waits for something else."""
_LOOK_AGAIN = 0.05
"""Seconds."""
PRESENT = (State.STARTING, State.SPARE, State.READY)
"""States of workers that serve, or will."""


class Supervisor:
    """`settings.size` workers that serve, and `settings.spares` that wait to.

    `make` makes the worker of a slot and a generation. `RestartPolicy` delays the replacement of one that has crashed.
    """

    def __init__(
        self, pool: str, settings: PoolSettings, make: Callable[[int, int], Worker], watcher: WorkerListener
    ) -> None:
        self.pool = pool
        self.settings = settings
        self.watcher = watcher
        self.workers: list[Worker] = []
        self.restarts = RestartPolicy(settings.max_restarts, settings.restart_window / 1000, time.monotonic)
        self.started_again = 0
        """Workers that were started in the place of others."""
        self.replacements = Replacer(self)
        self.heartbeats = Heartbeats(
            pool,
            settings,
            self.workers,
            unresponsive=lambda worker: self.replacements.replace_soon(worker, ExitReason.UNRESPONSIVE),
            suspected=watcher.suspects,
            trusted=watcher.trusts,
        )
        self._make = make
        self._generations: dict[int, int] = {}
        self._lives: dict[Worker, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._keeping: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start all workers, batch by batch, and return when each has tried.

        Raises what the first said where none of the first batch became ready.
        """
        wanted = self.settings.size + self.settings.spares
        tries: list[asyncio.Future[SnakepitError | None]] = []
        while len(tries) < wanted:
            if tries:
                await asyncio.wait(tries, timeout=self.settings.startup_batch_delay / 1000)
                if all(tried.done() and tried.result() is not None for tried in tries):
                    break
            size = min(self.settings.startup_batch_size, wanted - len(tries))
            tries += [self.launch()[1] for _ in range(size)]
        failures = [failure for failure in await asyncio.gather(*tries) if failure is not None]
        if len(failures) == len(tries):
            await self.stop()
            raise failures[0]
        loop = asyncio.get_running_loop()
        self._keeping = [
            loop.create_task(self._keep_number(), name=f"replaces lost workers of pool {self.pool}"),
            loop.create_task(self.replacements.run(), name=f"replaces old workers of pool {self.pool}"),
            loop.create_task(self.heartbeats.run(), name=f"hears workers of pool {self.pool}"),
        ]

    async def stop(self) -> None:
        """Stop all workers; they have had the time to finish what they have."""
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        self._keeping = []
        await self.replacements.close()
        lives = dict(self._lives)
        for worker, life in lives.items():
            worker.exit_reason = worker.exit_reason or ExitReason.STOP
            if worker.state is State.STARTING:
                life.cancel()
        await asyncio.gather(*(worker.stop() for worker in lives if worker.state not in (State.STARTING, State.GONE)))
        await asyncio.gather(*lives.values(), return_exceptions=True)

    def launch(self) -> tuple[Worker, asyncio.Future[SnakepitError | None]]:
        """Start a worker; return it with the promise of its first word: None if it is ready, or what went wrong."""
        taken = {worker.id.rpartition("-")[2].partition(".")[0] for worker in self.workers}
        slot = next(number for number in range(1, len(taken) + 2) if str(number) not in taken)
        generation = self._generations[slot] = self._generations.get(slot, 0) + 1
        worker = self._make(slot, generation)
        self.workers.append(worker)
        loop = asyncio.get_running_loop()
        tried: asyncio.Future[SnakepitError | None] = loop.create_future()
        life = self._lives[worker] = loop.create_task(self._live(worker, tried), name=f"life of worker {worker.id}")
        life.add_done_callback(lambda _: self._lives.pop(worker))
        return worker, tried

    def launch_again(self) -> tuple[Worker, asyncio.Future[SnakepitError | None]]:
        """Start a worker in the place of another; see `launch`."""
        self.started_again += 1
        self.restarts.on_start()
        return self.launch()

    def promote(self) -> None:
        """Let spares serve, as long as too few do."""
        serving = sum(worker.state is State.READY and not worker.has_successor for worker in self.workers)
        for worker in self.workers:
            if serving >= self.settings.size:
                return
            if worker.state is State.SPARE and not worker.has_successor:
                worker.state = State.READY
                serving += 1
                self.watcher.serves(worker)

    def answered(self, worker: Worker) -> None:
        """Note that a worker has answered a request."""
        if not worker.answered:
            self.restarts.on_first_result()
        worker.answered += 1
        if worker.served >= self.settings.worker_max_requests:
            self.replacements.replace_soon(worker, ExitReason.MAX_REQUESTS)

    async def _live(self, worker: Worker, tried: asyncio.Future[SnakepitError | None]) -> None:
        """See a worker from its start to its end."""
        failure: SnakepitError | None = None
        try:
            await worker.start(self.settings.startup_timeout / 1000)
        except asyncio.CancelledError:
            self._end(worker, ExitReason.STOP)
            tried.cancel()
            await worker.end_leftover_processes()
            raise
        except SnakepitError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for this worker for good
            failure = WorkerStartFailed(f"worker {worker.id} could not be started: {printable_error(error)}")
        if failure is not None:
            _log.error("%s", printable_lines(failure, "  "))
            self._end(worker, ExitReason.START_FAILED)
            _settle(tried, failure)
            await worker.end_leftover_processes()
            return
        self._enlist(worker)
        _settle(tried, None)
        status = await worker.wait()
        if worker.stop_requested:
            self._end(worker, worker.exit_reason or ExitReason.STOP)
        else:
            self._note_crash(worker, status)
            self._end(worker, ExitReason.CRASH)
        await asyncio.gather(worker.disconnect(), worker.end_leftover_processes())

    def _enlist(self, worker: Worker) -> None:
        worker.state = State.SPARE
        self.watcher.ready(worker)
        telemetry.emit(
            names.EVENT_WORKER_READY, self._about(worker), body=f"worker {worker.id} ({worker.pid}) is ready"
        )
        if worker.is_restart:
            telemetry.emit(names.EVENT_WORKER_RESTARTED, self._about(worker), {"count": 1})
        self.promote()

    def _end(self, worker: Worker, reason: ExitReason) -> None:
        """Keep the books when a worker is gone."""
        worker.state = State.GONE
        self.workers.remove(worker)
        self.watcher.serves_no_more(worker)
        self.watcher.dismissed(worker)
        worker.record_lost_telemetry()
        telemetry.record(
            names.METRIC_WORKER_EXITS,
            1,
            {names.SNAKEPIT_POOL_NAME: self.pool, names.SNAKEPIT_WORKER_EXIT_REASON: reason.value},
        )
        if reason in (ExitReason.CRASH, ExitReason.START_FAILED):
            was_barred = self.restarts.is_blocked
            self.restarts.on_exit(useful=worker.answered > 0)
            if self.restarts.is_blocked:
                if not was_barred:
                    self._note_bar()
                self.watcher.barred()
        self.promote()
        self._wake.set()
        worker.removed.set()

    def _note_crash(self, worker: Worker, status: int) -> None:
        text = f"worker {worker.id} (pid {worker.pid}) {describe_exit(status)} with {worker.active} requests"
        _log.error("%s; it is being replaced", printable(text, MAX_MESSAGE_CHARACTERS))
        about = {**self._about(worker), names.SNAKEPIT_WORKER_EXIT_REASON: ExitReason.CRASH.value}
        telemetry.emit(names.EVENT_WORKER_CRASH, about, body=text)
        self.watcher.crashed(worker)

    def _note_bar(self) -> None:
        text = (
            f"{self.settings.max_restarts} workers of pool {self.pool!r} ended within "
            f"{self.settings.restart_window / 1000:g} s without having answered a request; "
            f"none is started for {self.restarts.delay():.0f} s"
        )
        _log.error("%s", printable(text, MAX_MESSAGE_CHARACTERS))
        telemetry.emit(names.EVENT_POOL_BARRED, {names.SNAKEPIT_POOL_NAME: self.pool}, body=text)

    async def _keep_number(self) -> None:
        """Start workers in the place of those that ended unasked."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._missing() > 0:
                wait = max(self.restarts.delay(), self._crowd())
                if wait > 0:
                    # The wait may get shorter: a worker that answers shows that they can live.
                    await asyncio.sleep(min(wait, _LONGEST_SLEEP))
                    continue
                worker, _ = self.launch_again()
                worker.is_restart = True

    def _crowd(self) -> float:
        """Return the seconds before another start would not only slow down those that there are; 0 for none."""
        now = time.monotonic()
        young = [worker for worker in self.workers if worker.state is State.STARTING and now - worker.started < _BUSY]
        return _LOOK_AGAIN if len(young) >= len(os.sched_getaffinity(0)) else 0.0

    def _missing(self) -> int:
        there = sum(worker.state in PRESENT and not worker.has_successor for worker in self.workers)
        return self.settings.size + self.settings.spares - there

    def _about(self, worker: Worker) -> dict[str, str]:
        return {names.SNAKEPIT_POOL_NAME: self.pool, names.SNAKEPIT_WORKER_ID: worker.id}


def _settle(tried: asyncio.Future[SnakepitError | None], outcome: SnakepitError | None) -> None:
    # Who waited for it may have been cancelled, and it with them.
    if not tried.done():
        tried.set_result(outcome)
