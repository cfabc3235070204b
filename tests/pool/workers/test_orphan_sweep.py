"""Workers that have outlived their authority are killed by the next one, and nobody else is."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.pool.workers.orphans import Orphan, WorkerPidFile, kill_orphans
from snakepit_otel.system.private_directory import PrivateDirectory
from tests.processes import ROOT, alive, children, program, until_started
from tests.waiting import until

Launch = Callable[..., subprocess.Popen[bytes]]
STUBBORN = """
import os, signal
if "fork" in os.environ:
    os.fork()
if "user" in os.environ:
    os.setuid(int(os.environ["user"]))
    print(flush=True)
signal.pause()
"""
AUTHORITY = """
import sys, time
from pathlib import Path
from snakepit_otel.system.private_directory import PrivateDirectory
from snakepit_otel.pool.workers.orphans import WorkerPidFile

held = PrivateDirectory()
roster = WorkerPidFile(held.path)
print(held.path.name, file=sys.stderr, flush=True)
roster.add(int(Path(sys.argv[1]).read_text()), "default-1.1")
print("recorded", file=sys.stderr, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _own_place(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))


@pytest.fixture
def left(short_path: Path) -> Path:
    """What a dead authority has left: its private directory."""
    directory = short_path / "snakepit-dead1234"
    directory.mkdir(mode=0o700)
    (directory / "lock").touch(mode=0o600)
    (directory / "lock").write_text(f"snakepit-otel private directory {directory.name}\n")
    return directory


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start programs with the command line of a worker, or another one, that never end by themselves."""
    package = tmp_path / "snakepit_otel" / "pool" / "workers"
    package.mkdir(parents=True)
    for directory in (package, *list(package.parents)[:2]):
        (directory / "__init__.py").touch()
    (package / "worker_main.py").write_text(STUBBORN)
    (package / "other_main.py").write_text(STUBBORN)
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, module: str = "worker_main", **environ: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"snakepit_otel.pool.workers.{module}", *arguments]
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, **environ}, start_new_session=True, stdout=subprocess.PIPE
        )
        started.append(process)
        until_started(process.pid)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for process in started:
        process.communicate(timeout=60)


@pytest.fixture
def worker(launch: Launch, left: Path) -> subprocess.Popen[bytes]:
    """A worker of the dead authority, which has not recorded it."""
    return launch(left.name, "default-1.1")


def spare(process: subprocess.Popen[bytes], directory: Path) -> None:
    """Fail unless a sweep of the directory kills nobody."""
    assert kill_orphans(directory) == []
    assert process.poll() is None


def test_a_real_worker_is_killed_with_what_its_authority_left(left: Path) -> None:
    """The next authority kills a recorded worker, is told which, and removes the directory."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "snakepit_otel.pool.workers.worker_main", left.name, "gpu-2.7"]
    killed: list[Orphan] = []
    # It waits on its control socket, as one would that was started a moment before its authority was killed.
    with ours, theirs, subprocess.Popen(command, cwd=ROOT, stdin=theirs.fileno()) as process:
        until_started(process.pid)
        WorkerPidFile(left).add(process.pid, "gpu-2.7")
        PrivateDirectory(lambda directory: killed.extend(kill_orphans(directory))).close()
        assert process.wait(60) == -signal.SIGKILL
        assert killed == [Orphan(process.pid, "gpu-2.7")]
    assert not left.exists()


def test_all_that_are_recorded_are_killed_once(launch: Launch, left: Path) -> None:
    """Several orphans are killed at once; a second sweep finds nobody; who was removed from the record is spared."""
    roster = WorkerPidFile(left)
    workers = [launch(left.name, f"default-{slot}.1") for slot in (1, 2, 3)]
    for slot, process in enumerate(workers, 1):
        roster.add(process.pid, f"default-{slot}.1")
    roster.remove(workers[1].pid)
    killed = kill_orphans(left)
    assert killed == [Orphan(workers[0].pid, "default-1.1"), Orphan(workers[2].pid, "default-3.1")]
    assert [process.wait(60) for process in (workers[0], workers[2])] == [-signal.SIGKILL] * 2
    assert kill_orphans(left) == []
    assert workers[1].poll() is None


def test_a_process_with_the_number_of_a_gone_worker_is_spared(worker: subprocess.Popen[bytes], left: Path) -> None:
    """Another start time is another process, whatever it looks like."""
    WorkerPidFile(left).add(worker.pid, "default-1.1")
    pid, started, worker_id = (left / "workers").read_text().split()
    (left / "workers").write_text(f"{pid} {int(started) - 1} {worker_id}\n")
    spare(worker, left)


def test_workers_of_another_run_are_spared(launch: Launch, left: Path) -> None:
    """A worker that was started for another authority is not killed, even if it is in the record."""
    process = launch("snakepit-other", "default-1.1")
    WorkerPidFile(left).add(process.pid, "default-1.1")
    spare(process, left)


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (["snakepit-dead1234", "default-1.1"], "other_main"),
        (["snakepit-dead1234", "default-1.2"], "worker_main"),
        (["snakepit-dead1234", "default-1.1", "more"], "worker_main"),
        (["snakepit-dead1234"], "worker_main"),
    ],
)
def test_what_is_no_such_worker_is_spared(launch: Launch, left: Path, arguments: list[str], module: str) -> None:
    """A recorded process whose command line is not exactly that of the recorded worker is left alone."""
    process = launch(*arguments, module=module)
    WorkerPidFile(left).add(process.pid, "default-1.1")
    spare(process, left)


