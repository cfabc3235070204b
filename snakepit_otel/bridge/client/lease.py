"""A client's end of a lease: the sessions that it holds while it is connected."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress

from grpc import aio

from snakepit_otel.bridge.proto import snakepit_leases_pb2 as pb
from snakepit_otel.bridge.wire.errors import from_wire
from snakepit_otel.bridge.wire.messages import message
from snakepit_otel.bridge.wire.methods import HOLD
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.errors import AuthorityUnavailable, SessionNotFound, SnakepitError
from snakepit_otel.rpc import Connection
from snakepit_otel.sessions._session import checked_owner, checked_ttl
from snakepit_otel.telemetry import outgoing

_log = logging.getLogger("snakepit_otel.client")
_MOST_LOST = 10_000
_MOST_NAMED = 5
_TIME_TO_CLOSE = 2.0
"""Seconds that the authority has to say that what was held has been deleted."""
_OVERTAKEN = "Internal error from Core"
"""The failure of a call in gRPC's asyncio whose peer has refused it before its headers count as sent."""

Translate = Callable[[aio.AioRpcError], SnakepitError]


class LeaseHolder:
    """Holds sessions over one stream of a connection, which begins when it is first needed, and anew after it broke.

    A session that ends while it is held, with the stream or by others, is lost; `check` refuses its next
    uses, which would otherwise create it anew, with nothing in it and nobody to end it. Every method raises
    what the authority refused, and what `translate` makes of a stream that fails.
    """

    def __init__(self, connection: Connection, translate: Translate) -> None:
        self._connection = connection
        self._translate = translate
        self._stream: _Stream | None = None
        self._lost: OrderedDict[str, str] = OrderedDict()

    async def create(
        self,
        session_id: str,
        *,
        ttl: float | None,
        metadata: Mapping[str, str] | None,
        owner: str | None,
        call_site: str,
    ) -> None:
        """Create a session, or take the live one with that id, and hold it."""
        wanted = message(
            pb.Create,
            ttl_seconds=None if ttl is None else checked_ttl(ttl),
            metadata=metadata or {},
            owner=checked_owner(owner),
            call_site=printable(call_site),
        )
        await self._ask(message(pb.HoldRequest, session_id=session_id, create=wanted))

    async def hold(self, session_id: str) -> None:
        """Hold a live session. Raises `SessionNotFound`."""
        await self._ask(message(pb.HoldRequest, session_id=session_id, hold=pb.Hold()))

    async def release(self, session_id: str) -> bool:
        """Hold a session no more; say whether it was held."""
        return await self._let_go(message(pb.HoldRequest, session_id=session_id, release=pb.Release()))

    async def end(self, session_id: str) -> bool:
        """Delete a session if it is held; say whether it was. One that was lost is forgotten."""
        return await self._let_go(message(pb.HoldRequest, session_id=session_id, end=pb.End()))

    def check(self, session_id: str | None) -> None:
        """Raise `SessionNotFound` for a session that was lost, saying how."""
        if session_id is not None and (how := self._lost.get(session_id)):
            error = SessionNotFound(session_id)
            error.args = (f"session {session_id!r} was held, and {how}; create it again if it is to start anew",)
            raise error

    def excuse(self, session_id: str) -> None:
        """Let the session be used again if it was lost: it has been created anew."""
        self._lost.pop(session_id, None)

    def expect_end(self, session_id: str) -> None:
        """Do not take the session for lost when it ends: it is being deleted on purpose."""
        self._lost.pop(session_id, None)
        if self._stream is not None:
            self._stream.held.discard(session_id)

    async def close(self) -> None:
        """End what is held, and hear that it has ended."""
        if self._stream is not None:
            await self._stream.close()

    async def _ask(self, request: pb.HoldRequest) -> None:
        for tries_left in (1, 0):
            if self._stream is None or self._stream.over:
                self._stream = _Stream(self._connection, self._lose)
            try:
                await self._stream.ask(request)
                break
            except aio.AioRpcError as error:
                if error.details() != _OVERTAKEN or not tries_left:
                    raise self._translate(error) from None
        self._lost.pop(request.session_id, None)

    async def _let_go(self, request: pb.HoldRequest) -> bool:
        stream = self._stream
        self._lost.pop(request.session_id, None)
        if stream is None or request.session_id not in stream.held:
            return False
        try:
            return (await stream.ask(request)).held
        except (aio.AioRpcError, AuthorityUnavailable):
            # The stream broke, and has taken the session along.
            self._lost.pop(request.session_id, None)
            return False

    def _lose(self, session_id: str, how: str) -> None:
        self._lost[session_id] = how
        self._lost.move_to_end(session_id)
        while len(self._lost) > _MOST_LOST:
            self._lost.popitem(last=False)


