"""Attacks on a server that honest callers use meanwhile: each by itself, paired with none, and all at once."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest

from benchmarks.overload import resident, slope
from tests.hostile.attacks import ATTACKS
from tests.hostile.honest import Honest
from tests.pool.proofs.figures import Say, milliseconds, percentile, saying
from tests.processes import ROOT, Program, program, run, workers_of

MINUTES = float(os.environ.get("HOSTILE_MINUTES", "10"))
"""Minutes of all attacks at once. In CI it is one, and each attack by itself is short."""
WINDOW = 6.0 if MINUTES >= 10 else 2.0
"""Seconds of each measurement with an attack, and without."""
PAIRS = 3 if MINUTES >= 10 else 1
BUDGET = 256 << 20
"""Bytes that anonymous peers may cost the authority beyond idle. Workers are as large as tools make them."""
KEPT = 64 << 20
"""Bytes beyond idle that may be left a minute after an attack, but for sessions whose TTL is longer."""
SESSIONS = 48 << 20
"""Bytes of sessions that anonymous peers may keep for their TTL."""
TELEMETRY = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
"""Nobody listens there, so that telemetry is kept for as long as it ever is."""


@dataclass
class Server:
    """A server under attack."""

    serving: Program
    socket: str
    port: int
    heard: list[bytes] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """The authority's process."""
        return self.serving.process.pid

    async def stats(self) -> dict[str, int]:
        """Return the ledger of sessions."""
        status, output, complaints = await run("sessions", "stats", "--json", "--address", self.socket)
        assert status == 0, complaints
        stats: dict[str, int] = json.loads(output)
        return stats

    async def assert_exact(self) -> None:
        """See that every session that was created is accounted for."""
        stats = await self.stats()
        gone = stats["deleted"] + stats["pruned_ttl"] + stats["pruned_overflow"]
        assert stats["created"] - gone == stats["live"], stats

    def memory(self) -> int:
        """Return the resident bytes of the authority."""
        return resident(self.pid)

    def memory_of_workers(self) -> int:
        """Return the resident bytes of its workers together."""
        found = 0
        for pid in workers_of(self.pid):
            with suppress(OSError):
                found += resident(pid)
        return found


@asynccontextmanager
async def server(directory: Path) -> AsyncIterator[Server]:
    """Serve on a socket and on loopback."""
    socket = directory / "authority.sock"
    arguments = ["serve", "tests.hostile.adapter:Shared", "--workers", "2", "--socket", str(socket)]
    arguments += ["--listen", "127.0.0.1:0", "--authority-tools", "tests.hostile.authority_tools"]
    async with program("-m", "snakepit_otel", *arguments, environ=TELEMETRY) as serving:
        line = await serving.says("serving")
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert found, line
        one = Server(serving, f"unix:{socket}", int(found[1]))
        drain = asyncio.create_task(_drain(one))
        try:
            yield one
            assert serving.process.returncode is None
            serving.process.terminate()
            assert await serving.ends() == 0, b"".join(one.heard[-20:]).decode()
        finally:
            drain.cancel()


async def _drain(one: Server) -> None:
    # A pipe that nobody reads would be an attack of its own.
    assert one.serving.process.stderr is not None
    while line := await one.serving.process.stderr.readline():
        one.heard.append(line)
        del one.heard[:-200]


@asynccontextmanager
async def attacking(port: int, *names: str) -> AsyncIterator[None]:
    """Attack for as long as the block lasts."""
    attackers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.hostile.attacks", name, str(port)),
            cwd=ROOT,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        for name in names
    ]
    try:
        yield
        assert all(attacker.returncode is None for attacker in attackers), "an attack has ended by itself"
    finally:
        for attacker in attackers:
            if attacker.returncode is None:
                attacker.kill()
            await attacker.wait()


