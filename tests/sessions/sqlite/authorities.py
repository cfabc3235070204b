"""Processes that share a SQLite file under load, are killed, and what the file must have afterwards.

Run as `python -m tests.sessions.sqlite.authorities FILE KILLS PROCESSES SEED`. It ends with 1 and the difference if an
acknowledged write is lost, a session is back after its end, an update is lost, the quota exceeded or the ledger wrong.
Processes are forked by one that has imported everything, so that a kill costs milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path

from snakepit_otel.errors import SessionNotFound, SessionQuotaExceeded
from snakepit_otel.sessions import Limits
from snakepit_otel.sessions.backends.base import Entry, NewSession
from snakepit_otel.sessions.backends.sqlite import SqliteBackend

QUOTA = 300
COUNTERS = 3
TASKS = 8
ROUNDS_OF_A_TASK = 40  # where nobody is killed
LIMITS = Limits(max_sessions=QUOTA)


async def authority(path: Path, name: str, report: int, rounds: int) -> None:
    """Work on the file; report each intent in capitals, and each acknowledgement in small letters."""

    def write(line: str) -> None:
        os.write(report, f"{line}\n".encode())

    def bump(entries: dict[str, Entry]) -> dict[str, bytes]:
        return {"n": str(int(entries["n"].raw) + 1 if "n" in entries else 1).encode()}

    async def work(task: int) -> None:
        dice = random.Random(f"{name}-{task}")
        for number in range(rounds):
            session_id = f"{name}-{task}-{number}"
            write(f"C {session_id}")
            try:
                created = await backend.create(NewSession(session_id, 600.0, {}, token=dice.getrandbits(62) | 1))
            except SessionQuotaExceeded:
                write(f"- {session_id}")
                continue
            write(f"c {session_id}")
            assert created.live <= QUOTA, created.live
            counter = f"counter-{dice.randrange(COUNTERS)}"
            write(f"U {counter}")
            await backend.update(counter, bump)
            write(f"u {counter}")
            await backend.get(session_id)
            if dice.random() < 0.9:
                write(f"D {session_id}")
                await backend.delete(session_id)
                write(f"d {session_id}")
                try:
                    await backend.get(session_id)
                except SessionNotFound:
                    continue
                write(f"! {session_id} is served after its end")

    backend = SqliteBackend(LIMITS, path, timeout=20)
    await backend.open()
    await asyncio.gather(*map(work, range(TASKS)))
    await backend.close()


def start(path: Path, name: str, rounds: int) -> tuple[int, int]:
    """Fork an authority; return its process id, and what its reports are read from."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        code = 1
        try:
            asyncio.run(authority(path, name, writing, rounds))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    return pid, reading


class Book:
    """Intents and acknowledgements of all authorities."""

    def __init__(self) -> None:
        self.intents: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []

    def take(self, reports: bytes) -> None:
        """Take the complete lines of one authority's reports."""
        for line in reports.decode().splitlines() if reports.endswith(b"\n") else reports.decode().splitlines()[:-1]:
            kind, _, text = line.partition(" ")
            if kind == "!":
                self.problems.append(text)
            elif kind.isupper():
                self.intents[f"{kind.lower()} {text}"] += 1
            else:
                self.done[line] += 1

    async def compare(self, path: Path) -> None:
        """Compare with what is in the file."""
        backend = SqliteBackend(LIMITS, path, timeout=20)
        await backend.open()
        ids = {session.id async for batch in backend.scan() for session in batch}
        for line in self.done:
            kind, _, session_id = line.partition(" ")
            if kind == "c" and session_id not in ids and not self.intents[f"d {session_id}"]:
                self.problems.append(f"{session_id} was created, and is lost")
            if kind == "d" and session_id in ids:
                self.problems.append(f"{session_id} was deleted, and is back")
        for number in range(COUNTERS):
            entry = (await backend.read(f"counter-{number}")).entries.get("n")
            counted, least = int(entry.raw) if entry else 0, self.done[f"u counter-{number}"]
            if not least <= counted <= self.intents[f"u counter-{number}"]:
                self.problems.append(f"counter-{number} is {counted}, {least} were acknowledged")
        stats = await backend.stats()
        if stats.created - stats.deleted - stats.pruned_ttl - stats.pruned_overflow != stats.live:
            self.problems.append(f"the ledger is wrong: {stats}")
        await backend.close()
        with sqlite3.connect(path) as connection:
            found = connection.execute("SELECT count(*), total(memory), total(weight) FROM session").fetchone()
            kept = connection.execute("SELECT live, memory, weight FROM ledger").fetchone()
            select = "SELECT count(*) FROM state WHERE incarnation NOT IN (SELECT incarnation FROM session)"
            orphans = connection.execute(select).fetchone()[0]
        connection.close()
        if found != kept or orphans or stats.live > QUOTA:
            self.problems.append(f"{kept} counted, {found} there, {orphans} entries without a session")


def main(path: Path, kills: int, processes: int, seed: int) -> None:
    """Kill processes so many times, or run them to their end if none is to be killed, and compare."""

    async def create_counters() -> None:
        backend = SqliteBackend(LIMITS, path)
        await backend.open()
        for number in range(COUNTERS):
            await backend.create(NewSession(f"counter-{number}", 600.0, {}))
        await backend.close()

    asyncio.run(create_counters())
    dice, book, started, killed = random.Random(seed), Book(), 0, 0
    running: dict[int, tuple[int, bytearray]] = {}
    while killed < kills or (not kills and not started):
        while len(running) < processes:
            pid, pipe = start(path, f"p{started}", 1_000_000 if kills else ROUNDS_OF_A_TASK)
            running[pipe] = (pid, bytearray())
            started += 1
        until = time.monotonic() + dice.uniform(0.02, 0.2)
        while running and (time.monotonic() < until or not kills):
            for pipe in select.select(list(running), [], [], 0.01)[0]:
                if chunk := os.read(pipe, 1 << 16):
                    running[pipe][1].extend(chunk)
                    continue
                pid, reports = running.pop(pipe)
                os.close(pipe)
                book.take(bytes(reports))
                if status := os.waitpid(pid, 0)[1]:
                    book.problems.append(f"a process ended with {status}")
        if kills:
            everybody = dice.random() < 0.3 or killed + 1 >= kills
            for pipe in list(running)[: len(running) if everybody else 1]:
                pid, reports = running.pop(pipe)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                killed += 1
                while chunk := os.read(pipe, 1 << 16):
                    reports.extend(chunk)
                os.close(pipe)
                book.take(bytes(reports))
        if not running:
            asyncio.run(book.compare(path))
            if book.problems:
                break
    print(f"{killed} killed, {sum(book.done.values())} acknowledged, {len(book.problems)} problems")
    print("\n".join(book.problems[:10]))
    sys.exit(bool(book.problems) or not any(line[0] == "u" for line in book.done))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
