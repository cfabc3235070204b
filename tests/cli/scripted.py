"""An authority that says what a test has it say, on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from grpc import aio

from snakepit_otel import SessionStore
from snakepit_otel.bridge.authority.admin_service import AdminService
from snakepit_otel.bridge.wire.authority_services import ADMIN
from snakepit_otel.bridge.wire.restart_report import Replacement, RestartReport
from snakepit_otel.bridge.wire.status import PoolStatus, SessionsStatus, Status, ToolStatus, WorkerStatus
from snakepit_otel.errors import PoolNotFound
from snakepit_otel.rpc.addresses import listen
from snakepit_otel.rpc.services import handlers_of
from snakepit_otel.rpc.transports.grpc import add_handlers

STATUS = Status(
    version="1.2.3",
    run_id="snakepit-abc",
    pid=4321,
    uptime_seconds=7_500,
    telemetry_level="full",
    sessions=SessionsStatus(created=9, deleted=2, pruned_ttl=3, live=4, memory_bytes=2_048, max_sessions=100),
    pools=(
        PoolStatus(
            name="default",
            adapter="shop.adapters:Shop",
            profile="process",
            affinity="hint",
            size=2,
            spares=1,
            ready_slots=1,
            busy_slots=1,
            queue_length=3,
            queue_limit=1_000,
            queue_oldest_seconds=1.25,
            breaker="open",
            breaker_retry_seconds=12,
            start_blocked_seconds=42,
            service_seconds=0.012,
            answered=100,
            raised=7,
            failed=2,
            rejected={"queue_timeout": 4, "pool_saturated": 1},
            retried=5,
            restarts=6,
            workers=(
                WorkerStatus(
                    id="default-1.1",
                    pid=101,
                    state="ready",
                    active=1,
                    requests=77,
                    age_seconds=180,
                    memory_bytes=64 << 20,
                    heartbeat_age_seconds=0.4,
                    missed_heartbeats=2,
                    suspect="heartbeat",
                ),
                WorkerStatus(id="default-2.3", pid=0, state="starting", slot=1),
            ),
        ),
    ),
    tools=(
        ToolStatus(name="cheap\x1b[31m"),
        ToolStatus(
            name="classify",
            pool="default",
            calls=100,
            raised=7,
            refused=1,
            p50_seconds=0.0015,
            p95_seconds=0.25,
            retried=5,
            failed=2,
        ),
    ),
)


@dataclass
class Scripted:
    """What is said, which a test may change, and what was asked."""

    address: str
    status: Status = STATUS
    replacements: tuple[Replacement, ...] = ()
    restarted: list[str | None] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    """Clear for as long as a restart is not to end."""

    async def tell(self) -> Status:
        """Say how it is."""
        return self.status

    async def restart(self, pool: str | None, progress: Callable[[Replacement], None]) -> RestartReport:
        """Say what was replaced; there are only the pools of the status."""
        self.restarted.append(pool)
        if pool is not None and pool not in {known.name for known in self.status.pools}:
            raise PoolNotFound(f"there is no pool {pool!r}")
        for replacement in self.replacements:
            progress(replacement)
        await self.hold.wait()
        return RestartReport(self.replacements)


@asynccontextmanager
async def scripted(directory: Path) -> AsyncIterator[Scripted]:
    """Serve, for as long as the block runs."""
    server = aio.server()
    said = Scripted(f"unix:{directory}/a.sock")
    said.hold.set()
    service = AdminService(SessionStore(), status=said.tell, restart=said.restart)
    add_handlers(server, handlers_of(ADMIN, service))
    listen(server, said.address)
    await server.start()
    try:
        yield said
    finally:
        await server.stop(None)
