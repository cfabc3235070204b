"""A pool of workers for one adapter: its fleet, the policies that keep it, and the requests that run on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from snakepit_otel.adapters._tool_description import ToolDescription
from snakepit_otel.bridge.wire.restart_report import Replacement
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.pool.dispatch.runner import RequestRunner
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.workers.base import Worker
from snakepit_otel.pool.workers.fleet import Fleet
from snakepit_otel.pool.workers.heartbeats import Heartbeats
from snakepit_otel.pool.workers.launch import WorkerFactory
from snakepit_otel.pool.workers.recycling import ExitReason
from snakepit_otel.pool.workers.replacement import Replacer
from snakepit_otel.pool.workers.supervisor import Supervisor


class WorkerPool:
    """`settings.size` workers for one adapter, and the queue in front of them; `clock` is the event loop's."""

    def __init__(
        self,
        name: str,
        adapter: str,
        settings: PoolSettings,
        make_worker: WorkerFactory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.adapter = adapter
        self.settings = settings
        self.clock = clock
        self.running = False
        self.fleet = Fleet(
            name, settings, lambda worker_id, slot: make_worker(worker_id, slot, self._controls), self, clock
        )
        self.supervisor = Supervisor(self.fleet)
        self.replacer = Replacer(self.fleet)
        self.heartbeats = Heartbeats(
            self.fleet, lambda worker: self.replacer.replace_soon(worker, ExitReason.UNRESPONSIVE)
        )
        self.requests = requests = RequestRunner(settings, self.fleet, self.replacer, clock)
        self.slots, self.queue, self.breaker = requests.slots, requests.slots.queue, requests.breaker
        self.execute, self.stream, self.label = requests.execute, requests.stream, requests.label
        self._policies: list[asyncio.Task[None]] = []
        self._controls: Controls | None = None
        self.descriptions: Sequence[ToolDescription] = ()  # of the tools of the worker that served last

    @property
    def waiting(self) -> int:
        """The number of requests that wait, those of anonymous callers for a permit included."""
        return len(self.queue) + len(self.requests.anonymous.queue)

    @property
    def longest_wait(self) -> float:
        """Seconds that the oldest of them has waited; 0 where there is none."""
        return max(self.queue.longest_wait, self.requests.anonymous.queue.longest_wait)

    @property
    def workers(self) -> list[Worker]:
        """The workers, in any state."""
        return self.fleet.workers

    async def start(self) -> None:
        """Start all workers and return when each is ready or has failed; raise the first error if none is ready."""
        self.running = True
        await self.supervisor.start()
        loop = asyncio.get_running_loop()
        self._policies = [
            loop.create_task(self.supervisor.run(), name=f"supervisor of pool {self.name}"),
            loop.create_task(self.replacer.run(), name=f"replacer of pool {self.name}"),
            loop.create_task(self.heartbeats.run(), name=f"heartbeats of pool {self.name}"),
        ]
        self.requests.accept()

    async def drain(self) -> None:
        """Refuse new requests, and return when the present ones have ended, or after `shutdown_grace`."""
        await self.requests.drain()

    async def stop(self) -> None:
        """Stop the workers; `drain` comes first."""
        self.requests.close()
        for task in self._policies:
            task.cancel()
        await asyncio.gather(*self._policies, return_exceptions=True)
        await self.replacer.close()
        await self.fleet.stop()
        await self.requests.wait_abandoned()
        self.requests.rejections.report()
        self.requests.outcomes.log.close()
        self.running = False

    async def replace_all(self, on_replaced: Callable[[Replacement], None]) -> None:
        """Replace all workers, one after the other, in the order of `settings.replacement_order`."""
        if not self.requests.is_accepting:
            raise self.requests.not_running()
        await self.replacer.replace_all(on_replaced)

    async def configure(self, controls: Controls) -> None:
        """Set what all workers record, now and later; a busy worker is waited for five seconds, and follows later."""
        self._controls = controls
        await asyncio.gather(*(worker.configure(controls) for worker in self.workers))

    # Callbacks of the fleet

    def on_serving(self, worker: Worker) -> None:
        """Offer the worker's slots to requests."""
        self.requests.tools |= set(worker.tools)
        self.descriptions = worker.descriptions
        self.requests.idempotent_tools = frozenset(one.name for one in worker.descriptions if one.idempotent)
        self.slots.add(worker)

    def on_draining(self, worker: Worker) -> None:
        """Withdraw the worker's slots."""
        self.slots.remove(worker)

    def on_suspected(self, worker: Worker) -> None:
        """Assign the slots of suspects, if all workers are suspect now."""
        self.slots.assign_all()

    def on_recovered(self, worker: Worker) -> None:
        """Assign the worker's slots again."""
        self.slots.assign(worker)

    def on_exit(self, worker: Worker, reason: ExitReason) -> None:
        """Withdraw the worker's slots; a crash is one failure, however many requests it had."""
        if reason is ExitReason.CRASH and worker.active:
            self.breaker.on_failure()
        self.slots.remove(worker)

    def on_start_blocked(self) -> None:
        """Refuse requests if no worker serves, rather than have them wait for workers that are not started."""
        if not self.slots.serving:
            self.breaker.trip()
