"""Slots of workers: what inherits them, their order of replacement, and their environment."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from snakepit_otel.common.validation import build
from snakepit_otel.errors import ConfigurationError, WorkerStartFailed
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.status import status_of
from snakepit_otel.pool.workers.base import WorkerState
from snakepit_otel.pool.workers.stub import StubWorker
from tests.pool.stub_pool import stub_pool
from tests.pool.virtual_time import virtual_time
from tests.waiting import until


@virtual_time
async def test_a_replacement_has_the_slot_of_the_worker_before_it() -> None:
    """Slots are from 0; a successor, and what follows a crash, take that of the worker that goes, spares their own."""
    async with stub_pool(size=2, spares=1) as stubs:
        assert [(worker.id, worker.slot) for worker in stubs.made] == [
            ("default-1.1", 0), ("default-2.1", 1), ("default-3.1", 2),
        ]  # fmt: skip
        stubs.made[1].exit()
        await until(lambda: len(stubs.made) == 4)
        assert (stubs.made[3].id, stubs.made[3].slot) == ("default-2.2", 1)
        await stubs.pools.restart(None, lambda _: None)
        assert sorted(worker.slot for worker in stubs.pool.workers) == [0, 1, 2]
        assert sorted(worker.id for worker in stubs.pool.workers) == ["default-1.2", "default-2.3", "default-3.2"]
        assert [worker.slot for worker in status_of(stubs.pool).workers] == [
            worker.slot for worker in stubs.pool.workers
        ]


@virtual_time
async def test_with_stop_first_no_two_workers_have_one_slot() -> None:
    """A worker is gone, its stop hook over, when its successor starts; requests wait, and none fails."""
    events: list[str] = []

    async def on_start(worker: StubWorker) -> None:
        assert [other.slot for other in stubs.pool.workers].count(worker.slot) == 1
        events.append(f"start {worker.id}")

    async def on_stop(worker: StubWorker) -> None:
        events.append(f"stop {worker.id}")

    async with stub_pool(size=2, replacement_order="stop_first") as stubs:
        stubs.script.start_seconds = stubs.script.stop_seconds = 1
        stubs.script.on_worker_start, stubs.script.on_worker_stop = on_start, on_stop
        rolling = asyncio.create_task(stubs.pools.restart(None, lambda _: None))
        while not rolling.done():
            await stubs.execute("sleep", 0.1)
        assert not (await rolling).failures
        assert events == ["stop default-1.1", "start default-1.2", "stop default-2.1", "start default-2.2"]
        assert len(stubs.pool.workers) == 2


@virtual_time
async def test_with_stop_first_a_start_that_fails_ends_the_rolling_restart() -> None:
    """One worker is lost at most, others are left as they are, and the lost one is started again by itself."""
    async with stub_pool(size=3, replacement_order="stop_first") as stubs:
        stubs.script.start_error = WorkerStartFailed("it does not work today")
        report = await stubs.pools.restart(None, lambda _: None)
        assert [one.failure for one in report.failures] == [
            "it was stopped, and its successor did not start: it does not work today",
            "it goes on, since the one before it has no successor",
            "it goes on, since the one before it has no successor",
        ]
        assert stubs.in_state(WorkerState.READY) == ["default-2.1", "default-3.1"]
        stubs.script.start_error = None
        await until(lambda: len(stubs.in_state(WorkerState.READY)) == 3)
        assert sorted(worker.slot for worker in stubs.pool.workers) == [0, 1, 2]


@virtual_time
async def test_a_start_hook_that_fails_is_a_failed_start() -> None:
    """The old worker goes on, and the report has the hook's error."""

    async def on_start(worker: StubWorker) -> None:
        raise WorkerStartFailed(f"worker {worker.id} could not start: on_worker_start raised ValueError")

    async with stub_pool() as stubs:
        stubs.script.on_worker_start = on_start
        (failure,) = (await stubs.pools.restart(None, lambda _: None)).failures
        assert "on_worker_start raised ValueError" in str(failure.failure)
        assert await stubs.execute("echo") == "default-1.1"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"environment": {"A": "{slot}", "B": "{pool}/{{slot}}", "C": '{"a": {"n": {slot}}, "b": {}}'}},
            [{"A": str(slot), "B": "gpu/{slot}", "C": f'{{"a": {{"n": {slot}}}, "b": {{}}}}'} for slot in range(3)],
        ),
        (
            {"environment": {"A": "all", "B": "b"}, "slot_environment": [{"A": "0"}, {"C": "1-{slot}"}]},
            [{"A": "0", "B": "b"}, {"A": "all", "B": "b", "C": "1-1"}, {"A": "0", "B": "b"}],
        ),
        ({}, [{}, {}, {}]),
    ],
)
def test_each_slot_has_its_environment(settings: dict[str, Any], expected: list[dict[str, str]]) -> None:
    """Templates have the slot and the pool's name, and JSON keeps its braces; a list is repeated over the slots."""
    pool = PoolSettings(**settings)
    assert [pool.environment_of(slot, "gpu") for slot in range(3)] == expected


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("environment", {"GPU": "{slots}"}, "another field than {slot} and {pool}; write {{name}} for {name}"),
        ("environment", {"GPU": "{slot} {SLOT}"}, "another field"),
        ("slot_environment", [{}, {"GPU": "{gpu}"}], "another field"),
    ],
)
def test_bad_templates_are_refused_by_name(setting: str, value: Any, words: str) -> None:
    """Other fields are errors of the setting, without the value, that say what to write."""
    with pytest.raises(ConfigurationError, match=re.escape(f"pool.{setting}: the value of GPU has {words}")):
        build(PoolSettings, {setting: value}, "pool.")
