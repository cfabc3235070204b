"""Sockets and directories that somebody removes while an authority runs, as what cleans /tmp does."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from snakepit_otel import Client, Snakepit
from snakepit_otel.bridge.authority import server as authority_server
from snakepit_otel.errors import WorkerExited
from snakepit_otel.pool.workers.base import WorkerState
from snakepit_otel.pool.workers.orphans import WorkerPidFile
from tests.adapters_for_tests import Useful
from tests.pool.adapters import Patient
from tests.users import OTHER, needs_root
from tests.waiting import PATIENT, until


@pytest.fixture(autouse=True)
def _own_place(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    monkeypatch.setattr(authority_server, "_PATIENCE_FOR_A_SUCCESSOR_S", 0.0)


def _private(short_path: Path) -> Path:
    (found,) = (lock.parent for lock in short_path.glob("snakepit-*/lock"))
    return found


async def _answers(address: str) -> bool:
    async with Client(address) as client:
        try:
            return bool(await client.execute("echo", {"value": True}, timeout=30))
        except Exception:
            return False


async def _until_answers(address: str) -> None:
    while not await _answers(address):
        pass


async def test_the_private_directory_is_removed(short_path: Path) -> None:
    """Requests go on, workers that nobody could connect to are set aside and replaced, and all is as before."""
    async with Snakepit(Patient, pool={"size": 2, **PATIENT}) as pit:
        before = {worker.id for worker in pit.pool.workers}
        private = _private(short_path)
        pids = {await pit.execute("pid") for _ in range(4)}
        shutil.rmtree(private)
        assert {await pit.execute("pid") for _ in range(4)} == pids
        await until(lambda: any(worker.suspicion == "socket" for worker in pit.pool.workers))
        assert any(worker.suspect == "socket" for worker in (await pit.status()).pools[0].workers)
        for _ in range(20):
            await pit.execute("pid")
        await until(lambda: before.isdisjoint(worker.id for worker in pit.pool.workers))
        await until(lambda: sum(worker.state is WorkerState.READY for worker in pit.pool.workers) == 2)
        assert {worker.suspicion for worker in pit.pool.workers} == {None}
        assert _private(short_path) == private
        assert (private / "authority.sock").is_socket()
        # Whoever finds it dead is to know of its workers.
        lines = (private / "workers").read_text().splitlines()
        assert {line.rpartition(" ")[2] for line in lines} == {worker.id for worker in pit.pool.workers}
    assert list(short_path.iterdir()) == []


async def test_a_worker_dies_when_the_directory_is_gone(short_path: Path) -> None:
    """Its successor has a socket in the directory that was made again, and calls back."""
    async with Snakepit(Useful, pool={"size": 1, **PATIENT}) as pit:
        shutil.rmtree(_private(short_path))
        with pytest.raises(WorkerExited):
            await pit.execute("die", {"marker": str(short_path / "marker")})
        assert await pit.execute("add", {"amount": 1}, session_id="s", timeout=60) == 1


async def test_one_workers_socket_is_removed(short_path: Path) -> None:
    """That worker is replaced, and the other stays."""
    async with Snakepit(Patient, pool={"size": 2, **PATIENT}) as pit:
        first, other = (worker.id for worker in pit.pool.workers)
        (_private(short_path) / f"{first}.sock").unlink()
        await until(lambda: first not in [worker.id for worker in pit.pool.workers])
        assert other in [worker.id for worker in pit.pool.workers]


@pytest.mark.parametrize("whole", [True, False], ids=["directory", "socket"])
async def test_the_socket_of_callers_is_removed(short_path: Path, whole: bool) -> None:
    """It is made again at the same path, with that for memory; whoever is connected goes on meanwhile."""
    path = short_path / "public" / "a.sock"
    async with Snakepit(Useful, workers=1, server={"socket": path}) as pit, Client(pit.socket) as client:
        await client.execute("echo", {"value": 1})
        if whole:
            shutil.rmtree(path.parent)
        else:
            path.unlink()
            path.with_name("a.sock.memory").unlink()
        assert await client.execute("echo", {"value": 1}) == 1
        await _until_answers(f"unix:{path}")
        await until(path.with_name("a.sock.memory").is_socket)
        assert await client.execute("echo", {"value": 1}) == 1
    assert list(path.parent.iterdir()) == []


async def test_another_has_the_socket_of_callers(short_path: Path) -> None:
    """A socket that somebody else has made at the path, and who listens there, is left alone, also at the end."""
    path = short_path / "public" / "a.sock"
    async with Snakepit(Useful, workers=1, server={"socket": path}) as pit:
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            other.listen()
            made = path.lstat().st_ino
            assert await pit.execute("echo", {"value": 1}) == 1
            await pit.stop()
            assert path.lstat().st_ino == made


async def test_a_successor_takes_the_address(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever removes the socket may start another authority there; the first one's end leaves that one's alone."""
    monkeypatch.setattr(authority_server, "_PATIENCE_FOR_A_SUCCESSOR_S", 3600.0)
    path = short_path / "public" / "a.sock"
    first = Snakepit(Useful, workers=1, server={"socket": path})
    async with first:
        shutil.rmtree(path.parent)
        async with Snakepit(Useful, workers=1, server={"socket": path}):
            await first.stop()
            assert await _answers(f"unix:{path}")
            assert path.with_name("a.sock.memory").is_socket()


@needs_root
async def test_another_user_takes_the_name_of_the_private_directory(short_path: Path) -> None:
    """It is made by another name then, and everything that is started later is there."""
    async with Snakepit(Patient, pool={"size": 1, **PATIENT}) as pit:
        (before,) = (worker.id for worker in pit.pool.workers)
        taken = _private(short_path)
        shutil.rmtree(taken)
        taken.mkdir()
        os.chown(taken, OTHER, OTHER)
        await until(lambda: before not in [worker.id for worker in pit.pool.workers])
        assert await pit.execute("pid")
        assert _private(short_path) != taken
        assert pit.socket == f"unix:{_private(short_path)}/authority.sock"
        assert (await pit.status()).run_id == _private(short_path).name
        await until((_private(short_path) / "authority.sock.memory").is_socket)
    assert list(taken.iterdir()) == []


def test_a_roster_moves(short_path: Path) -> None:
    """The record of workers is written again where the directory is by then."""
    (short_path / "new").mkdir()
    roster = WorkerPidFile(short_path)
    roster.add(os.getpid(), "default-1.1")
    roster.move(short_path / "new")
    assert (short_path / "new" / "workers").read_text() == (short_path / "workers").read_text()
