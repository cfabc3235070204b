"""`snakepit-otel prove ledger`: cells, load, kills, and both sides of the ledger's equation every second."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from snakepit_otel.cli.output import EXIT_CODES_HELP, EXIT_TOOL_FAILED, console, line, print_json, run
from snakepit_otel.cli.prove.store import ProofStore, proof_store
from snakepit_otel.cli.prove.tally import COUNTERS, Tally
from snakepit_otel.cli.prove.verdict import Verdict, as_json, equation, summed, unreported
from snakepit_otel.errors import SessionStoreUnavailable
from snakepit_otel.sessions import Overflow, SessionStore, Stats
from snakepit_otel.telemetry import _switch

_QUOTA = 200
_SETTINGS: dict[str, Any] = {"max_sessions": _QUOTA, "cleanup_interval": 500, "default_ttl": 2.0}
_READ_S = 0.1  # between two readings of the ledger, of which one a second is printed
_STOP_S = 20.0
_SETTLE_S = 30.0  # for the store to answer at the end


def ledger(
    cells: Annotated[int, typer.Option(min=1, max=64, help="Authorities, each a process.")] = 4,
    kill: Annotated[
        int, typer.Option(min=0, help="Authorities that are killed, as by kill -9, one after another.")
    ] = 4,
    minutes: Annotated[float, typer.Option(min=0.02, max=1440.0, help="How long to go on.")] = 1.0,
    url: Annotated[
        str | None,
        typer.Option(
            help="The store, as in session_store.url; a namespace of its own is used in it.",
            show_default="a Redis or Valkey that is started for it, or a SQLite file",
        ),
    ] = None,
    file: Annotated[bool, typer.Option("--file", help="Use a SQLite file that is made for it.")] = False,
    restarts: Annotated[
        int | None,
        typer.Option(min=0, help="Times the store is killed and started again.", show_default="once in 20 seconds"),
    ] = None,
    tasks: Annotated[int, typer.Option(min=1, max=1000, help="Tasks of each authority.")] = 10,
    overflow: Annotated[
        Overflow, typer.Option(help="At the quota: reject new sessions, or evict those that were used least recently.")
    ] = Overflow.REJECT,
    seed: Annotated[int | None, typer.Option(help="Seed of what is done.", show_default="drawn")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print only the verdict, as JSON.")] = False,
) -> None:
    """Prove that the ledger of a session store stays exact, over several authorities that are killed.

    Authorities create, use, hold, delete and let expire sessions at the quota, in one store, and increment counters.
    Some are killed, and so is the store if it was started for the proof. Meanwhile, and at the end, must hold: the
    equation of the ledger, the quota, no session served after its end, no update lost or made twice, and no event
    lost unless an authority or the store died. Exit code 1 if one does not.
    """
    if url is not None and file:
        raise typer.BadParameter("--url and --file name two stores; give one of them")
    seed = secrets.randbits(32) if seed is None else seed
    proof = Proof(cells, kill, minutes * 60, restarts, tasks, seed, overflow)

    async def work() -> None:
        _switch.set_enabled(False)
        logging.getLogger("snakepit_otel.sessions").setLevel(logging.CRITICAL)
        task = asyncio.current_task()
        assert task is not None
        # As by Ctrl-C, so that nothing is left behind.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with tempfile.TemporaryDirectory(prefix="snakepit-prove-") as folder:
            holds = await proof.run(proof_store(url, Path(folder), file=file), Path(folder), quiet=json_)
        if not holds:
            raise typer.Exit(EXIT_TOOL_FAILED)

    run(work)


ledger.__doc__ = f"{ledger.__doc__}\n\n{EXIT_CODES_HELP}"


class Proof:
    """One proof: its cells, its store and what was found; `seconds` is how long it lasts."""

    def __init__(
        self,
        cells: int,
        kills: int,
        seconds: float,
        restarts: int | None,
        tasks: int,
        seed: int,
        overflow: Overflow = Overflow.REJECT,
    ) -> None:
        self.verdict = Verdict(_QUOTA)
        self._settings = {**_SETTINGS, "overflow": overflow.value}
        self._cells = cells
        self._tasks = tasks
        self._seed = seed
        self._random = random.Random(seed)  # noqa: S311
        self._seconds = seconds
        self._kills = kills
        self._restarts = int(seconds / 20) if restarts is None else restarts
        self._running: dict[int, tuple[asyncio.subprocess.Process, asyncio.Task[None]]] = {}
        self._tallies: list[Tally] = []
        self._ends: set[int] = set()  # the cells that are killed
        self._killed = self._restarted = 0
        self._stats: Stats | None = None
        self._is_away = False

    async def run(self, store: ProofStore, folder: Path, *, quiet: bool) -> bool:
        """Run it with files in a folder, print what is found unless `quiet`, and return whether all holds."""
        started = time.monotonic()
        task = asyncio.current_task()
        assert task is not None
        try:
            await store.start()
            async with SessionStore(**store.settings, **self._settings) as observer:
                for counter in range(COUNTERS):
                    await observer.create(f"counter-{counter}", ttl=86_400)
                if not quiet:
                    _show(
                        f"{self._cells} cells of {self._tasks} tasks over {store.name}, {self._seconds:g} s, "
                        f"{self._kills} kills, quota {_QUOTA}, seed {self._seed}"
                    )
                for _ in range(self._cells):
                    await self._start_cell(folder, store)
                try:
                    await self._watch(folder, store, observer, quiet=quiet)
                except asyncio.CancelledError:
                    # Interrupted: what was found so far is the verdict.
                    task.uncancel()
                await self._settle(observer)
                await _remove_counters(observer)
        finally:
            await self._stop_cells()
            store.remove()
        self._print(store, time.monotonic() - started, quiet=quiet)
        return self.verdict.holds

    async def _watch(self, folder: Path, store: ProofStore, observer: SessionStore, *, quiet: bool) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        events = self._events(began, store)
        due, what = next(events, (float("inf"), ""))
        shown, operations = 0, 0
        while (now := loop.time()) < began + self._seconds:
            if now >= due:
                await (self._kill_cell(folder, store) if what == "kill" else self._restart(store))
                due, what = next(events, (float("inf"), ""))
            await self._read(observer)
            if int(now - began) > shown:
                shown = int(now - began)
                done = sum(tally.operations for tally in self._tallies)
                if not quiet:
                    _show(self._line(shown, done - operations))
                operations = done
            await asyncio.sleep(_READ_S)

    def _events(self, began: float, store: ProofStore) -> Iterator[tuple[float, str]]:
        """Yield kills and restarts, spread over the time, in their order."""
        restarts = self._restarts if store.can_restart else 0
        events = [
            (began + self._seconds * (number + self._random.uniform(0.3, 0.7)) / count, what)
            for what, count in (("kill", self._kills), ("restart", restarts))
            for number in range(count)
        ]
        yield from sorted(events)

    def _line(self, second: int, operations: int) -> str:
        if self._stats is None or self._is_away:
            return f"{second:4} s  the store is away"
        lost = unreported(self._stats)
        return (
            f"{second:4} s  {equation(self._stats)}; {operations:,} operations, {lost} events open or lost, "
            f"{self._killed} killed"
        )

    async def _read(self, observer: SessionStore) -> None:
        try:
            self._stats = await observer._backend.stats()
        except SessionStoreUnavailable:
            self._is_away = True
            return
        self._is_away = False
        self.verdict.on_stats(self._stats)

    async def _settle(self, observer: SessionStore) -> None:
        """Stop the cells, let everything expire that is to, and check what is left."""
        await self._stop_cells()
        deadline = time.monotonic() + _SETTLE_S
        while True:
            try:
                await observer.sweep()
                listed = sum([len(batch) async for batch in observer._backend.scan()])
                await observer.sweep()
                self._stats = await observer._backend.stats()
            except SessionStoreUnavailable as error:
                if time.monotonic() > deadline:
                    self.verdict.difference("store", f"it does not answer at the end: {error}")
                    return
            else:
                # Sessions may expire between the two; only in the end must they agree.
                if listed == self._stats.live or time.monotonic() > deadline:
                    break
            await asyncio.sleep(_READ_S)
        self.verdict.on_end(self._stats, listed, died=self._killed, outages=self._restarted)
        possible = summed([tally.possible for tally in self._tallies])
        acknowledged = summed([tally.acknowledged for tally in self._tallies])
        for counter in range(COUNTERS):
            name = f"counter-{counter}"
            value = await observer.get_state(name, "n", 0)
            self.verdict.on_counted(value, acknowledged[counter], possible[counter], name)

    async def _start_cell(self, folder: Path, store: ProofStore) -> None:
        number = len(self._tallies)
        file = folder / f"cell-{number}"
        self._tallies.append(Tally(file))
        configuration = {
            "number": number,
            "tally": str(file),
            "tasks": self._tasks,
            "seed": self._random.getrandbits(32),
            "session_store": {**store.settings, **self._settings},
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "snakepit_otel.cli.prove.cell"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(f"{json.dumps(configuration)}\n".encode())
        self._running[number] = (process, asyncio.ensure_future(self._take_reports(number, process)))

    async def _take_reports(self, number: int, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        # Read by pieces: a line may be longer than what a stream reads at once.
        rest = b""
        while piece := await process.stdout.read(1 << 16):
            *lines, rest = (rest + piece).split(b"\n")
            for text in lines:
                report = json.loads(text)
                self.verdict.on_ended(tuple(one) for one in report["ended"])
                self.verdict.on_served(tuple(one) for one in report["served"])
                for example in report["wrong"]:
                    self.verdict.difference("served after its end", example)
        if await process.wait() != 0 and number not in self._ends:
            self.verdict.difference("cell", f"cell {number} ended by itself, with status {process.returncode}")

    async def _kill_cell(self, folder: Path, store: ProofStore) -> None:
        number = self._random.choice([*self._running])
        process, reports = self._running.pop(number)
        self._ends.add(number)
        with suppress(ProcessLookupError):
            process.kill()
        await reports
        self._killed += 1
        await self._start_cell(folder, store)

    async def _restart(self, store: ProofStore) -> None:
        self._restarted += 1
        await store.restart()

    async def _stop_cells(self) -> None:
        running, self._running = self._running, {}
        for process, _ in running.values():
            if process.stdin is not None:
                process.stdin.close()
        for number, (process, reports) in running.items():
            try:
                async with asyncio.timeout(_STOP_S):
                    await asyncio.shield(reports)
            except TimeoutError:
                self.verdict.difference("cell", f"cell {number} did not stop within {_STOP_S:g} s")
                self._ends.add(number)
                with suppress(ProcessLookupError):
                    process.kill()
                await reports

    def _print(self, store: ProofStore, seconds: float, *, quiet: bool) -> None:
        verdict = self.verdict
        operations = sum(tally.operations for tally in self._tallies)
        failures = sum(tally.failures for tally in self._tallies)
        acknowledged = sum(sum(tally.acknowledged) for tally in self._tallies)
        if quiet:
            figures = {
                "store": store.name,
                "cells": self._cells,
                "killed": self._killed,
                "store_restarts": self._restarted,
                "operations": operations,
                "failures": failures,
                "increments": acknowledged,
                "seed": self._seed,
                "seconds": round(seconds, 1),
            }
            print_json(as_json(verdict, self._stats, figures))
            return
        console.print()
        if self._stats is not None:
            pruned = self._stats.pruned_ttl + self._stats.pruned_overflow
            _show(equation(self._stats))
            _show(
                f"{self._killed} cells and {self._restarted} stores killed; "
                f"{unreported(self._stats)} of {pruned:,} events of pruned sessions lost with them"
            )
        _show(f"{operations:,} operations, {failures:,} refused while the store was away")
        _show(f"at most {verdict.most_live} sessions live of {verdict.quota}, in {verdict.readings} readings")
        if verdict.holds:
            _show(f"{acknowledged:,} increments, none of them lost or made twice")
            console.print("the ledger is exact", style="green")
            return
        for example in verdict.examples:
            _show(f"DIFFERENCE  {example}")
        console.print("the proof has failed", style="red")


async def _remove_counters(observer: SessionStore) -> None:
    """Delete what would stay in a store that others use; all else in it has expired, or does by itself."""
    with suppress(SessionStoreUnavailable):
        for counter in range(COUNTERS):
            await observer.delete(f"counter-{counter}")


def _show(text: str) -> None:
    console.print(line(text), soft_wrap=True)
