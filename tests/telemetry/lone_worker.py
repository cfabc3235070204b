"""A real worker process without an authority, under traffic, and the books it leaves behind."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from snakepit_otel.bridge.authority.jobs import CallFailed, ConnectionLost, Job
from snakepit_otel.bridge.wire.tool_calls import execute_request, result_of
from snakepit_otel.errors import ToolError
from snakepit_otel.pool.workers.process import ProcessWorker, WorkerSpec
from snakepit_otel.telemetry import Ledger

GRACE = 1.0
LATE = 8.0
"""Seconds; fewer than an exporter waits for a collector that does not answer."""
SPANS_OF_A_REQUEST = 6
QUICK = {
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "OTEL_BLRP_SCHEDULE_DELAY": "50",
    "OTEL_METRIC_EXPORT_INTERVAL": "250",
}
"""Has a second of traffic show what an hour does."""
_FAILS_EACH = 10


class LoneWorker:
    """Calls a worker's tools and counts its answers, each of which must be the right one, and not late."""

    def __init__(self, worker: ProcessWorker) -> None:
        self.worker = worker
        self.answered = 0
        self.raised = 0
        """How many answers, of those, were what a tool had raised."""
        self.spans_before = 0
        """Spans that had ended before the first request."""
        self._numbers = itertools.count()

    async def call(self, tool: str, **parameters: Any) -> Any:
        """Return what a tool returns; raise what it raises, or `CallFailed`."""
        request = execute_request(tool, parameters, None)
        response = await self.worker.execute(_job(request), LATE)
        self.answered += 1
        try:
            return result_of(response, request)
        except ToolError:
            self.raised += 1
            raise

    async def stream(self, tool: str) -> list[Any]:
        """Return the chunks of a tool that streams, as they came."""
        request = execute_request(tool, {}, None, stream=True)
        chunks: list[Any] = []

        async def take(chunk: Any) -> None:
            if chunk.data:
                chunks.append(orjson.loads(chunk.data))

        await self.worker.stream(_job(request), take, LATE)
        self.answered += 1
        return chunks

    async def one_call(self) -> None:
        """Make the next call of ordinary traffic; each tenth one's tool raises."""
        number = next(self._numbers)
        if number % _FAILS_EACH:
            assert await self.call("echo", value=number) == number
            return
        with pytest.raises(ToolError, match=str(number)):
            await self.call("fail", value=number)

    async def traffic(self, requests: int, callers: int = 8) -> None:
        """Make so many calls, and have them all answered."""
        left = iter(range(requests))

        async def caller() -> None:
            for _ in left:
                await self.one_call()

        await asyncio.gather(*(caller() for _ in range(callers)))

    @asynccontextmanager
    async def under_load(self, callers: int = 8) -> AsyncIterator[None]:
        """Make calls without a pause, until the worker takes no more. Those it took must be answered."""

        async def caller() -> None:
            try:
                while True:
                    await self.one_call()
            except CallFailed as error:
                # The status of a call that a worker did not take, as it stops or is gone.
                if not isinstance(error, ConnectionLost):
                    raise

        busy = asyncio.gather(*(caller() for _ in range(callers)))
        try:
            before = self.answered
            async with asyncio.timeout(LATE):
                while self.answered < before + 50:
                    await asyncio.sleep(0.005)
            yield
            await asyncio.wait_for(busy, LATE + GRACE)
        finally:
            busy.cancel()

    async def end(self, number: signal.Signals | None = None) -> tuple[int, float]:
        """Send a signal, if any; return the exit status and after how many seconds there was one."""
        sent = time.monotonic()
        if number is not None:
            os.kill(self.worker.pid, number)
        await asyncio.wait_for(self.worker.wait(), 30)
        assert self.worker.exit_status is not None
        return self.worker.exit_status, time.monotonic() - sent

    @property
    def ledger(self) -> Ledger:
        """What the worker's ledger says by now."""
        found = self.worker._ledger.read() if self.worker._ledger is not None else None
        assert found is not None, "the worker keeps no ledger"
        return found


def _job(request: Any) -> Job:
    async def on_assigned(_worker_id: str) -> None:
        pass

    return Job(request, request.tool_name, "", "", None, on_assigned)


@asynccontextmanager
async def lone_worker(
    directory: Path, environ: Mapping[str, str], adapter: str = "tests.telemetry.ending_adapter:ProcessExit"
) -> AsyncIterator[LoneWorker]:
    """Start a worker; killed at the end of the block if it still runs."""
    spec = WorkerSpec(
        worker_id="lone",
        pool="default",
        adapter=adapter,
        listen=f"unix:{directory}/lone.sock",
        authority="unix:/nonexistent",
        profile="thread",
        threads=2,
        max_message_bytes=1 << 20,
        shutdown_grace=GRACE,
        parent=os.getpid(),
        token="",
    )
    worker = ProcessWorker(spec, "run", {**QUICK, **environ})
    try:
        await worker.start(60)
        lone = LoneWorker(worker)
        if worker._ledger is not None:
            lone.spans_before = lone.ledger["traces"].ended
        yield lone
    finally:
        if worker.pid:
            await worker._kill()
        await worker._disconnect()
