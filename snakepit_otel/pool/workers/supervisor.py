"""Supervision of a fleet: starts its workers in batches, and replaces those that are lost."""

from __future__ import annotations

import asyncio
import os

from snakepit_otel.errors import SnakepitError
from snakepit_otel.pool.workers.base import WorkerState
from snakepit_otel.pool.workers.fleet import Fleet, StartOutcome

_MAX_SLEEP_S = 1.0
_BUSY_START_S = 2.0  # after which a start is assumed to wait for something else than a processor
_BUSY_RETRY_S = 0.05


class Supervisor:
    """Keeps `settings.size` workers that serve, and `settings.spares` that are ready to."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def start(self) -> None:
        """Start all workers by batches, until each is ready or has failed. Raises the first error if none is ready."""
        outcomes: list[StartOutcome] = []
        # One mistake in an adapter fails all starts, and is the error that is raised.
        self._fleet.holds_failures = True
        try:
            failures = await self._failures(outcomes)
        finally:
            self._fleet.holds_failures = False
        if len(failures) == len(outcomes):
            await self._fleet.stop()
            raise failures[0]
        self._fleet.report_failures(failures)

    async def _failures(self, outcomes: list[StartOutcome]) -> list[SnakepitError]:
        """Launch all workers by batches, and return the errors of those that failed."""
        settings = self._fleet.settings
        wanted = settings.size + settings.spares
        while len(outcomes) < wanted:
            if outcomes:
                await asyncio.wait(outcomes, timeout=settings.startup_batch_delay / 1000)
                if all(outcome.done() and outcome.result() is not None for outcome in outcomes):
                    break
            batch = min(settings.startup_batch_size, wanted - len(outcomes))
            outcomes += [self._fleet.launch()[1] for _ in range(batch)]
        return [error for error in await asyncio.gather(*outcomes) if error is not None]

    async def run(self) -> None:
        """Replace lost workers as soon as the restart policy allows, until cancelled."""
        fleet = self._fleet
        while True:
            await fleet.changed.wait()
            fleet.changed.clear()
            while fleet.missing > 0:
                delay = max(fleet.restarts.delay(), self._busy_delay())
                if delay > 0:
                    # The delay may get shorter meanwhile, when a worker completes its first request.
                    await asyncio.sleep(min(delay, _MAX_SLEEP_S))
                    continue
                worker, _ = fleet.relaunch()
                worker.is_restart = True

    def _busy_delay(self) -> float:
        """Return the seconds in which another start would only slow down the current ones; 0 for none."""
        now = self._fleet.clock()
        starting = [worker for worker in self._fleet.workers if worker.state is WorkerState.STARTING]
        busy = sum(now - worker.started < _BUSY_START_S for worker in starting)
        return _BUSY_RETRY_S if busy >= len(os.sched_getaffinity(0)) else 0.0
