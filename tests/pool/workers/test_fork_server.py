"""Workers that are forked of a template: the same as spawned ones, but for the time that it takes."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snakepit_otel import BaseAdapter, Snakepit, tool
from snakepit_otel.pool.workers.base import Worker, WorkerState
from snakepit_otel.pool.workers.os_process import ChildProcess
from tests.processes import alive, children, program, workers_of
from tests.waiting import PATIENT, until

_UNLIKE = {"SNAKEPIT_RUN_ID", "SNAKEPIT_TELEMETRY_LEDGER", "LC_CTYPE"}


class Described(BaseAdapter):
    """Describes its process."""

    @tool
    def describe(self) -> dict[str, Any]:
        """Return what a process inherits, and is started with."""
        status = Path("/proc/self/status").read_text().splitlines()
        signals = [line for line in status if line.startswith(("Sig", "Umask", "Cap", "NoNewPrivs"))]
        command = Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        return {
            "leads": (os.getsid(0), os.getpgid(0)) == (os.getpid(), os.getpid()),
            "parent": os.getppid(),
            "command": [word.decode() for word in command[:-2]],
            "id": command[-1].decode(),
            "directory": str(Path.cwd()),
            "variables": {name: value for name, value in os.environ.items() if name not in _UNLIKE},
            "status": [line for line in signals if not line.startswith("SigQ")],
            "descriptors": sorted(map(_kind, Path("/proc/self/fd").iterdir())),
            "limits": Path("/proc/self/limits").read_text(),
            "main": threading.main_thread() is not threading.current_thread(),
        }

    @tool
    def draw(self) -> list[str]:
        """Return what chance gives."""
        return [str(random.random()), str(uuid.uuid4()), os.urandom(8).hex()]

    @tool
    def variable(self, name: str) -> str | None:
        """Return a variable."""
        return os.environ.get(name)


def _kind(descriptor: Path) -> str:
    """Return what a descriptor leads to, without numbers."""
    try:
        return "".join(letter for letter in str(descriptor.readlink()) if not letter.isdigit()).split("/snakepit-")[0]
    except OSError:  # that of the directory that was listed
        return ""


def templates(pid: int | None = None) -> list[int]:
    """Return the processes that workers are forked of."""
    authority = pid or os.getpid()
    return sorted(set(children(authority)) - set(workers_of(authority)))


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A current directory that is left again."""
    before = Path.cwd()
    yield tmp_path
    os.chdir(before)


async def replaced(pit: Snakepit) -> Worker:
    """Kill the only worker, and return the next one."""
    (worker,) = pit.pool.workers
    os.kill(worker.pid, signal.SIGKILL)
    return await until(
        lambda: next((one for one in pit.pool.workers if one is not worker and one.state is WorkerState.READY), None)
    )


async def test_a_forked_worker_is_like_a_spawned_one() -> None:
    """Parent, command line, session, directory, variables, descriptors, signals and limits are the same."""
    found = {}
    for method in ("spawn", "forkserver"):
        pool = {**PATIENT, "start_method": method, "environment": {"OF_SLOT": "{slot}", "LANG": "C.UTF-8"}}
        async with Snakepit(Described, workers=1, pool=pool) as pit:
            found[method] = await pit.execute("describe")
            assert len(templates()) == (1 if method == "forkserver" else 0)
        assert templates() == []
    assert found["forkserver"] == found["spawn"]
    assert found["spawn"]["parent"] == os.getpid()
    assert found["spawn"]["id"] == "default-1.1"
    assert found["spawn"]["leads"]
    assert found["spawn"]["variables"]["OF_SLOT"] == "0"


async def test_a_killed_template_takes_no_worker_along(tmp_path: Path) -> None:
    """Workers go on when it ends, their exits are noticed as before, and the next one is forked of a new template."""
    async with Snakepit(Described, workers=1, pool=PATIENT) as pit:
        (template,), (first,) = templates(), pit.pool.workers
        os.kill(template, signal.SIGKILL)
        await until(lambda: not Path(f"/proc/{template}").exists())
        assert (await pit.execute("describe"))["parent"] == os.getpid()
        second = await replaced(pit)
        assert templates() not in ([], [template])
        assert second.id != first.id
        assert (await pit.execute("describe"))["id"] == second.id


