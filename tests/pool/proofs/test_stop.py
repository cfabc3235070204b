"""Authorities told to stop, or to replace their workers, under load."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from snakepit_otel import Client
from snakepit_otel.errors import SnakepitError
from tests.pool.proofs.figures import percentile, saying, spread
from tests.processes import Program, alive, program, run, workers_of
from tests.telemetry.difficult_sink import DifficultSink, Mood
from tests.waiting import BUSY, until

GRACE = 2.0


@dataclass
class Load:
    """Idempotent requests, one after the other from a few callers that pause between, until told that it is enough."""

    callers: int = 4
    latencies: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    enough: bool = False

    async def run(self, client: Client) -> None:
        """Make requests."""
        await asyncio.gather(*(self._call(client) for _ in range(self.callers)))

    async def _call(self, client: Client) -> None:
        while not self.enough:
            began = time.monotonic()
            try:
                await client.execute("work", {"seconds": 0.005}, idempotent=True, timeout=20)
            except SnakepitError as error:
                self.failures[f"{type(error).__name__}: {error}"] += 1
            else:
                self.latencies.append(time.monotonic() - began)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(
    directory: Path, environ: Mapping[str, str] | None = None, workers: int = 2
) -> AsyncIterator[tuple[Program, Client]]:
    """An authority, and a client of it."""
    socket = directory / "a.sock"
    arguments = ["serve", "tests.pool.proofs.adapter:Proving", "--workers", str(workers), "--socket", str(socket)]
    grace = {"SNAKEPIT_OTEL_POOL__SHUTDOWN_GRACE": str(round(GRACE * 1000)), "SNAKEPIT_OTEL_POOL__SPARES": "1"}
    async with program("-m", "snakepit_otel", *arguments, environ={**grace, **(environ or {})}) as authority:
        await authority.says("serving")
        async with Client(f"unix:{socket}") as client:
            yield authority, client


async def rest(client: Client, started: Path, seconds: float) -> str:
    """Make a request that takes so long; return how it ended."""
    try:
        answer: str = await client.execute("rest", {"started": str(started), "seconds": seconds})
    except SnakepitError as error:
        return type(error).__name__
    return answer


async def echo_until_refused(client: Client) -> None:
    """Make calls until one raises."""
    for _ in range(100):
        await client.execute("echo", {"value": 1}, timeout=5)


@pytest.mark.parametrize("mood", [None, Mood.MUTE, Mood.HOLD], ids=["no collector", "mute", "never answers"])
async def test_what_is_in_flight_is_answered_when_it_stops(
    mood: Mood | None, short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM: what runs is answered, and what the grace is too short for does not hold it up, nor does a collector."""
    with DifficultSink(mood or Mood.OK) as sink:
        async with serving(short_path, sink.environ if mood else None, workers=4) as (authority, client):
            # Something to tell the collector.
            await asyncio.gather(*(client.execute("echo", {"value": number}) for number in range(50)))
            names = [short_path / f"started-{number}" for number in range(4)]
            times = (GRACE / 2, GRACE / 2, GRACE / 2, 60.0)
            calls = [
                asyncio.create_task(rest(client, name, seconds)) for name, seconds in zip(names, times, strict=True)
            ]
            await until(lambda: all(name.exists() for name in names))
            began = time.monotonic()
            authority.process.send_signal(signal.SIGTERM)
            await authority.says("stopping")
            # One that came with the signal may have been accepted still, and waits for a worker.
            with pytest.raises(SnakepitError):
                await echo_until_refused(client)
            assert await authority.ends() == 0
            took = time.monotonic() - began
            ends = await asyncio.wait_for(asyncio.gather(*calls), 30)
            saying(capsys)(
                f"stopped in {took:.2f} s, with a grace of {GRACE:.0f} s, collector: {mood or 'none'}; {ends}"
            )
            assert ends[:3] == ["rested"] * 3
            assert ends[3] == "WorkerExited"
            assert took <= GRACE + 3.0 + 1.0 + BUSY


async def test_a_second_signal_stops_at_once(short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who is told twice does not wait for what runs, and leaves no worker."""
    async with serving(short_path, {"SNAKEPIT_OTEL_POOL__SHUTDOWN_GRACE": "60000"}, workers=1) as (authority, client):
        workers = workers_of(authority.process.pid)
        call = asyncio.create_task(rest(client, short_path / "started", 60.0))
        await until((short_path / "started").exists)
        authority.process.send_signal(signal.SIGTERM)
        await authority.says("stopping")
        began = time.monotonic()
        authority.process.send_signal(signal.SIGTERM)
        assert await authority.ends() == 0
        took = time.monotonic() - began
        saying(capsys)(f"stopped {took:.2f} s after the second signal, with a request that had a minute to go")
        assert took <= BUSY
        assert await asyncio.wait_for(call, 30) != "rested"
        await until(lambda: not any(map(alive, workers)))


@pytest.mark.parametrize("how", ["SIGHUP", "restart"])
async def test_a_rolling_restart_fails_nothing(how: str, short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All workers are replaced under load: no call fails, and none is late."""
    async with serving(short_path, {"SNAKEPIT_LOG_LEVEL": "INFO"}) as (authority, client):
        before, load = set(workers_of(authority.process.pid)), Load()
        loading = asyncio.create_task(load.run(client))
        await until(lambda: len(load.latencies) > 20)
        began = time.monotonic()
        if how == "SIGHUP":
            authority.process.send_signal(signal.SIGHUP)
            line = await authority.says("workers were replaced")
            assert "3 workers were replaced, 0 were not" in line
        else:
            code, output, complaints = await run("restart", environ={"SNAKEPIT_OTEL_ADDRESS": client.address})
            assert (code, complaints) == (0, "")
            assert output.splitlines()[-1] == "3 of 3 workers replaced"
        took = time.monotonic() - began
        answered = len(load.latencies)
        await until(lambda: len(load.latencies) > answered + 20)
        load.enough = True
        await loading
        saying(capsys)(
            f"{how}: 3 workers replaced in {took:.1f} s under load; {len(load.latencies)} calls, "
            f"{spread(load.latencies)} (target: none above 1 s), failed: {sum(load.failures.values())}"
        )
        assert not load.failures
        assert not before & set(workers_of(authority.process.pid))
        assert percentile(load.latencies, 1.0) <= 3.0
