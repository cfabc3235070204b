"""What a pool has a worker record, and what that costs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.pool.workers.telemetry_controls import WorkerTelemetryControls
from snakepit_otel.telemetry import Level
from tests.bridge.parts import serving
from tests.bridge.upstream import UpstreamWorker
from tests.waiting import until


@pytest.fixture
async def served(short_path: Path) -> AsyncIterator[tuple[UpstreamWorker, Any]]:
    """A worker that takes what it is told and never says so, and a stub to call it by."""
    service = UpstreamWorker()
    async with serving(service, f"unix:{short_path}/w") as stub:
        yield service, stub


@pytest.mark.parametrize("level", [Level.ESSENTIAL, Level.FULL])
async def test_what_it_was_started_with_needs_no_stream(served: tuple[UpstreamWorker, Any], level: Level) -> None:
    """A worker that already records what is wanted is not spoken to."""
    service, stub = served
    await WorkerTelemetryControls(stub, "w-1", level).apply(Controls(level=level))
    assert service.streams == 0


async def test_what_was_started_off_is_left_alone(served: tuple[UpstreamWorker, Any]) -> None:
    """A worker that has nothing set up is not spoken to, whatever is wanted."""
    service, stub = served
    await WorkerTelemetryControls(stub, "w-1", Level.OFF).apply(Controls())
    assert service.streams == 0


async def test_a_worker_too_busy_to_answer_holds_up_nobody(
    served: tuple[UpstreamWorker, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It is waited for with patience and no longer; that is said, and the stream stays for it to obey later."""
    service, stub = served
    recording = WorkerTelemetryControls(stub, "w-1", Level.FULL, patience=0.05)
    await recording.apply(Controls(level="off"))
    await recording.apply(Controls())
    assert "worker w-1 has not yet said" in caplog.text
    await until(lambda: service.heard[-3:] == list(Controls().messages()))
    assert service.streams == 1
    await recording.close()
    await recording.apply(Controls(level="off"))
    assert service.streams == 1