async def test_a_child_of_a_worker_is_spared(launch: Launch, left: Path) -> None:
    """A process that a worker has forked has its command line, but is not recorded, and is left alone."""
    process = launch(left.name, "default-1.1", fork="1")
    (child,) = await until(lambda: children(process.pid))
    WorkerPidFile(left).add(process.pid, "default-1.1")
    assert kill_orphans(left) == [Orphan(process.pid, "default-1.1")]
    assert process.wait(60) == -signal.SIGKILL
    assert alive(child)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
def test_a_process_of_another_user_is_spared(launch: Launch, left: Path) -> None:
    """What is not ours is left alone, even if we could kill it."""
    process = launch(left.name, "default-1.1", user="65534")
    assert process.stdout is not None
    process.stdout.readline()
    WorkerPidFile(left).add(process.pid, "default-1.1")
    spare(process, left)


def test_workers_of_a_living_authority_are_spared(launch: Launch) -> None:
    """A directory whose owner lives is not looked at, nor removed."""
    asked: list[Path] = []
    living = PrivateDirectory()
    process = launch(living.path.name, "default-1.1")
    WorkerPidFile(living.path).add(process.pid, "default-1.1")
    PrivateDirectory(asked.append).close()
    assert asked == []
    assert process.poll() is None
    assert (living.path / "workers").exists()
    living.close()


async def test_the_authority_need_not_have_ended_well(launch: Launch, tmp_path: Path) -> None:
    """What an authority has recorded is there, whole, when it was killed."""
    pipe = tmp_path / "pid"
    os.mkfifo(pipe)
    async with program("-c", AUTHORITY, str(pipe)) as owner:
        run_id = (await owner.says("snakepit-")).strip()
        process = launch(run_id, "default-1.1")
        await asyncio.to_thread(pipe.write_text, str(process.pid))
        await owner.says("recorded")
        owner.process.kill()
        await owner.ends()
    killed: list[Orphan] = []
    PrivateDirectory(lambda directory: killed.extend(kill_orphans(directory))).close()
    assert killed == [Orphan(process.pid, "default-1.1")]
    assert process.wait(60) == -signal.SIGKILL


def test_a_worker_that_is_already_gone_is_not_recorded(left: Path) -> None:
    """Nothing is recorded of a process that is not there, and forgetting it twice does no harm."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    roster = WorkerPidFile(left)
    roster.add(process.pid, "default-1.1")
    roster.remove(process.pid)
    assert not (left / "workers").exists()


def test_a_record_that_cannot_be_written_stops_no_worker(
    worker: subprocess.Popen[bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk or a missing directory is logged; workers are started all the same."""
    WorkerPidFile(tmp_path / "missing").add(worker.pid, "default-1.1")
    assert "cannot record the workers" in caplog.text


@pytest.mark.parametrize("torn", [b"", b"12", b"{pid}", b"{pid} ", b"{pid} {started}", b"{pid} {started} "])
def test_a_torn_record_harms_no_process(worker: subprocess.Popen[bytes], left: Path, torn: bytes) -> None:
    """A record that was cut off says nothing of the worker whose line it was."""
    WorkerPidFile(left).add(worker.pid, "default-1.1")
    pid, started, _ = (left / "workers").read_bytes().split()
    (left / "workers").write_bytes(torn.replace(b"{pid}", pid).replace(b"{started}", started))
    spare(worker, left)


def test_a_hostile_record_harms_no_process(worker: subprocess.Popen[bytes], left: Path, tmp_path: Path) -> None:
    """A link, a pipe, a directory, a huge file and somebody else's process are all left alone, without waiting."""
    file = left / "workers"
    WorkerPidFile(tmp_path).add(worker.pid, "default-1.1")
    true = (tmp_path / "workers").read_text()
    file.symlink_to(tmp_path / "workers")
    spare(worker, left)
    file.unlink()
    os.mkfifo(file)
    spare(worker, left)
    file.unlink()
    file.mkdir()
    spare(worker, left)
    file.rmdir()
    file.write_text(true + "x" * (1 << 20))
    spare(worker, left)
    started = Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19]
    file.write_text(f"1 {started} init\n-1 1 all\n0 1 group\n{os.getpid()} 1 us\n9999999 1 nobody\n")
    spare(worker, left)
    file.write_text(f"garbage\n\0\n{true}")
    assert kill_orphans(left) == [Orphan(worker.pid, "default-1.1")]


@given(garbage=st.binary(max_size=500) | st.from_regex(rb"([0-9]{1,30} ?){0,3}[ -~]{0,10}\n", fullmatch=True))
def test_garbage_is_read_without_a_murmur(garbage: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever a record holds, reading it raises nothing, and kills nobody."""
    directory = tmp_path_factory.getbasetemp() / "snakepit-garbage"
    directory.mkdir(exist_ok=True)
    (directory / "workers").write_bytes(garbage)
    assert kill_orphans(directory) == []
