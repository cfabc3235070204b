"""A hundred workers killed under steady load: everything is answered, nothing runs twice, no session is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kill_storm import RATE, report, storm
from tests.pool.proofs.figures import Say, saying
from tests.waiting import BUSY


async def kill(kills: int, runs: Path, say: Say, rate: float = RATE, late: float = 2.0) -> None:
    """Kill so many workers under load, and see to it that all is as it should be."""
    seen = await storm(kills, runs, rate)
    for line in report(seen):
        say(line)
    assert seen.unanswered == 0
    assert not seen.surprises
    assert set(seen.failures) <= {"WorkerExited"}, seen.failures
    assert seen.good[True] >= 0.999 * seen.offered[True]
    assert seen.p99 <= late
    assert not seen.error_delays or max(seen.error_delays) <= late


async def test_killed_workers_under_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some kills under load: every request is answered, nothing runs twice unasked, and no session is lost."""
    await kill(5, tmp_path / "runs", saying(capsys), rate=20, late=2.0 + BUSY)


@pytest.mark.matrix
@pytest.mark.timeout(300)
async def test_a_hundred_killed_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hundred: the same, with figures."""
    await kill(100, tmp_path / "runs", saying(capsys))