class _Stream:
    """One call of `Hold`: requests in order, their answers, and news of sessions that ended."""

    def __init__(self, connection: Connection, lose: Callable[[str, str], None]) -> None:
        self._lose = lose
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[pb.HoldRequest, asyncio.Future[pb.Done]]] = {}
        self._requests: asyncio.Queue[pb.HoldRequest | None] = asyncio.Queue()
        self._closing = False
        self.held: set[str] = set()
        self.over = False
        # In a context of its own: it outlasts the request of whoever is the first to need it.
        own = contextvars.Context()
        self._call = own.run(connection.bidirectional, HOLD)
        loop = asyncio.get_running_loop()
        self._sending = loop.create_task(self._send(), name="lease requests", context=own)
        self._reading = loop.create_task(self._read(), name="lease responses", context=own)

    async def ask(self, request: pb.HoldRequest) -> pb.Done:
        """Send a request and return the answer. Raises what was refused, and `AioRpcError` if the stream breaks."""
        if self.over:
            raise AuthorityUnavailable("the connection that holds sessions has ended")
        answer: asyncio.Future[pb.Done] = asyncio.get_running_loop().create_future()
        request.number = next(self._numbers)
        for key, value in outgoing():
            if isinstance(value, str):
                request.trace_context[key] = value
        self._waiting[request.number] = request, answer
        self._requests.put_nowait(request)
        return await answer

    async def close(self) -> None:
        """End the stream, and wait until the authority has ended what it held, but not for long."""
        self._closing = True
        self._requests.put_nowait(None)
        try:
            await asyncio.wait([self._reading], timeout=_TIME_TO_CLOSE)
        finally:
            self._sending.cancel()
            self._call.cancel()
            self._reading.cancel()
        await asyncio.wait([self._reading, self._sending])

    async def _send(self) -> None:
        # What goes wrong with sending goes wrong with reading, which says so.
        with suppress(aio.AioRpcError, asyncio.InvalidStateError):
            while (request := await self._requests.get()) is not None:
                await self._call.write(request)
            await self._call.done_writing()

    async def _read(self) -> None:
        error: SnakepitError | aio.AioRpcError = AuthorityUnavailable("the authority ended the stream")
        why = "the authority ended it"
        try:
            while (response := await self._call.read()) is not aio.EOF:
                self._hear(response)
        except aio.AioRpcError as failure:
            error, why = failure, f"{failure.code().name}: {failure.details()}"
        finally:
            self._end(error, why)

    def _hear(self, response: pb.HoldResponse) -> None:
        session_id = response.session_id
        if response.WhichOneof("what") == "ended":
            if session_id in self.held:
                self.held.discard(session_id)
                self._lose(session_id, "was deleted by others, was evicted, or has expired")
            return
        request, answer = self._waiting.pop(response.number, (None, None))
        if request is None or answer is None:
            return
        if response.WhichOneof("what") == "refused":
            if not answer.done():
                answer.set_exception(from_wire(response.refused))
            return
        what = request.WhichOneof("what")
        if what in ("release", "end"):
            self.held.discard(session_id)
        elif answer.done() and session_id not in self.held:
            # Nobody waits for it any more, so nobody would let go of it either.
            undo = {"end": pb.End()} if what == "create" else {"release": pb.Release()}
            self._requests.put_nowait(pb.HoldRequest(number=next(self._numbers), session_id=session_id, **undo))
        else:
            self.held.add(session_id)
        if not answer.done():
            answer.set_result(response.done)

    def _end(self, error: Exception, why: str) -> None:
        self.over = True
        self._sending.cancel()
        for _, answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(error)
        self._waiting.clear()
        if not self.held or self._closing:
            return
        named = ", ".join(map(printable, sorted(self.held)[:_MOST_NAMED]))
        more = ", …" if len(self.held) > _MOST_NAMED else ""
        _log.warning(
            "the connection that held %d sessions (%s) broke: %s",
            len(self.held),
            printable(named + more, MAX_MESSAGE_CHARACTERS),
            printable(why, MAX_MESSAGE_CHARACTERS),
        )
        for session_id in self.held:
            self._lose(session_id, f"its connection broke ({why})")
        self.held.clear()
