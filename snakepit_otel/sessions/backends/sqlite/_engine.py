"""Thread of a store in a file, which does the operations of event loops, many of them in one transaction."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from snakepit_otel.common.guard import guard
from snakepit_otel.errors import SessionError, SessionStoreUnavailable
from snakepit_otel.sessions._quota import Limits
from snakepit_otel.sessions.backends._client_counters import ClientCounters
from snakepit_otel.sessions.backends.base import Stats
from snakepit_otel.sessions.backends.sqlite._availability import Availability
from snakepit_otel.sessions.backends.sqlite._clock import StoreClock
from snakepit_otel.sessions.backends.sqlite._database import (
    busy,
    checkpoints,
    is_busy,
    lost,
    open_store,
    pause,
    persist,
    unavailable,
)
from snakepit_otel.sessions.backends.sqlite._reading import Reading, WriteNeeded
from snakepit_otel.sessions.backends.sqlite._touches import Touches
from snakepit_otel.sessions.backends.sqlite._writing import Writing

_log = logging.getLogger("snakepit_otel.sessions")
_LOOK_S = 1.0  # between two looks at which file has the name
_MOST_AT_ONCE = 256  # operations in one transaction
Result = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Operation:
    """One call: what to try without a write, what to do with one, and the future of its caller."""

    __slots__ = ("arguments", "future", "reads", "since", "writes")

    def __init__(
        self,
        reads: Callable[..., Any] | None,
        writes: Callable[..., Any],
        arguments: tuple[object, ...],
        future: asyncio.Future[Any],
    ) -> None:
        self.reads = reads
        self.writes = writes
        self.arguments = arguments
        self.future = future
        self.since = time.monotonic()


class Engine:
    """Owns the connection. All of it but `submit` and `start` runs in its own thread.

    `limit` is in seconds: an operation that cannot begin to write for so long fails.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        clock: StoreClock,
        client: ClientCounters,
        *,
        is_durable: bool,
        limit: float,
    ) -> None:
        self.name = ""
        self.last_stats = Stats()
        self.taken = 0
        self._path = path
        self._limits = limits
        self._clock = clock
        self._client = client
        self._is_durable = is_durable
        self._limit = limit
        self._queue: SimpleQueue[Operation | None] = SimpleQueue()
        self._touches = Touches()
        self._waiting: list[Operation] = []
        self._checked = time.monotonic()
        self.availability = Availability(path)
        self._has_lost_file = False
        self._is_waiting_for_lock = False

    def start(self, opened: asyncio.Future[None], closed: Future[None]) -> None:
        """Start the thread; the futures are resolved once the file is open, and once it is closed again."""
        threading.Thread(target=self._run, args=(opened, closed), name="sqlite session store", daemon=True).start()

    def submit(self, operation: Operation | None) -> None:
        """Give an operation to the thread; None closes the file after those before it."""
        self._queue.put(operation)

    def _run(self, opened: asyncio.Future[None], closed: Future[None]) -> None:
        deadline = time.monotonic() + self._limit
        try:
            self._connection, self.name = open_store(
                self._path, self._clock, self._limits, is_durable=self._is_durable, deadline=deadline
            )
            self._reading = Reading(self._connection, self._clock, self._limits, self._touches)
            self._writing = Writing(self._connection, self._clock, self._limits, self._touches)
            self.last_stats = self._reading.stats()
            self._identity = _identity(self._path)
            self._checkpoints = checkpoints(self._connection, self._path)
        except BaseException as error:  # noqa: BLE001 - raised to the caller
            closed.set_result(None)
            deliver([(opened, None, self._translated(error))])
            return
        deliver([(opened, None, None)])
        is_open = True
        while is_open:
            with guard("the thread of the session store", _log) as guarded:
                is_open = self._step()
            if guarded.error is not None:
                self._fail_waiting(guarded.error)
        self._checkpoints.close()
        with suppress(sqlite3.Error):
            self._connection.close()
        closed.set_result(None)

    def _step(self) -> bool:
        """Take what there is, and do it; False once all is done and the file is to be closed."""
        operations, is_last = self._take()
        if self._is_lost():
            self._waiting += operations
            self._touches.clear()
            self._fail(self._waiting, lambda: lost(self._path))
            self._waiting = []
        elif operations:
            self._read(operations)
        if is_last:
            self._finish()
            return False
        if self._waiting or self._touches.is_due():
            self._write()
        return True

    def _take(self) -> tuple[list[Operation], bool]:
        operations: list[Operation] = []
        timeout = pause() if self._waiting else self._touches.wait()
        try:
            operation = self._queue.get(timeout=timeout)
            while operation is not None:
                operations.append(operation)
                if len(operations) == _MOST_AT_ONCE:
                    break
                operation = self._queue.get_nowait()
            else:
                return operations, True
        except Empty:
            pass
        finally:
            self.taken += len(operations)
        return operations, False

    def _read(self, operations: Iterable[Operation]) -> None:
        """Answer what needs no write; the rest waits for the next transaction."""
        reading = self._reading
        results: list[Result] = []
        begun = False
        for operation in operations:
            if operation.future.done():
                continue
            if operation.reads is None:
                self._waiting.append(operation)
                continue
            try:
                if not begun:
                    self._connection.execute("BEGIN")
                    reading.begin()
                    begun = True
                result = operation.reads(reading, *operation.arguments)
            except WriteNeeded:
                self._waiting.append(operation)
            except SessionError as error:
                results.append((operation.future, None, error))
            except Exception as error:  # noqa: BLE001 - raised to the caller
                if isinstance(error, sqlite3.Error) and is_busy(error):
                    # Another process recovers or closes the file just now.
                    self._waiting.append(operation)
                else:
                    results.append((operation.future, None, self._translated(error)))
            else:
                results.append((operation.future, result, None))
                if isinstance(result, Stats):
                    self.last_stats = result  # with what other authorities have counted
        if begun:
            self.last_stats = reading.seen() or self.last_stats
            with suppress(sqlite3.Error):
                self._connection.execute("COMMIT")
        deliver(results)

    def _write(self) -> None:
        """Do what is waiting, and write the accesses that are due, unless another process is writing just now."""
        if not self._begin():
            return
        operations, self._waiting = self._waiting, []
        results = self._attempt(operations)
        if results is None:
            # One of them failed half-way, and all is undone: each for itself, so that only that one fails.
            results = []
            for operation in operations:
                results += self._alone(operation)
        deliver(results)
        # After the replies, which have what they wait for.
        self._checkpoints.on_commit()

    def _begin(self) -> bool:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            self._touches.postpone(pause())
            if not is_busy(error):
                self._touches.postpone()
                self._fail_waiting(error)
                return False
            if not self._is_waiting_for_lock:
                self._is_waiting_for_lock = True
                self._client.retries += len(self._waiting)
            early = time.monotonic() - self._limit
            late = [operation for operation in self._waiting if operation.since <= early]
            if late:
                self._waiting = [operation for operation in self._waiting if operation.since > early]
                self._fail(late, lambda: busy(self._path))
            return False
        self._is_waiting_for_lock = False
        return True

    def _attempt(self, operations: list[Operation]) -> list[Result] | None:
        """Do operations in the transaction that has begun; None, with everything undone, if one fails half-way."""
        writing = self._writing
        results: list[Result] = []
        self._error: BaseException | None = None
        try:
            writing.begin()
            if self._touches.is_due():
                writing.settle()
            for operation in operations:
                if operation.future.done():
                    continue
                try:
                    result = operation.writes(writing, *operation.arguments)
                except SessionError as error:
                    results.append((operation.future, None, error))
                else:
                    results.append((operation.future, result, None))
            writing.finish(self._clock.now(), self._clock.wall())
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - raised to the caller of the operation that it is of
            self._error = error
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            self._touches.postpone()
            return None
        if writing.has_settled:
            self._touches.clear()
        self.availability.on_success()
        self.last_stats = writing.ledger.stats()
        return results

    def _alone(self, operation: Operation) -> list[Result]:
        """Do one operation in a transaction of its own."""

        def begin() -> None:
            self._connection.execute("BEGIN IMMEDIATE")

        try:
            persist(begin, self._path, operation.since + self._limit)
        except sqlite3.Error as error:
            return [(operation.future, None, self._translated(error))]
        except SessionStoreUnavailable as error:
            self.availability.on_failure(error)
            return [(operation.future, None, error)]
        results = self._attempt([operation])
        if results is None:
            assert self._error is not None
            return [(operation.future, None, self._translated(self._error))]
        return results

    def _finish(self) -> None:
        """Do what is left, for as long as an operation may take."""
        deadline = time.monotonic() + self._limit
        while (self._waiting or self._touches.wait() is not None) and time.monotonic() < deadline:
            self._touches.hasten()
            self._write()
            if self._waiting:
                time.sleep(pause())

    def _fail_waiting(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, []
        self._fail(waiting, lambda: self._translated(error))

    def _fail(self, operations: Iterable[Operation], error: Callable[[], BaseException]) -> None:
        """Fail operations, each with an error of its own."""
        for operation in operations:
            failure = error()
            self.availability.on_failure(failure)
            deliver([(operation.future, None, failure)])

    def _is_lost(self) -> bool:
        """Return whether the file is not the one under its name any more, looking now and then."""
        now = time.monotonic()
        if now - self._checked >= _LOOK_S:
            self._checked = now
            self._has_lost_file = self._has_lost_file or _identity(self._path) != self._identity
        return self._has_lost_file

    def _translated(self, error: BaseException) -> BaseException:
        if not isinstance(error, sqlite3.Error):
            return error
        translated = unavailable(self._path, error)
        self.availability.on_failure(translated)
        return translated


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def deliver(results: list[Result]) -> None:
    """Resolve the futures of results, each in its own event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[Result]] = {}
    for result in results:
        loops.setdefault(result[0].get_loop(), []).append(result)
    for loop, its_results in loops.items():
        # One whose loop is closed has nobody who waits for it.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, its_results)


def _resolve(results: Iterable[Result]) -> None:
    for future, result, error in results:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
