"""Connections to one server, over which calls are made in batches: all those that wait when a connection is free."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from snakepit_otel.common.printable import printable, printable_error
from snakepit_otel.sessions.backends._client_counters import ClientCounters
from snakepit_otel.sessions.backends.redis._failures import CallFailed, NotDone, ReplyLost, failure_of, is_reply
from snakepit_otel.sessions.backends.redis._scripts import Script

_log = logging.getLogger("snakepit_otel.sessions")
_MOST_IN_BATCH = 64
_MOST_BYTES_IN_BATCH = 256 << 10
_MOST_WAITING = 10_000
_CROWDED_S = 0.002  # that the oldest call waits for a connection before another one is opened
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0  # between two attempts to connect; drawn from nothing to that
_CONNECTION_ERRORS = (exceptions.RedisError, OSError, asyncio.TimeoutError, asyncio.IncompleteReadError)

Argument = bytes | str | int | float


class Call:
    """One call of a script; `sent` once it may have reached the server. `reply` is the future of its result."""

    __slots__ = ("_args", "_keys", "command", "for_this_call", "reply", "script", "sent", "since")

    def __init__(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], *, for_this_call: bool = False
    ) -> None:
        loop = asyncio.get_running_loop()
        self.script = script
        self._keys = tuple(keys)
        self._args = args
        self.for_this_call = for_this_call
        self.command = self._command(_packed_name(script.sha, self._keys))
        self.sent = False
        self.reply: asyncio.Future[Any] = loop.create_future()
        self.since = loop.time()

    def send_source(self) -> None:
        """Be sent with the script's text, to a server that does not have it."""
        self.command = self._command(_packed_words((b"EVAL", self.script.source, len(self._keys), *self._keys)))
        self.sent = False

    def _command(self, head: bytes) -> bytes:
        command = b"*%d\r\n%b%b" % (3 + len(self._keys) + len(self._args), head, _packed_words(self._args))
        return packed_command((b"ASKING",)) + command if self.for_this_call else command

    def complete(self, value: Any) -> None:
        """Set the reply, or the failure, unless nobody waits for it any more."""
        if not self.reply.done():
            self.reply.set_result(value)


def packed_command(words: Sequence[Argument]) -> bytes:
    """Return a command in the protocol's form."""
    return b"*%d\r\n%b" % (len(words), _packed_words(words))


def _packed_words(words: Sequence[Argument]) -> bytes:
    parts = []
    for word in words:
        value = word if type(word) is bytes else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(value), value))
    return b"".join(parts)


@lru_cache(maxsize=4_096)
def _packed_name(sha: str, keys: tuple[bytes, ...]) -> bytes:
    """Return the part of a call that is the same each time: of each script and shard there is one."""
    return _packed_words((b"EVALSHA", sha, len(keys), *keys))


