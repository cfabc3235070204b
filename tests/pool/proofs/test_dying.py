"""Adapters that die: few starts, quick refusals, and neighbours that notice nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from snakepit_otel import Snakepit
from snakepit_otel.errors import CircuitOpen, SnakepitError
from tests.pool.proofs.adapter import Proving
from tests.pool.proofs.figures import Say, milliseconds, percentile, saying, spread
from tests.waiting import until

SECONDS = 10.0
MOST_STARTS = 10
EVERY = 0.05
"""Seconds from one request to the next, in each pool."""


@dataclass
class Seen:
    """What became of the requests of one pool."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    """How long it took to be told that the circuit is open, where it was open when the request came."""
    sent_away: list[float] = field(default_factory=list)
    """How long it took those that had come before, and waited for a worker."""
    failures: Counter[str] = field(default_factory=Counter)

    async def request(self, pit: Snakepit, pool: str, tool: str) -> None:
        """Make one request and note what becomes of it."""
        arguments = {"value": 1} if tool == "echo" else {}
        open_already = pit.pools[pool].breaker.retry_after > 0
        began = time.monotonic()
        try:
            await pit.execute(tool, arguments, pool=pool, timeout=20)
        except CircuitOpen:
            (self.refused if open_already else self.sent_away).append(time.monotonic() - began)
        except SnakepitError as error:
            self.failures[type(error).__name__] += 1
        else:
            self.answered.append(time.monotonic() - began)


async def load(pit: Snakepit, seconds: float, tools: dict[str, str]) -> dict[str, Seen]:
    """Make steady requests for a tool of each pool, and return what became of them."""
    seen = {pool: Seen() for pool in tools}
    requests, number, began = [], 0, time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        if now < number * EVERY:
            await asyncio.sleep(EVERY / 10)
            continue
        requests += [asyncio.create_task(seen[pool].request(pit, pool, tool)) for pool, tool in tools.items()]
        number += 1
    await asyncio.gather(*requests)
    return seen


def pit_with(flag: Path) -> Snakepit:
    """A pool that can be doomed, and its neighbour."""
    return Snakepit(
        pools={
            "doomed": {
                "adapter": "tests.pool.proofs.doomed:Doomed",
                "size": 2,
                "environment": {"SNAKEPIT_DOOM": str(flag)},
                "restart_window": 12_000,
                "breaker_reset": 5_000,
            },
            "well": {"adapter": Proving, "size": 2},
        }
    )


def report(what: str, starts: int, before: dict[str, Seen], during: dict[str, Seen], say: Say) -> None:
    """Print what was seen, and see that it is as it should be."""
    doomed, well = during["doomed"], during["well"]
    say(f"{what}: {starts} starts in {SECONDS:.0f} s (at most {MOST_STARTS})")
    say(f"refused by the breaker: {len(doomed.refused)}, {spread(doomed.refused)} (target 20 ms); "
        f"sent away from the line as it opened: {len(doomed.sent_away)}, {spread(doomed.sent_away)}; "
        f"failed otherwise: {dict(doomed.failures)}")  # fmt: skip
    say(f"the neighbour before: {spread(before['well'].answered)}; meanwhile: {spread(well.answered)}; "
        f"failures: {dict(well.failures) or 'none'}")  # fmt: skip
    assert starts <= MOST_STARTS
    assert doomed.refused
    assert percentile(doomed.refused, 0.99) <= 0.5, milliseconds(percentile(doomed.refused, 0.99))
    assert not well.failures
    assert not well.refused
    assert percentile(well.answered, 0.99) <= 1.0


@pytest.mark.matrix
async def test_an_adapter_that_dies_at_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Few starts are tried, callers are told at once, the neighbour goes on; and it recovers once it can."""
    flag = tmp_path / "doom"
    async with pit_with(flag) as pit:
        before = await load(pit, 3.0, {"doomed": "echo", "well": "echo"})
        assert not before["doomed"].failures
        flag.touch()
        started = pit.pools["doomed"].fleet.restart_count
        for worker in pit.pools["doomed"].workers:
            os.kill(worker.pid, signal.SIGKILL)
        during = await load(pit, SECONDS, {"doomed": "echo", "well": "echo"})
        starts = pit.pools["doomed"].fleet.restart_count - started
        report("dies at import", starts, before, during, saying(capsys))
        flag.unlink()
        ended, mended = Seen(), time.monotonic()

        async def serves_again() -> None:
            while not ended.answered:
                await ended.request(pit, "doomed", "echo")
                await asyncio.sleep(EVERY)

        await asyncio.wait_for(serves_again(), 60)
        saying(capsys)(
            f"it served again {time.monotonic() - mended:.1f} s after it was mended (window 12 s, reset 5 s)"
        )
        await until(lambda: len(pit.pools["doomed"].slots.serving) == 2)


@pytest.mark.matrix
async def test_an_adapter_that_dies_on_every_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Few workers are lost to it, callers are told at once, and the neighbour goes on."""
    async with pit_with(tmp_path / "doom") as pit:
        before = await load(pit, 3.0, {"doomed": "echo", "well": "echo"})
        started = pit.pools["doomed"].fleet.restart_count
        during = await load(pit, SECONDS, {"doomed": "die", "well": "echo"})
        starts = pit.pools["doomed"].fleet.restart_count - started
        report("dies on every call", starts, before, during, saying(capsys))
