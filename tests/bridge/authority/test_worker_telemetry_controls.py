"""Telemetry controls of a worker: sent where they differ, and without holding up the sender."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from snakepit_otel.bridge.authority.worker_telemetry_controls import WorkerTelemetryControls
from snakepit_otel.bridge.proto import snakepit_supervision_pb2 as pb
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.rpc import RpcError, StatusCode
from snakepit_otel.telemetry import Level
from tests.waiting import until


def of_message(message: pb.SetTelemetryRequest) -> Controls:
    """Return the controls of a message."""
    return Controls(
        level=message.level, sampling=message.sampling, allow=tuple(message.allow), deny=tuple(message.deny)
    )


class Worker:
    """A connection to a worker that answers while `idle` is set; `failures` are raised first."""

    def __init__(self) -> None:
        self.received: list[Controls] = []
        self.idle = asyncio.Event()
        self.idle.set()
        self.failures: list[RpcError] = []

    async def call(self, method: str, request: pb.SetTelemetryRequest, **_: Any) -> pb.SetTelemetryResponse:
        """Take controls."""
        if self.failures:
            raise self.failures.pop()
        self.received.append(of_message(request))
        await self.idle.wait()
        return pb.SetTelemetryResponse()


@pytest.fixture
def busy(worker: Worker) -> Iterator[Worker]:
    """The worker, too busy to answer."""
    worker.idle.clear()
    yield worker
    worker.idle.set()


@pytest.fixture
async def worker() -> Worker:
    """A worker that is idle."""
    return Worker()


@pytest.mark.parametrize("level", [Level.ESSENTIAL, Level.FULL])
async def test_the_controls_of_the_start_need_no_call(worker: Worker, level: Level) -> None:
    """A worker that already records what is wanted is not called."""
    await WorkerTelemetryControls(worker, "w-1", level).apply(Controls(level=level))
    assert worker.received == []


async def test_a_worker_that_was_started_off_is_left_alone(worker: Worker) -> None:
    """A worker that has nothing set up is not called, whatever is wanted."""
    await WorkerTelemetryControls(worker, "w-1", Level.OFF).apply(Controls())
    assert worker.received == []


async def test_controls_are_sent_whole_and_back_again(worker: Worker) -> None:
    """Every change is sent, also the one back to what the worker was started with."""
    controls = WorkerTelemetryControls(worker, "w-1", Level.FULL)
    changed = Controls(level="essential", sampling=0.25, allow=["snakepit.*"], deny=["snakepit.adapter.execute"])
    for wanted in (changed, changed, Controls()):
        await controls.apply(wanted)
    assert worker.received == [changed, Controls()]


async def test_a_busy_worker_holds_up_nobody(busy: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """It is waited for with patience and no longer, with a warning; the newest controls are those it gets."""
    controls = WorkerTelemetryControls(busy, "w-1", Level.FULL, patience=0.05)
    await controls.apply(Controls(level="off"))
    await controls.apply(Controls())
    assert "worker w-1 has not yet applied the telemetry controls" in caplog.text
    assert busy.received == [Controls(level="off"), Controls()]
    await controls.close()
    await controls.apply(Controls(level="off"))
    assert len(busy.received) == 2


async def test_controls_that_did_not_arrive_are_sent_again(worker: Worker) -> None:
    """A call that fails is repeated after a wait, until the worker has the controls."""
    worker.failures = [RpcError(StatusCode.UNAVAILABLE, "connection reset")]
    controls = WorkerTelemetryControls(worker, "w-1", Level.FULL)
    await controls.apply(Controls(sampling=0.5))
    await until(lambda: worker.received == [Controls(sampling=0.5)])
