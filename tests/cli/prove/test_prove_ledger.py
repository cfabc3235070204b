"""`prove ledger` with real processes: what is well holds, and a fault of the store is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from snakepit_otel.cli.prove import ledger
from snakepit_otel.cli.prove.store import FileStore, proof_store
from tests.stores.servers import binary


def prove(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "snakepit_otel", "prove", "ledger", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_ledger_of_a_file_is_exact() -> None:
    """Two cells over one SQLite file, one of which is killed; the verdict is JSON."""
    done = prove("--cells", "2", "--kill", "1", "--minutes", "0.05", "--file", "--overflow", "evict", "--json")
    verdict = json.loads(done.stdout)
    assert (done.returncode, verdict["holds"], verdict["killed"]) == (0, True, 1), done
    assert verdict["operations"] > 50
    assert verdict["ledger"]["live"] <= verdict["most_live"] <= verdict["quota"]
    assert verdict["increments"] > 5


def test_the_ledger_of_a_server_is_exact_though_it_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server of the proof's own is killed, too; what is printed has the equation, and no folder is left behind."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(Path(binary("valkey-server")).parent), prepend=":")
    done = prove("--cells", "2", "--kill", "1", "--minutes", "0.06", "--restarts", "1", "--tasks", "5")
    assert done.returncode == 0, done
    assert "valkey-server with an append-only file" in done.stdout
    assert "1 cells and 1 stores killed" in done.stdout
    assert done.stdout.splitlines()[-1] == "the ledger is exact"
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("fault", "kind"), [("CountsTwice", "ledger"), ("Forgets", "lost update")])
async def test_a_fault_of_the_store_is_found(fault: str, kind: str, tmp_path: Path) -> None:
    """A store that counts a deletion twice, or loses writes, fails the proof."""
    tmp_path.chmod(0o700)
    store = FileStore(tmp_path)
    store.settings = {
        "backend": f"tests.cli.prove.broken:{fault}",
        "backend_options": {"path": str(tmp_path / "sessions.db")},
    }
    proof = ledger.Proof(2, 0, 3.0, 0, 5, seed=1)
    assert not await proof.run(store, tmp_path, quiet=True)
    assert kind in proof.verdict.differences


def test_a_url_has_a_namespace_of_the_proofs_own(tmp_path: Path) -> None:
    """So that sessions of others are neither seen nor touched; no password is shown."""
    store = proof_store("redis://:very-secret@cache:6379", tmp_path)
    assert store.settings["namespace"].startswith("prove-")
    assert store.name == "cache:6379"
