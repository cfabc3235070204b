"""The demo over stores outside of the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.stores.servers import StoreServer, running


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["file", "server"])
def test_the_demo_is_the_same_over_every_store(kind: str, tmp_path: Path) -> None:
    """Its ledger has the figures that it has in memory."""
    tmp_path.chmod(0o700)
    server = StoreServer(tmp_path / "server")
    with running(*([server] if kind == "server" else [])):
        store = server.url if kind == "server" else str(tmp_path / "sessions.db")
        command = [sys.executable, "-m", "snakepit_otel", "demo", "--store", store]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done
    assert "61 created - 0 deleted - 10 expired - 1 evicted = 50 live" in done.stdout
