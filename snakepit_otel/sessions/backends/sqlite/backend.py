"""Session backend in a SQLite file: sessions survive the process, and several of one machine may share them."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from snakepit_otel.common.clock import Clock
from snakepit_otel.common.printable import printable
from snakepit_otel.errors import ConfigurationError, SessionStoreUnavailable, StateConflict
from snakepit_otel.sessions._attribution import MADE_BEFORE, Creator, CreatorReport, CreatorTally
from snakepit_otel.sessions._quota import Limits
from snakepit_otel.sessions._session import Session
from snakepit_otel.sessions.backends._client_counters import ClientCounters
from snakepit_otel.sessions.backends.base import (
    Claim,
    Created,
    Deleted,
    Ended,
    Entry,
    NewSession,
    Pruned,
    StateView,
    Stats,
    WarningReason,
)
from snakepit_otel.sessions.backends.sqlite._clock import StoreClock
from snakepit_otel.sessions.backends.sqlite._database import replace_limits, stored_limits
from snakepit_otel.sessions.backends.sqlite._engine import Engine, Operation
from snakepit_otel.sessions.backends.sqlite._reading import Reading
from snakepit_otel.sessions.backends.sqlite._rows import origin_of
from snakepit_otel.sessions.backends.sqlite._writing import Writing
from snakepit_otel.system.daemon_thread import run_in_daemon_thread

T = TypeVar("T")

_MOST_WAITING = 10_000  # operations that the thread has not taken yet
_MOST_CONFLICTS = 100
_CONFLICT_PAUSE_S = 0.005
_RECOVERY_S = 10.0  # that opening may take longer: SQLite recovers first what a killed process has left
_SHARE_OF_TIMEOUT = 0.8  # after which the thread fails an operation, before its caller gives up
_SCAN_BATCH = 500
_GROUP_BATCH = 5_000
_DURABILITIES = ("memory", "fsync")


class _Turn:
    """The turn to update one session, and how many in this process use or wait for it."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class SqliteBackend:
    """Keeps sessions in a file, by a thread of its own.

    What was created, written or deleted is in the file before the call returns, and survives the end of the process,
    however it ends; with `durability="fsync"`, which waits for the disk, also that of the machine. An access and a
    last worker are in the file within 200 ms, and at once where the session would end within 1 s: of these, as many
    are lost with a process that is killed. `timeout` is in seconds.

    Raises `ConfigurationError` for a durability that a file cannot have.
    """

    is_lasting = True

    def __init__(
        self,
        limits: Limits | None = None,
        path: str | os.PathLike[str] = "sessions.db",
        *,
        clock: Clock | None = None,
        durability: str = "memory",
        timeout: float = 1.0,
    ) -> None:
        if durability not in _DURABILITIES:
            raise ConfigurationError(
                f"session_store.durability is {durability!r}; a SQLite file can have {' or '.join(_DURABILITIES)}"
            )
        self.limits = limits or Limits()
        self.path = Path(path).absolute()
        self.clock = clock
        self._is_durable = durability == "fsync"
        self._timeout = timeout
        # Steps of the wall clock do not count, and the machine's monotonic clock is never behind.
        self.client = ClientCounters(clock_skew=0.0)
        self._engine: Engine | None = None
        self._closed: Future[None] | None = None
        self._process = os.getpid()
        self._submitted = 0
        self._pending: deque[Operation] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_loop: asyncio.AbstractEventLoop | None = None
        self._updates: dict[str, _Turn] = {}
        self._name = "sqlite"
        self._stats = Stats()

    @property
    def name(self) -> str:
        """The store's name, the same for all authorities that share the file."""
        return self._name

    @property
    def last_stats(self) -> Stats:
        """The ledger as this process last saw it."""
        return self._engine.last_stats if self._engine is not None else self._stats

    async def open(self) -> None:
        """Open the file, which is created where there is none.

        Raises `ConfigurationError` for a file that is something else, that others can write to, or that has other
        limits; `SessionStoreUnavailable` if another process keeps it locked.
        """
        if self._engine is not None:
            return
        loop = asyncio.get_running_loop()
        self._process = os.getpid()
        engine = Engine(
            self.path,
            self.limits,
            StoreClock(self.clock),
            self.client,
            is_durable=self._is_durable,
            limit=self._timeout * _SHARE_OF_TIMEOUT,
        )
        opened: asyncio.Future[None] = loop.create_future()
        closed: Future[None] = Future()
        engine.start(opened, closed)
        try:
            await asyncio.wait_for(opened, self._timeout + _RECOVERY_S)
        except TimeoutError:
            engine.submit(None)
            raise SessionStoreUnavailable(
                f"session store {printable(str(self.path))} could not be opened in time; its disk is too slow"
            ) from None
        except BaseException:
            engine.submit(None)
            raise
        self._submitted = 0
        self._engine, self._closed, self._name = engine, closed, engine.name

    async def stored_limits(self) -> Limits | None:
        """Return the limits that the file has, None for a new one; also of a backend that is not open."""
        deadline = time.monotonic() + self._timeout
        return await run_in_daemon_thread(lambda: stored_limits(self.path, deadline=deadline))

    async def set_limits(self) -> None:
        """Give the file the limits of this backend, for all authorities; also of one that is not open.

        Authorities that have it open keep their own until they are started again.
        """
        clock, deadline = StoreClock(self.clock), time.monotonic() + self._timeout
        await run_in_daemon_thread(lambda: replace_limits(self.path, clock, self.limits, deadline=deadline))

    async def close(self) -> None:
        """Write what is left, and close the file; waits no longer than an operation may take."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        self._stats = engine.last_stats
        engine.submit(None)
        closed, self._closed = self._closed, None
        if closed is not None:
            await asyncio.wait([asyncio.wrap_future(closed)], timeout=2 * self._timeout)

    async def create(self, new: NewSession) -> Created:
        """Create a session or return the live one; see the contract."""
        return await self._call(Reading.create, Writing.create, new)

    async def get(self, session_id: str, *, touch: bool = True, incarnation: int | None = None) -> Session:
        """Return the session; see the contract."""
        return await self._call(Reading.get, Writing.get, session_id, touch, incarnation)

    async def read(self, session_id: str, *, touch: bool = True) -> StateView:
        """Return the session's state; see the contract."""
        return await self._call(Reading.read, Writing.read, session_id, touch)

    async def write(
        self,
        session_id: str,
        changes: Mapping[str, bytes | None],
        *,
        if_version: int | None = None,
        if_versions: Mapping[str, int] | None = None,
        token: int = 0,
    ) -> int:
        """Write state all or nothing; see the contract."""
        return await self._call(None, Writing.write, session_id, changes, if_version, if_versions, token)

    async def update(self, session_id: str, change: Callable[[Mapping[str, Entry]], Mapping[str, bytes | None]]) -> int:
        """Write what `change` makes of the state, in the caller's event loop; see the contract."""
        turn = self._updates.setdefault(session_id, _Turn())
        turn.users += 1
        try:
            # Those of this process wait for each other: only other processes can be faster.
            async with turn.lock:
                return await self._update(session_id, change)
        finally:
            turn.users -= 1
            if not turn.users:
                del self._updates[session_id]

    async def _update(
        self, session_id: str, change: Callable[[Mapping[str, Entry]], Mapping[str, bytes | None]]
    ) -> int:
        for attempt in itertools.count(1):
            view = await self.read(session_id)
            changes = change(view.entries)
            if not changes:
                break
            try:
                return await self.write(session_id, changes, if_version=view.version)
            except StateConflict:
                if attempt == _MOST_CONFLICTS:
                    raise
                await asyncio.sleep(random.uniform(0, _CONFLICT_PAUSE_S))  # noqa: S311 - no secret
        return view.version

    async def assign_worker(self, session_id: str, worker_id: str) -> None:
        """Keep the session's last worker; see the contract."""
        await self._call(Reading.assign_worker, Writing.assign_worker, session_id, worker_id)

    async def delete(self, session_id: str, *, owner: str | None = None, incarnation: int | None = None) -> Deleted:
        """Delete the session; see the contract."""
        return await self._call(None, Writing.delete, session_id, owner, incarnation)

    async def prune(self, limit: int, *, reported: int = 0) -> Pruned:
        """Remove expired sessions; see the contract."""
        return await self._call(None, Writing.prune, limit, reported)

    async def evict(self, size: int, keep: str) -> Sequence[Ended]:
        """Remove the least recently used sessions; see the contract."""
        return await self._call(None, Writing.evict, size, keep)

    async def page(self, after: str | None, limit: int, *, owner: str | None = None) -> Sequence[Session]:
        """Return live sessions in order of id."""
        return await self._call(Reading.page, Writing.page, after, limit, owner)

    async def scan(self, *, owner: str | None = None) -> AsyncGenerator[Sequence[Session], None]:
        """Yield the live sessions in batches; see the contract."""
        after, last = 0, await self._call(Reading.last_incarnation, Writing.last_incarnation)
        while after < last:
            sessions, after = await self._call(Reading.scan, Writing.scan, after, last, _SCAN_BATCH, owner)
            if sessions:
                yield sessions

    async def suspects(self, most: int = 5, *, owner: str | None = None) -> CreatorReport:
        """Return the creators with most sessions; see the contract."""
        tally, after = CreatorTally(owner), 0
        while True:
            groups, bound, now = await self._call(Reading.groups, Writing.groups, after, _GROUP_BATCH)
            if bound is None:
                return tally.report(most)
            for creator, tool, its_owner, sessions, began, trace in groups:
                origin = origin_of(creator, trace, tool)
                by = origin.creator if origin is not None and origin.creator is not None else None
                if by is None:
                    by = Creator(MADE_BEFORE, origin.tool if origin is not None else None, its_owner)
                tally.add_group(by, sessions, now - began, trace)
            after = bound

    async def claim(self, reason: WarningReason, count: int, quiet: float, owners: Mapping[str, int]) -> Claim:
        """Claim to warn; see the contract."""
        return await self._call(None, Writing.claim, reason, count, quiet, owners)

    async def stats(self) -> Stats:
        """Return the ledger; see the contract."""
        return await self._call(Reading.stats, Writing.stats)

    async def _call(self, reads: Callable[..., T] | None, writes: Callable[..., T], *arguments: object) -> T:
        engine = self._engine
        if engine is None:
            raise SessionStoreUnavailable(f"session store {printable(str(self.path))} is not open")
        if self._process != os.getpid():
            raise SessionStoreUnavailable(
                f"session store {printable(str(self.path))} was opened before this process was forked; open it again"
            )
        if self._submitted - engine.taken >= _MOST_WAITING:
            raise SessionStoreUnavailable(
                f"session store {printable(str(self.path))}: {_MOST_WAITING} operations wait for its disk already"
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        operation = Operation(reads, writes, arguments, future)
        self._submitted += 1
        self._pending.append(operation)
        engine.submit(operation)
        if self._timer is None or self._timer_loop is not loop:
            self._timer_loop = loop
            self._timer = loop.call_later(self._timeout, self._expire)
        return await future

    def _expire(self) -> None:
        """Fail what has waited for too long, and look again when the next could have."""
        loop = asyncio.get_running_loop()
        pending, early = self._pending, time.monotonic() - self._timeout
        while pending and (pending[0].future.done() or pending[0].since <= early):
            future = pending.popleft().future
            if not future.done() and future.get_loop() is loop:
                error = SessionStoreUnavailable(
                    f"session store {printable(str(self.path))} did not answer within {self._timeout:g} s; "
                    "its disk, or another process that has locked it, is too slow"
                )
                future.set_exception(error)
                if self._engine is not None:
                    self._engine.availability.on_failure(error)
        self._timer = loop.call_later(max(0.001, pending[0].since - early), self._expire) if pending else None
