"""Troubles made on purpose: each trouble is made until the alerts that are to tell of it have fired."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Any

import numpy as np

from snakepit_otel.errors import SnakepitError
from tests.dashboards.proof.deployment import Deployment
from tests.dashboards.proof.faltering import FALTERING
from tests.dashboards.proof.stack import Stack
from tests.dashboards.proof.watch import Watch
from tests.waiting import until

TROUBLED, EVICTING, COLLECTOR = "troubled", "evicting", ""
QUOTA = 500
EVICTING_QUOTA = 20
SHARED_BYTES = 1_000_000
DOOM = "SNAKEPIT_DOOM"

EXPECTED = {
    **dict.fromkeys(
        (
            "ErrorBudgetBurnFast",
            "ErrorBudgetBurnSlow",
            "LatencyBudgetBurn",
            "NoReadyWorkers",
            "WorkersCrashLooping",
            "CircuitOpen",
            "PoolSaturated",
            "HeartbeatsMissed",
            "AffinityLost",
            "SessionQuotaNear",
            "SessionsRejected",
            "SessionsAccumulating",
            "CleanupFailing",
            "ReferencesOutlived",
            "SharedMemoryHigh",
            "MetricOverflow",
        ),
        TROUBLED,
    ),
    **dict.fromkeys(
        ("SessionsEvicted", "ZeroCopyFallback", "TelemetryLost", "AuthorityDown", "WorkersOrphaned"), EVICTING
    ),
    **dict.fromkeys(
        (
            "SessionStoreUnavailable",
            "SessionStoreSlow",
            "SessionStoreClockSkewed",
            "SessionWritesNotDurable",
            "SessionEventsLost",
        ),
        FALTERING,
    ),
    "CollectorLoses": COLLECTOR,
}
"""Every alert, and which deployment has it fire."""

_PATIENCE = 300.0
"""Seconds for an alert to fire, on a busy machine; SessionsAccumulating wants more than three hours, so a good 195."""


def troubled_settings(doom: Path) -> dict[str, Any]:
    """Return the settings of a deployment in which most things go wrong; `doom` is a file that kills workers."""
    bad = "tests.dashboards.proof.adapter:Bad"
    return {
        "adapter": bad,
        "session_store": {"max_sessions": QUOTA, "strict_mode": True, "cleanup_interval": 1_000},
        "zero_copy": {"max_host_bytes": SHARED_BYTES},
        "pool": {"size": 2},
        "pools": {
            "narrow": {"adapter": bad, "size": 1, "max_queue_size": 2},
            "stuck": {"adapter": bad, "size": 1, "heartbeat_interval": 100, "heartbeat_timeout": 200},
            "doomed": {
                "adapter": "tests.pool.proofs.doomed:Doomed",
                "size": 1,
                "environment": {DOOM: str(doom)},
                "breaker_failures": 2,
                "breaker_reset": 2_000,
                # What is run again waits for its next worker, however long that takes to start.
                "queue_timeout": 30_000,
            },
        },
    }


def evicting_settings() -> dict[str, Any]:
    """Return the settings of a deployment that evicts sessions, and copies instead of sharing."""
    return {
        "adapter": "tests.dashboards.proof.adapter:Bad",
        "session_store": {"max_sessions": EVICTING_QUOTA, "overflow": "evict", "cleanup_interval": 1_000},
        "zero_copy": {"enabled": False},
        "pool": {"size": 1},
    }


def evicting_environ(nobody: int) -> dict[str, str]:
    """Return the environment of the same: its spans go to a port where nobody listens, from a queue that is short."""
    return {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{nobody}",
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "1",
        "OTEL_BSP_MAX_QUEUE_SIZE": "64",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "32",
    }


class Troubles:
    """All of them; each method is one, and goes on until told to end, or until its alerts have fired."""

    def __init__(
        self, troubled: Deployment, evicting: Deployment, stack: Stack, watch: Watch, doom: Path, over: asyncio.Event
    ) -> None:
        self.troubled = troubled
        self.evicting = evicting
        self.stack = stack
        self.watch = watch
        self.doom = doom
        self.over = over

    async def all(self) -> None:
        """Make all of them at once; return when all alerts have fired, or have had their time."""
        going_on = [
            self.sessions_leak,
            self.requests_fail,
            self.requests_are_late,
            self.sessions_move,
            self.cleaning_up_fails,
            self.views_are_kept,
        ]
        with_an_end = [
            self.workers_die,
            self.telemetry_is_lost_with_workers,
            self.workers_are_stuck,
            self.the_back_end_is_away,
            self.evicting_goes_down,
        ]
        async with asyncio.TaskGroup() as group:
            for trouble in going_on:
                group.create_task(trouble())
            for trouble in with_an_end:
                group.create_task(self._in_time(trouble()))
            await self._in_time(self._all_have_fired())
            self.over.set()

    # Those that go on to the end

    async def sessions_leak(self) -> None:
        """Make sessions and end none, beyond the quota."""
        numbers = count()
        while not self.over.is_set():
            await self._tried("add", {"amount": 1}, session_id=f"leak-{next(numbers)}")
            # Slowly for as long as it takes to be seen, and then to the quota.
            known = self.watch.has_seen(TROUBLED, "SessionsAccumulating")
            full = self.watch.has_seen(TROUBLED, "SessionsRejected")
            await asyncio.sleep(0.02 if known and not full else 0.8)

    async def requests_fail(self) -> None:
        """Fail in one way after the other."""
        ways: Iterator[tuple[str, dict[str, Any], dict[str, Any]]] = cycle(
            [
                ("fail", {}, {"session_id": "complaining"}),
                ("call_nobody", {}, {"session_id": "complaining"}),
                ("forget_an_array", {}, {"session_id": "complaining"}),
                ("mislabel", {}, {}),
                ("miscount", {}, {}),
                ("fork", {}, {}),
            ]
        )

        async def fail() -> None:
            tool, arguments, how = next(ways)
            await self._tried(tool, arguments, **how)

        await self._again_and_again(fail, every=0.4)

    async def requests_are_late(self) -> None:
        """Ask for more than one worker and a short line can do, each for more than a second."""
        await self._again_and_again(
            lambda: asyncio.gather(*(self._tried("work", {"seconds": 1.2}, pool="narrow") for _ in range(5))), every=0
        )

    async def sessions_move(self) -> None:
        """Make two requests of one session at a time, so that one of them finds another worker."""
        await self._again_and_again(
            lambda: asyncio.gather(*(self._tried("work", {"seconds": 0.1}, session_id="torn") for _ in range(2))),
            every=0.3,
        )

    async def cleaning_up_fails(self) -> None:
        """Leave what cannot be cleaned up."""
        await self._again_and_again(lambda: self._tried("make_a_mess"), every=1.5)

    async def views_are_kept(self) -> None:
        """Keep views of arrays beyond their requests."""
        await self._again_and_again(lambda: self._tried("keep", {"array": np.arange(2_000.0)}), every=1.5)

    # Those that have an end of their own

    async def workers_die(self) -> None:
        """Kill workers at their work, and then whenever one is started; let them live again, and see them serve."""
        while not (await self.troubled.pool("doomed")).retried:
            await self._tried("die", pool="doomed", idempotent=True)
            await asyncio.sleep(0.3)
        self.doom.touch()
        while not self.watch.has_seen(TROUBLED, "NoReadyWorkers", "WorkersCrashLooping", "CircuitOpen"):
            for worker in await self.troubled.workers("doomed"):
                _kill(worker.pid, signal.SIGKILL)
            await self._tried("echo", {"value": 1}, pool="doomed", timeout=1)
            await asyncio.sleep(0.3)
        self.doom.unlink()
        while (await self.troubled.pool("doomed")).breaker != "closed":
            await self._tried("echo", {"value": 1}, pool="doomed", timeout=1)
            await asyncio.sleep(0.3)

    async def telemetry_is_lost_with_workers(self) -> None:
        """Kill workers amid their sessions, until one had something to send."""
        lost = f'snakepit_worker_telemetry_lost_total{{service_name="{TROUBLED}"}}'
        while not await asyncio.to_thread(self.stack.query, lost):
            _kill((await self.troubled.workers())[0].pid, signal.SIGKILL)
            # Long enough for the next one to serve, and for this one's loss to be told.
            await asyncio.sleep(5)

    async def workers_are_stuck(self) -> None:
        """Count too finely, hold the interpreter, and then the memory that is shared; and have the worker replaced."""
        await self._tried("count_orders", {"orders": 2_100}, pool="stuck")
        await self.watch.sees(TROUBLED, "MetricOverflow")
        started = str(self.doom.with_name("started"))
        while not self.watch.has_seen(TROUBLED, "HeartbeatsMissed"):
            await self._tried("hold_the_interpreter", {"started": started, "seconds": 3}, pool="stuck")
        enough = self.doom.with_name("enough")
        array = np.zeros(int(SHARED_BYTES * 0.9 / 8))
        holding = asyncio.create_task(self._tried("hold", {"array": array, "until": str(enough)}, pool="stuck"))
        try:
            await self.watch.sees(TROUBLED, "SharedMemoryHigh")
        finally:
            enough.touch()
            await holding
        await self.troubled.client.restart_workers("stuck")

    async def the_back_end_is_away(self) -> None:
        """Take from the collector the back end that has had traces and logs from it."""
        await until(lambda: self.stack.sink.spans and self.stack.sink.events)
        await asyncio.to_thread(self.stack.has_back_end.close)

    async def evicting_goes_down(self) -> None:
        """Evict sessions, copy arrays and lose spans; kill the authority, with a worker that does not notice."""
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(2):
                group.create_task(self._evict_and_copy(over, f"{number}"))
            try:
                await self.watch.sees(
                    EVICTING, "SessionsEvicted", "ZeroCopyFallback", "TelemetryLost", within=_PATIENCE
                )
            finally:
                over.set()
        await self.evicting.client.execute("outlive")
        (worker,) = await self.evicting.workers()
        _kill(worker.pid, signal.SIGSTOP)
        try:
            await self.evicting.kill()
            await self.watch.sees(EVICTING, "AuthorityDown")
        finally:
            # It kills the worker that was left; nobody else would.
            await self.evicting.start()
        await self.watch.sees(EVICTING, "WorkersOrphaned")
        await self._evict_and_copy(self.over, "again")

    async def _all_have_fired(self) -> None:
        for alert, service in EXPECTED.items():
            await self.watch.sees(service, alert, within=_PATIENCE)

    async def _evict_and_copy(self, over: asyncio.Event, name: str) -> None:
        numbers, client = count(), self.evicting.client
        while not over.is_set():
            await client.execute("double", {"array": np.arange(2_000.0)}, session_id=f"{name}-{next(numbers)}")
            await asyncio.sleep(0.2)

    async def _again_and_again(self, trouble: Callable[[], Awaitable[Any]], every: float) -> None:
        while not self.over.is_set():
            await trouble()
            await asyncio.sleep(every)

    async def _tried(self, tool: str, arguments: dict[str, Any] | None = None, **how: Any) -> None:
        """Make a request of which it does not matter what becomes."""
        try:
            await self.troubled.client.execute(tool, arguments, **how)
        except SnakepitError:
            return

    async def _in_time(self, trouble: Awaitable[Any]) -> None:
        """Go on if it has not come to its end in time: which alerts did not fire is told at the end."""
        try:
            await asyncio.wait_for(trouble, _PATIENCE)
        except TimeoutError:
            return


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