async def test_what_changed_since_is_inherited(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker has the directory, the variables and the limits that its authority has when it starts."""
    umask = os.umask(0o027)
    try:
        async with Snakepit(Described, workers=1, pool=PATIENT) as pit:
            before = templates()
            os.chdir(directory)
            worker = await replaced(pit)
            assert templates() == before
            os.umask(0o077)
            monkeypatch.setenv("OF_NOW", "x")
            worker = await replaced(pit)
            assert templates() != before
            found = await pit.execute("describe")
    finally:
        os.umask(umask)
    assert found["id"] == worker.id
    assert found["directory"] == str(directory)
    assert found["variables"]["OF_NOW"] == "x"
    assert "Umask:\t0077" in found["status"]


async def test_workers_draw_different_numbers() -> None:
    """Random numbers, ids and bytes of two workers of one template are different."""
    async with Snakepit(Described, workers=2, pool=PATIENT) as pit:
        drawn = await asyncio.gather(*(pit.execute("draw") for _ in range(2)))
        assert len(templates()) == 1
    assert not set(drawn[0]) & set(drawn[1])


async def test_a_template_with_threads_is_not_used(tmp_path: Path) -> None:
    """Where something starts a thread with each interpreter, workers are spawned."""
    (tmp_path / "sitecustomize.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    pool = {**PATIENT, "environment": {"PYTHONPATH": str(tmp_path)}}
    async with Snakepit(Described, workers=1, pool=pool) as pit:
        assert (await pit.execute("describe"))["id"] == "default-1.1"
        await until(lambda: not templates())
        await replaced(pit)
        assert templates() == []


@pytest.mark.parametrize(("number", "templates_later"), [(errno.EPERM, 0), (errno.EAGAIN, 1)])
async def test_a_kernel_that_does_not_fork(number: int, templates_later: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it refuses, workers are spawned; the template is kept if it is for want of something."""

    async def refuse(*_: object) -> bytes:
        return json.dumps({"errno": number}).encode()

    exchange = ChildProcess.exchange
    monkeypatch.setattr(
        ChildProcess,
        "exchange",
        lambda self, message, *more: refuse() if more else exchange(self, message),
    )
    async with Snakepit(Described, workers=1, pool=PATIENT) as pit:
        assert (await pit.execute("describe"))["id"] == "default-1.1"
        await until(lambda: len(templates()) == templates_later)


async def test_pools_and_slots_share_a_template() -> None:
    """One is enough for workers that differ in their slots' variables; those read at the start make another."""
    pools = {
        "second": {**PATIENT, "adapter": Described, "size": 2, "environment": {"CUDA_VISIBLE_DEVICES": "{slot}"}},
        "third": {**PATIENT, "adapter": Described, "size": 1, "environment": {"PYTHONUTF8": "1"}},
    }
    async with Snakepit(Described, workers=1, pool=PATIENT, pools=pools) as pit:
        assert len(templates()) == 2
        name = {"name": "CUDA_VISIBLE_DEVICES"}
        seen = await asyncio.gather(*(pit.execute("variable", name, pool="second") for _ in range(2)))
        assert set(seen) <= {"0", "1"}
        assert await pit.execute("variable", {"name": "PYTHONUTF8"}, pool="third") == "1"


async def test_a_start_that_is_given_up_leaves_no_process() -> None:
    """Stopped while workers are forked, nothing is left, not even for a moment after the stop."""
    before = set(children(os.getpid()))  # of other tests
    for delay in (0.0, 0.05, 0.2, 0.4):
        pit = Snakepit(Described, workers=2, pool=PATIENT)
        starting = asyncio.ensure_future(pit.start())
        began = time.monotonic()
        await until(lambda: time.monotonic() - began >= delay)  # noqa: B023 - it is called at once
        starting.cancel()
        await asyncio.wait([starting])
        await pit.stop()
        await until(lambda: before.issuperset(children(os.getpid())))


async def test_templates_end_with_a_killed_authority(short_path: Path) -> None:
    """The kernel ends them as it ends workers."""
    arguments = ["serve", "tests.adapters_for_tests:Useful", "--workers", "1", "--socket", str(short_path / "a.sock")]
    async with program("-m", "snakepit_otel", *arguments) as authority:
        await authority.says("serving")
        (template,) = templates(authority.process.pid)
        authority.process.kill()
        await authority.ends()
        await until(lambda: not alive(template))
