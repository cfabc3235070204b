"""One cell of the proof: a process with a session store, and tasks that use it in every way.

Started as `python -m snakepit_otel.cli.prove.cell`. Its configuration is the only line of standard input, since it may
have a password; it ends with that input. What it sees is written to standard output, a line of JSON at a time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snakepit_otel.cli.prove.tally import COUNTERS, Tally
from snakepit_otel.errors import SessionNotFound, SessionQuotaExceeded, SessionStoreUnavailable, StateConflict
from snakepit_otel.sessions import Session, SessionStore
from snakepit_otel.telemetry import _switch

_SHARED_IDS = 300
_SHORT_TTL = 0.3
_REPORT_S = 0.2
_PAUSE_S = 0.05  # after a failure, at most


class Cell:
    """The tasks of one cell, and what they saw since the last report."""

    def __init__(self, store: SessionStore, number: int, tally: Tally, seed: int) -> None:
        self._store = store
        self._number = number
        self._tally = tally
        self._random = random.Random(seed)  # noqa: S311
        self._made = 0
        self.ended: list[tuple[str, int, float]] = []
        self.served: dict[tuple[str, int], float] = {}
        self.wrong: list[str] = []

    async def work(self) -> None:
        """Use the store until cancelled."""
        steps = (
            (30, self._create_and_get),
            (20, self._delete),
            (25, self._increment),
            (15, self._compare_and_set),
            (5, self._expire),
            (2, self._hold),
        )
        weights = [weight for weight, _ in steps]
        while True:
            ((_, step),) = self._random.choices(steps, weights)
            try:
                await step()
            except (SessionNotFound, SessionQuotaExceeded, StateConflict):
                self._tally.add_operation()
            except SessionStoreUnavailable:
                self._tally.add_operation(failed=True)
                await asyncio.sleep(self._random.uniform(0, _PAUSE_S))
            else:
                self._tally.add_operation()

    async def _create_and_get(self) -> None:
        session_id = self._shared_id()
        session = await self._store.create(session_id, ttl=self._random.choice((1.0, 2.0, 5.0)))
        self._serve(session, time.monotonic() - 3600)  # when it began does not matter: it was live or is new
        begun = time.monotonic()
        self._serve(await self._store.get(session_id), begun)

    async def _delete(self) -> None:
        session = await self._store.get(self._shared_id())
        if await self._store._delete_incarnation(session.id, session.incarnation):
            self._end(session)

    async def _increment(self) -> None:
        counter = self._random.randrange(COUNTERS)
        with self._counted(counter):
            await self._store.update(f"counter-{counter}", _increment)

    async def _compare_and_set(self) -> None:
        counter = self._random.randrange(COUNTERS)
        session_id = f"counter-{counter}"
        before = await self._store.get_versioned(session_id, "n")
        with self._counted(counter):
            await self._store.compare_and_set(session_id, "n", (before.value or 0) + 1, before.version)

    @contextmanager
    def _counted(self, counter: int) -> Iterator[None]:
        """Count an increment; one that fails otherwise than by a refusal may have been done."""
        self._tally.begin(counter)
        try:
            yield
        except (StateConflict, SessionNotFound):
            self._tally.refuse(counter)
            raise
        self._tally.acknowledge(counter)

    async def _expire(self) -> None:
        """Leave a session of one's own to its TTL, and see that it is gone when that has passed."""
        self._made += 1
        session = await self._store.create(f"own-{self._number}-{self._made}", ttl=_SHORT_TTL)
        created = time.monotonic()
        await asyncio.sleep(_SHORT_TTL + 0.01)
        begun = time.monotonic()
        if begun < created + _SHORT_TTL:
            return
        try:
            served = await self._store.get(session.id)
        except SessionNotFound:
            return
        self.wrong.append(
            f"session {served.id!r} was served {begun - created:.3f} s after it was made for {_SHORT_TTL} s"
        )

    async def _hold(self) -> None:
        """Hold a session beyond its TTL; it ends with the lease."""
        self._made += 1
        async with self._store.lease() as lease:
            session = await lease.create(f"held-{self._number}-{self._made}", ttl=2.0)
            await asyncio.sleep(self._random.uniform(0, 0.5))
            begun = time.monotonic()
            self._serve(await self._store.get(session.id), begun)

    def _shared_id(self) -> str:
        return f"shared-{self._random.randrange(_SHARED_IDS)}"

    def _serve(self, session: Session, begun: float) -> None:
        key = (session.id, session.incarnation)
        self.served[key] = max(begun, self.served.get(key, 0.0))

    def _end(self, session: Session) -> None:
        self.ended.append((session.id, session.incarnation, time.monotonic()))

    def report(self) -> str:
        """Return what was seen since the last report, as a line of JSON."""
        ended, served, wrong = self.ended, self.served, self.wrong
        self.ended, self.served, self.wrong = [], {}, []
        return json.dumps({"ended": ended, "served": [(*key, when) for key, when in served.items()], "wrong": wrong})


def _increment(state: dict[str, Any]) -> None:
    state["n"] = state.get("n", 0) + 1


async def main(configuration: dict[str, Any]) -> None:
    """Run a cell until its standard input ends."""
    _switch.set_enabled(False)
    logging.getLogger("snakepit_otel.sessions").setLevel(logging.CRITICAL)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, bool)
    # Nothing more is written to it: it is readable when it has ended.
    loop.add_reader(sys.stdin.fileno(), stop.set)
    number = configuration["number"]
    async with SessionStore(**configuration["session_store"]) as store:
        cell = Cell(store, number, Tally(Path(configuration["tally"])), configuration["seed"])
        tasks = [asyncio.ensure_future(cell.work()) for _ in range(configuration["tasks"])]
        stopping = asyncio.ensure_future(stop.wait())
        while not stop.is_set():
            done, _ = await asyncio.wait([*tasks, stopping], timeout=_REPORT_S, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # a task that ends has failed
            _write(cell.report())
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        _write(cell.report())
        await store.sweep()


def _write(line: str) -> None:
    """Write a line to the process that has started this one, and reads it as JSON."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.stdin.readline())))
