"""Killed processes with references in flight: no memory is left, and no other process fails."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from snakepit_otel import Client, Snakepit
from snakepit_otel.errors import AuthorityUnavailable, WorkerExited
from snakepit_otel.zero_copy import _metrics as metrics
from snakepit_otel.zero_copy._descriptor import Owner
from snakepit_otel.zero_copy._memory import Buffer
from tests.processes import alive, program
from tests.waiting import until
from tests.zero_copy.authority_program import LENGTH
from tests.zero_copy.hostile import description, form, open_files, serving_buffers, shared_memory
from tests.zero_copy.hostile_adapter import Hostile

WORKERS = 4
CALLERS = 8
SEED = 20_240_607


def in_dev_shm() -> list[Path]:
    """Return what has a name in shared memory, but for what other tests have there: multiprocessing's and joblib's."""
    return sorted(path for path in Path("/dev/shm").iterdir() if not path.name.startswith(("sem.", "joblib_", "psm_")))


class Load:
    """Callers that pass tensors of four megabytes both ways, and what came of their requests."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.array = np.arange(LENGTH, dtype="f8")

    async def call(self, caller: Snakepit | Client, stop: asyncio.Event) -> None:
        """Call until stopped; each call has the right result, or an error that its worker died."""
        while not stop.is_set():
            try:
                got = await caller.execute("double", {"t": self.array})
            except WorkerExited:
                self.outcomes["worker exited"] += 1
            else:
                assert (got["out"] == self.array * 2).all()
                self.outcomes["result"] += 1

    async def stream(self, caller: Snakepit | Client, stop: asyncio.Event) -> None:
        """Stream until stopped; see `call`."""
        while not stop.is_set():
            try:
                async for chunk in caller.stream("several", {"t": self.array}):
                    assert chunk["part"][1] - chunk["part"][0] == 1
            except WorkerExited:
                self.outcomes["worker exited"] += 1
            else:
                self.outcomes["result"] += 1


async def kill_workers(kills: int, chance: random.Random, statuses: list[str]) -> Counter[str]:
    """Kill workers of one Snakepit under load, and check that it is as before; return what came of the requests."""
    load, pids = Load(), set[int]()
    # The pool is not to take its requests for what kills its workers.
    async with Snakepit(Hostile, pool={"size": WORKERS, "breaker_failures": 1_000, "queue_timeout": 60_000}) as pit:
        # All that is opened once is open.
        await asyncio.gather(*(pit.execute("double", {"t": load.array}) for _ in range(WORKERS)))
        enough = asyncio.Event()
        async with Client(pit.socket) as client:
            callers = [
                *(load.call(pit, enough) for _ in range(CALLERS - 3)),
                load.stream(pit, enough),
                load.call(client, enough),
                load.stream(client, enough),
            ]
            running = asyncio.gather(*callers)
            for _ in range(kills):
                # One that has answered before, since those that die without are not started again at once.
                busy = await until(lambda: [one for one in pit.pool.workers if one.active and one.completed_requests])
                worker = chance.choice(busy)
                pids.update(other.pid for other in pit.pool.workers if other.state.value == "ready")
                # At any moment of a request, of which there are some hundred a second.
                await asyncio.sleep(chance.random() * 0.05)
                if alive(worker.pid):
                    os.kill(worker.pid, signal.SIGKILL)
                status = await worker.wait()
                statuses.append(status)
            enough.set()
            await running
        buffer_store = pit._dispatcher.buffer_store  # type: ignore[union-attr]
        await until(lambda: (buffer_store._stored, buffer_store._usage.bytes, buffer_store._requests) == ({}, 0, {}))
        await until(lambda: [worker for worker in pit.pool.workers if worker.state.value == "ready"])
        assert await pit.execute("total", {"t": load.array}) == load.array.sum()
        pids.update(worker.pid for worker in pit.pool.workers if worker.state.value == "ready")
        # While it still runs: neither the authority nor a worker has any of it.
        await until(lambda: not shared_memory([os.getpid(), *pids]))
    assert not any(alive(pid) for pid in pids)
    return load.outcomes


