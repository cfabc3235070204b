"""Contract of a worker, with the bookkeeping that all kinds of workers share."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from itertools import islice
from typing import Any, Self

from snakepit_otel.adapters._tool_description import ToolDescription
from snakepit_otel.bridge.authority.jobs import Job, TakeChunk, described
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.pool.workers.in_flight import CallsInFlight
from snakepit_otel.pool.workers.recycling import ExitReason
from snakepit_otel.telemetry import Details, names

# Seconds after a worker's end in which responses that it had sent may still arrive.
_LAST_RESPONSES_S = 0.05
_MAX_DESCRIBED = 5


class WorkerState(StrEnum):
    """Phase of a worker's life."""

    STARTING = "starting"
    SPARE = "spare"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    GONE = "gone"


PRESENT = (WorkerState.STARTING, WorkerState.SPARE, WorkerState.READY)  # serving, or about to
STARTED = (WorkerState.SPARE, WorkerState.READY)


class Suspicion(StrEnum):
    """Reason why a worker gets requests only where all are suspect."""

    CONNECTION = "connection"
    HEARTBEAT = "heartbeat"
    SOCKET = "socket"


class Worker(ABC):
    """A worker, whose life is `start`, calls, `stop` or `kill`, `wait`, `close`.

    Calls that fail raise `CallFailed`; blocks of `until_gone()` raise `WorkerGone` when the worker ends. Times are in
    seconds, points of time on the clock. `slot` is the worker's place in its pool, which its replacement inherits.
    """

    def __init__(
        self, worker_id: str, pool: str, clock: Callable[[], float] = time.monotonic, *, slot: int = 0
    ) -> None:
        self.id = worker_id
        self.details = Details({names.SNAKEPIT_WORKER_ID: worker_id})
        self.pool = pool
        self.slot = slot
        self.state = WorkerState.STARTING
        self.suspicion: Suspicion | None = None
        self.exit_reason: ExitReason | None = None  # once its end is decided
        self.stop_requested = False
        self.has_successor = False
        self.stop_hook_time = 0.0  # seconds that its adapter's `on_worker_stop`, if it has one, may take
        self.is_restart = False  # replaces a worker that was lost
        self.active = 0  # requests that have not ended, abandoned ones included
        self.abandoned_requests = 0  # active ones for which no caller waits any more
        self.assigned_requests = 0
        self.completed_requests = 0
        self.clock = clock
        self.started = clock()
        self.last_heartbeat: float | None = None
        self.missed_heartbeats = 0  # in a row
        self.memory: int | None = None  # resident bytes, as last read
        self.running: dict[str, Job] = {}  # by the id of the request, abandoned ones included
        self.tools: list[str] = []
        self.descriptions: Sequence[ToolDescription] = ()
        self.removed = asyncio.Event()  # from its pool
        self._in_flight = CallsInFlight()
        self.until_gone = self._in_flight.until_end
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def pid(self) -> int:
        """The process id; 0 where there is no process on this machine."""
        return 0

    @property
    def transport(self) -> str:
        """The system name of the transport of calls to it; empty before there is a connection."""
        return ""

    @property
    def is_reachable(self) -> bool:
        """Whether new connections can be made to the worker."""
        return True

    @property
    def suspect(self) -> bool:
        """Whether the worker gets requests only where all are suspect."""
        return self.suspicion is not None

    @abstractmethod
    async def start(self, timeout: float) -> None:
        """Start, and return when the worker serves. Raises `SnakepitError`, such as `WorkerStartFailed`."""

    @abstractmethod
    def execute(self, job: Job, timeout: float | None) -> Awaitable[Any]:
        """Run a request and return its response."""

    @abstractmethod
    def stream(self, job: Job, take: TakeChunk, timeout: float | None) -> Awaitable[None]:
        """Run a request and await `take` for each chunk; what `take` raises cancels the request."""

    @abstractmethod
    async def ping(self, timeout: float) -> None:
        """Check that the worker responds."""

    @abstractmethod
    async def await_request_end(self, request_id: str, timeout: float) -> bool:
        """Wait until nothing of a request runs in the worker any more; return whether that is so in time."""

    @abstractmethod
    async def configure(self, controls: Controls) -> None:
        """Set what the worker records: now, or before it is ready if it is starting."""

    @abstractmethod
    async def stop(self) -> None:
        """Have the worker, whose grace is over, deliver its telemetry and end; kill it if it does not end in time."""

    @abstractmethod
    def kill(self) -> None:
        """End the worker at once."""

    @abstractmethod
    async def wait_exit(self) -> str:
        """Return how the worker ended, such as `was killed by SIGKILL`, once it is gone."""

    @abstractmethod
    async def close(self) -> None:
        """Release what the worker, which is gone, has left; once its calls have ended."""

    @abstractmethod
    def admit(self) -> None:
        """Grant a started worker its access to shared resources."""

    @abstractmethod
    def revoke(self) -> None:
        """Withdraw that access from a worker that is gone, or about to be killed; may be repeated."""

    @abstractmethod
    def read_memory(self) -> None:
        """Update `memory`."""

    async def wait(self) -> str:
        """Return how the worker ended, once it is gone; its calls end shortly after."""
        description = await self.wait_exit()
        self.state = WorkerState.GONE
        asyncio.get_running_loop().call_later(_LAST_RESPONSES_S, self._in_flight.end_all)
        return description

    async def exited(self, within: float) -> str | None:
        """Return how the worker ended if it is gone within so many seconds, else None."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                return await self.wait_exit()
        return None

    @property
    def requests(self) -> str:
        """The number of the requests that it has, with tool, request and session of the first ones, for people."""
        first = [described(job) for job in islice(self.running.values(), _MAX_DESCRIBED)]
        more = f" and {self.active - len(first)} more" if first and self.active > len(first) else ""
        return f"{self.active} requests" + (f": {', '.join(first)}{more}" if first else "")

    def acquire(self) -> Self:
        """Count a request that is assigned to the worker, and return the worker."""
        self.active += 1
        self.assigned_requests += 1
        self._idle.clear()
        return self

    def release(self) -> None:
        """Count a request as ended."""
        self.active -= 1
        self._update_idle()

    def abandon(self) -> None:
        """Count an active request, for which no caller waits any more, as abandoned."""
        self.abandoned_requests += 1
        self._update_idle()

    def end_abandoned(self) -> None:
        """Count an abandoned request as ended; `release` follows."""
        self.abandoned_requests -= 1

    def _update_idle(self) -> None:
        if self.active == self.abandoned_requests:
            self._idle.set()

    async def idle(self, within: float) -> bool:
        """Wait until no caller waits for the worker, for so many seconds at most; return whether that is so."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._idle.wait()
        return self._idle.is_set()
