"""Processes that share a file under load, with and without kills; see `authorities`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.source import ROOT


def _run(path: Path, kills: int, processes: int, seed: int = 1) -> None:
    program = (sys.executable, "-m", "tests.sessions.sqlite.authorities")
    arguments = map(str, (path, kills, processes, seed))
    done = subprocess.run([*program, *arguments], capture_output=True, check=False, cwd=ROOT, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_processes_that_share_a_file_lose_nothing(tmp_path: Path) -> None:
    """The quota is never exceeded, no update lost, and the ledger is exact."""
    _run(tmp_path / "sessions.db", kills=0, processes=2)


def test_killed_processes_lose_no_acknowledged_write(tmp_path: Path) -> None:
    """However they end, at any moment, alone or all at once."""
    _run(tmp_path / "sessions.db", kills=8, processes=2)


@pytest.mark.matrix
@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_kills_lose_no_acknowledged_write(tmp_path: Path, seed: int) -> None:
    """What a few kills show, over and over."""
    _run(tmp_path / "sessions.db", kills=100, processes=4, seed=seed)