class Watch:
    """The most memory that an authority took, and its workers together, looked at many times a second."""

    def __init__(self, of: Server) -> None:
        self.most = self.most_of_workers = 0
        self.samples: list[int] = []
        self._of = of

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            now = self._of.memory()
            self.samples.append(now)
            self.most = max(self.most, now)
            self.most_of_workers = max(self.most_of_workers, self._of.memory_of_workers())
            await asyncio.sleep(0.05)


@asynccontextmanager
async def watching(of: Server) -> AsyncIterator[Watch]:
    """Watch for as long as the block lasts."""
    watch = Watch(of)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()


async def given_back(of: Server, idle: int, within: float = 60.0) -> int:
    """Return how much more than when idle a server takes, once that is little, or when a minute has passed."""
    left = BUDGET
    for _ in range(int(within / 0.5)):
        left = of.memory() - idle
        if left <= KEPT:
            break
        await asyncio.sleep(0.5)
    return left


async def p99(honest: Honest) -> float:
    """Measure for a window."""
    honest.durations.clear()
    await asyncio.sleep(WINDOW)
    return percentile(honest.durations, 0.99)


@pytest.mark.matrix
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", list(ATTACKS))
async def test_an_attack(name: str, short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Honest callers are all answered, sessions are accounted for, memory is bounded and given back."""
    await _attack(name, short_path, saying(capsys))


async def _attack(name: str, directory: Path, say: Say) -> None:
    async with server(directory) as one:
        async with Honest.calling(one.socket) as honest:
            await p99(honest)
            idle, idle_workers, quiet, attacked = one.memory(), one.memory_of_workers(), [], []
            async with watching(one) as watch:
                for _ in range(PAIRS):
                    quiet.append(await p99(honest))
                    async with attacking(one.port, name):
                        await asyncio.sleep(WINDOW / 2)
                        attacked.append(await p99(honest))
            left = await given_back(one, idle)
        ratio = median(attacked) / median(quiet)
        say(
            f"{name:20} p99 {milliseconds(median(quiet)):>8} -> {milliseconds(median(attacked)):>8} "
            f"({ratio:.1f} times); memory +{(watch.most - idle) / 1e6:.0f} MB, then +{left / 1e6:.0f} MB; "
            f"workers +{(watch.most_of_workers - idle_workers) / 1e6:.0f} MB; {dict(honest.ends)}"
        )
        assert honest.unanswered == 0
        assert set(honest.ends) == {"ok"}
        await one.assert_exact()
        assert watch.most - idle <= BUDGET
        assert left <= KEPT + SESSIONS


@pytest.mark.matrix
@pytest.mark.timeout(60 * MINUTES + 300)
async def test_all_attacks_at_once(short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All attacks together, for minutes: the server goes on, and so do its honest callers; nothing grows."""
    say = saying(capsys)
    async with server(short_path) as one:
        pid = one.pid
        async with Honest.calling(one.socket) as honest:
            quiet = await p99(honest)
            idle, idle_workers = one.memory(), one.memory_of_workers()
            async with watching(one) as watch, attacking(one.port, *ATTACKS):
                await asyncio.sleep(60 * MINUTES)
            attacked = percentile(honest.durations, 0.99)
            left = await given_back(one, idle)
        half = watch.samples[len(watch.samples) // 2 :]
        growth = slope([median(half[place : place + 100]) for place in range(0, len(half) - 100, 100)])
        say(
            f"{len(ATTACKS)} attacks at once for {MINUTES:g} min: "
            f"p99 {milliseconds(quiet)} -> {milliseconds(attacked)}; "
            f"memory +{(watch.most - idle) / 1e6:.0f} MB, then +{left / 1e6:.0f} MB, "
            f"{growth * 12 / 1e6:+.1f} MB a minute in the second half; "
            f"workers +{(watch.most_of_workers - idle_workers) / 1e6:.0f} MB; {dict(honest.ends)}"
        )
        assert one.serving.process.pid == pid
        assert one.serving.process.returncode is None
        assert honest.unanswered == 0
        assert set(honest.ends) == {"ok"}
        await one.assert_exact()
        assert watch.most - idle <= BUDGET
        assert left <= KEPT + SESSIONS