async def until_closed(before: Counter[str]) -> None:
    """Return once this process has no more files open than before; fail with those that are left."""
    found = before

    def is_as_before() -> bool:
        nonlocal found
        found = open_files()
        return found.total() <= before.total()

    try:
        await until(is_as_before, timeout=60)
    except TimeoutError:
        raise AssertionError(f"left open: {found - before}") from None


async def prove_workers(pools: int, kills: int) -> None:
    """Kill workers of several Snakepits one after the other, whose waits before a restart begin anew."""
    chance, statuses = random.Random(SEED), list[str]()
    # Begin with what is loaded and started at the first use.
    await kill_workers(0, chance, statuses)
    before, files = open_files(), in_dev_shm()
    outcomes: Counter[str] = Counter()
    for _ in range(pools):
        outcomes += await kill_workers(kills, chance, statuses)
    # Nobody died of a bus error or a bad access, but all of what was sent to them.
    assert Counter(statuses) == {"was killed by SIGKILL": pools * kills}
    await until_closed(before)
    assert in_dev_shm() == files
    assert not shared_memory([os.getpid()])
    assert outcomes["worker exited"] > 0
    assert outcomes["result"] > pools * kills


async def prove_authorities(kills: int, directory: Path) -> None:
    """Kill authorities under load from within and from a client; see that their workers and their memory are gone."""
    chance = random.Random(SEED)
    files, before = in_dev_shm(), Counter[str]()
    for number in range(kills + 1):
        if number == 1:
            # Of the first, all is open that is opened once.
            before = open_files()
        socket = directory / f"{number}.sock"
        async with program("-m", "tests.zero_copy.authority_program", str(socket)) as authority:
            output = await authority.says("serving")
            workers = [int(pid) for pid in output.split()[1:]]
            load, enough = Load(), asyncio.Event()
            async with Client(f"unix:{socket}") as client:
                await client.execute("double", {"t": load.array})

                async def until_gone(
                    client: Client = client, load: Load = load, enough: asyncio.Event = enough
                ) -> None:
                    with pytest.raises(AuthorityUnavailable):
                        await load.call(client, enough)

                calling = asyncio.gather(until_gone(), until_gone())
                await asyncio.sleep(chance.random() * 0.1)
                authority.process.kill()
                assert await authority.ends() == -signal.SIGKILL
                await calling
                await until(lambda workers=workers: not any(map(alive, workers)), timeout=5)
                assert load.outcomes["worker exited"] == 0
            del load
    await until(lambda: not shared_memory([os.getpid()]))
    await until_closed(before)
    assert in_dev_shm() == files


async def test_an_answer_that_arrived_can_be_read_when_its_worker_is_gone(short_path: Path) -> None:
    """What a worker has published lasts until its request ends, for the caller may have its answer already."""
    with serving_buffers(short_path) as rig:
        mine, link = rig.request(), rig.link()
        link.publish(mine.request, description("a" * 32, Owner.PYTHON), Buffer.of([memoryview(bytes(96))], 96))
        rig.buffer_store.remove_worker(os.getpid())
        assert mine.take(form("a" * 32, owner="python")).tobytes() == bytes(96)
        link.close()
        mine.close(metrics.PEER_LOST)
        rig.assert_holds_nothing()


async def test_killed_workers_leave_nothing() -> None:
    """After five workers killed under load nothing is held, open or mapped, and every request was answered."""
    await prove_workers(pools=1, kills=5)


async def test_a_killed_authority_leaves_nothing(short_path: Path) -> None:
    """After an authority was killed under load its workers are gone, and its client has nothing of it."""
    await prove_authorities(1, short_path)


@pytest.mark.matrix
@pytest.mark.timeout(300)
async def test_two_hundred_killed_workers_leave_nothing() -> None:
    """After two hundred workers killed under load it is as it was before."""
    await prove_workers(pools=10, kills=20)


@pytest.mark.matrix
@pytest.mark.timeout(300)
async def test_twenty_killed_authorities_leave_nothing(short_path: Path) -> None:
    """After twenty authorities killed under load it is as it was before."""
    await prove_authorities(20, short_path)
