"""A disk that is full, and descriptors that are used up: workers live on, and are replaced."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snakepit_otel import BaseAdapter, Snakepit, tool
from snakepit_otel.errors import SnakepitError
from snakepit_otel.pool.workers.orphans import WorkerPidFile
from tests.disks import fill, mounted, needs_mounts
from tests.waiting import PATIENT, until

QUICK = {**PATIENT, "size": 1, "max_restarts": 1_000, "breaker_failures": 1_000}


class Plain(BaseAdapter):
    """Answers."""

    @tool
    def pid(self) -> int:
        """Return the worker's process id."""
        return os.getpid()


@needs_mounts
async def test_workers_live_and_are_replaced_on_a_full_disk(
    tmp_path: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With telemetry on its way, no room at any time, and after there is room again."""
    with mounted(short_path, 256 << 10) as disk:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(disk))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        async with Snakepit(Plain, pool=QUICK) as pit:
            assert Path(pit.socket.removeprefix("unix:")).is_relative_to(disk)
            pids = {await pit.execute("pid")}
            ballast = fill(disk)
            os.kill(pit.pool.workers[0].pid, signal.SIGKILL)
            await until(lambda: fill(disk) and pit.pool.workers and pit.pool.workers[0].pid not in {0, *pids})
            pids.add(await pit.execute("pid"))
            assert len(pids) == 2
            assert "SIGBUS" not in caplog.text
            ballast.unlink()
            os.kill(pit.pool.workers[0].pid, signal.SIGKILL)
            await until(lambda: pit.pool.workers and pit.pool.workers[0].pid not in {0, *pids})
            pids.add(await pit.execute("pid"))
            roster = next(disk.glob("snakepit-*/workers"))
            assert roster.read_text().startswith(f"{pit.pool.workers[0].pid} ")


@needs_mounts
def test_a_failed_write_of_the_pid_file_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And again when it could be in between."""
    with mounted(tmp_path, 64 << 10) as disk:
        roster = WorkerPidFile(disk)
        for _ in range(2):
            ballast = fill(disk)
            for _ in range(3):
                roster.add(os.getpid(), "w-1")
            ballast.unlink()
            roster.add(os.getpid(), "w-1")
    assert caplog.text.count("cannot record the workers") == 2


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Have this process open nothing more for the length of the block."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_without_descriptors_a_worker_is_started_later(caplog: pytest.LogCaptureFixture) -> None:
    """A start that fails for them is an error in a line, leaves no process, and is tried again."""
    async with Snakepit(Plain, pool=QUICK) as pit:
        pid = await pit.execute("pid")
        with no_descriptors():
            os.kill(pid, signal.SIGKILL)
            await until(lambda: "could not be started" in caplog.text)
        await until(lambda: pit.pool.workers and pit.pool.workers[0].state.value == "ready")
        assert await pit.execute("pid") != pid
    assert "Too many open files" in caplog.text


async def test_a_process_without_a_descriptor_for_it_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its end could not be seen, it is ended at once."""
    started: list[int] = []

    def refuse(pid: int, _flags: int = 0) -> int:
        started.append(pid)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(SnakepitError, match="could not be started"):
        async with Snakepit(Plain, pool=QUICK):
            pass
    assert started
    # Whatever has the id by now is another process, and no child of this one.
    assert not any(_is_child(pid) for pid in started)


def _is_child(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return int(stat.rpartition(")")[2].split()[1]) == os.getpid()