class Server:
    """One server, to which at most `limit` connections are open; `timeout` is in seconds.

    `connect` returns a new connection, not connected yet, to where the server is now. `confirm` is a command that
    follows each batch with durable calls, such as WAIT, and `is_confirmed` checks its reply.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[AbstractConnection]],
        *,
        limit: int,
        timeout: float,
        counters: ClientCounters,
        confirm: bytes = b"",
        is_confirmed: Callable[[Any], bool] = bool,
    ) -> None:
        self.name = name
        self.connect = connect
        self.timeout = timeout
        self.counters = counters
        self.confirm = confirm
        self.is_confirmed = is_confirmed
        self.failure = ""
        self._limit = limit
        self._waiting: deque[Call] = deque()
        self._idle: list[tuple[asyncio.Task[None], asyncio.Future[None]]] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._failing_since: float | None = None
        self._crowded: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def is_gone(self) -> bool:
        """Whether it could not be reached for longer than a call would wait."""
        since = self._failing_since
        return since is not None and asyncio.get_running_loop().time() - since > self.timeout

    async def call(self, call: Call, deadline: float) -> Any:
        """Make a call, and return the reply, or a failure, which it is also at the deadline."""
        if self._is_closed:
            return NotDone("the store is closed")
        if self.is_gone:
            return NotDone(self.failure)
        if len(self._waiting) >= _MOST_WAITING:
            return NotDone(f"{_MOST_WAITING} calls are waiting for it")
        self._waiting.append(call)
        self._wake()
        timer = asyncio.get_running_loop().call_at(deadline, self._on_deadline, call)
        try:
            return await call.reply
        finally:
            timer.cancel()

    def drop(self) -> None:
        """Close all connections: the server is no master any more, or its address has changed."""
        for task in self._connections:
            task.cancel()

    async def close(self) -> None:
        """Close all connections for good."""
        self._is_closed = True
        if self._crowded is not None:
            self._crowded.cancel()
        self.drop()
        if tasks := list(self._connections):
            await asyncio.wait(tasks)
        for call in self._waiting:
            call.complete(NotDone("the store is closed"))
        self._waiting.clear()

    def _on_deadline(self, call: Call) -> None:
        if call.sent:
            call.complete(ReplyLost("it did not answer in time"))
        else:
            call.complete(NotDone(self.failure or "no connection to it was free in time"))

    def _wake(self) -> None:
        while self._idle:
            _, idle = self._idle.pop()
            if not idle.done():
                idle.set_result(None)
                return
        if not self._connections:
            self._open()
        elif self._crowded is None and len(self._connections) < self._limit and self._failing_since is None:
            self._crowded = asyncio.get_running_loop().call_later(_CROWDED_S, self._on_crowded)

    def _on_crowded(self) -> None:
        self._crowded = None
        if self._waiting and not self._is_closed and len(self._connections) < self._limit:
            now = asyncio.get_running_loop().time()
            if now - self._waiting[0].since >= _CROWDED_S:
                self._open()
            self._wake()

    def _open(self) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(), name=f"session store {self.name}")
        self._connections.add(task)
        self.counters.connections_used = (self.counters.connections_used or 0) + 1
        task.add_done_callback(self._on_closed)

    def _on_closed(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self.counters.connections_used = (self.counters.connections_used or 1) - 1
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a connection to the session store failed", exc_info=error)
        if self._waiting and not self._is_closed and not self._connections:
            self._open()

    async def _serve(self) -> None:
        """Connect, and make calls until the connection is lost; then connect again, if this is the only one."""
        task = asyncio.current_task()
        assert task is not None
        pause = _FIRST_PAUSE_S
        while True:
            connection: AbstractConnection | None = None
            try:
                try:
                    async with asyncio.timeout(self.timeout):
                        connection = await self.connect()
                        await connection.connect()  # type: ignore[no-untyped-call]
                except _CONNECTION_ERRORS as error:
                    self._on_failed(error)
                else:
                    self._on_connected()
                    pause = _FIRST_PAUSE_S
                    with suppress(*_CONNECTION_ERRORS):
                        await self._exchange_batches(connection, task)
                    self._drop_idle()
            finally:
                if connection is not None:
                    await connection.disconnect(nowait=True)
            if len(self._connections) > 1 or not (self._waiting or self.failure):
                return
            if self.failure:
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _drop_idle(self) -> None:
        """Close connections that nobody uses: what has ended another one has mostly ended these, too."""
        for task, idle in self._idle:
            if not idle.done():
                task.cancel()
        self._idle.clear()

    def _on_connected(self) -> None:
        if self._failing_since is not None:
            _log.info("the session store at %s answers again", printable(self.name))
        self._failing_since, self.failure = None, ""

    def _on_failed(self, error: BaseException) -> None:
        self.failure = f"it cannot be reached: {printable_error(error)}"
        if self._failing_since is None:
            self._failing_since = asyncio.get_running_loop().time()
            _log.warning("the session store at %s is lost: %s", printable(self.name), printable_error(error))

    async def _exchange_batches(self, connection: AbstractConnection, task: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._waiting:
                idle = loop.create_future()
                self._idle.append((task, idle))
                await idle
            if connection._reader is None or connection._reader.at_eof():
                # Found before anything is sent, so that no call is lost by it.
                return
            if batch := self._batch():
                await self._exchange(connection, batch)

    def _batch(self) -> list[Call]:
        batch: list[Call] = []
        size = 0
        while self._waiting and len(batch) < _MOST_IN_BATCH and size < _MOST_BYTES_IN_BATCH:
            call = self._waiting.popleft()
            if call.reply.done():
                # Nobody waits for it any more, and it was never sent.
                continue
            batch.append(call)
            size += len(call.command)
        return batch

    async def _exchange(self, connection: AbstractConnection, batch: list[Call]) -> None:
        """Send a batch, and set the calls' replies. Calls that have no reply when the connection fails are lost."""
        limit = asyncio.get_running_loop().call_later(self.timeout, _abort, connection)
        unanswered = deque(batch)
        durable: list[tuple[Call, Any]] = []
        is_master = True
        try:
            payload = [call.command for call in batch]
            if needs_confirmation := bool(self.confirm) and any(call.script.is_durable for call in batch):
                payload.append(self.confirm)
            for call in batch:
                call.sent = True
            await connection.send_packed_command(payload, check_health=False)
            for call in batch:
                reply = await self._reply(connection, call)
                unanswered.popleft()
                if isinstance(reply, NotDone):
                    is_master &= reply.is_master
                elif reply is not None and needs_confirmation and call.script.is_durable:
                    durable.append((call, reply))
                elif reply is not None:
                    call.complete(reply)
            if needs_confirmation:
                confirmation = await _read(connection)
                self._confirm(durable, confirmation)
                durable.clear()
        finally:
            limit.cancel()
            for call in (*unanswered, *(call for call, _ in durable)):
                call.complete(ReplyLost("the connection was lost before it answered"))
        if not is_master:
            self.drop()

    async def _reply(self, connection: AbstractConnection, call: Call) -> Any:
        """Return a call's reply. If it is an error, fail the call; return the failure if it was not done, else None."""
        try:
            if call.for_this_call:
                await _read(connection)
            return await _read(connection)
        except exceptions.NoScriptError:
            self._send_source(call)
            return None
        except exceptions.RedisError as error:
            if not is_reply(error):
                raise
            failure = failure_of(error)
            call.complete(failure)
            return failure if isinstance(failure, NotDone) else None

    def _send_source(self, call: Call) -> None:
        """Make a call again, first of all, with the script's text: the server has lost its scripts."""
        call.send_source()
        self._waiting.appendleft(call)

    def _confirm(self, calls: list[tuple[Call, Any]], reply: Any) -> None:
        if self.is_confirmed(reply):
            for call, result in calls:
                call.complete(result)
            return
        self.counters.not_durable += len(calls)
        for call, _ in calls:
            call.complete(
                CallFailed("it has done it, but no replica or disk has confirmed that in time: it may be lost")
            )


async def _read(connection: AbstractConnection) -> Any:
    # A reply that is an error leaves the connection as it is.
    return await connection.read_response(disable_decoding=True, timeout=math.inf, disconnect_on_error=False)


def _abort(connection: AbstractConnection) -> None:
    """Close a connection whose server does not answer, which ends the reading of replies."""
    if (writer := connection._writer) is not None:
        writer.transport.abort()
