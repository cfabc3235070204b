"""Serves leases: a client's stream holds sessions, and they end with it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from snakepit_otel.bridge.authority.byte_budget import Budget, Charge, Peer, peer_of
from snakepit_otel.bridge.authority.dispatcher import SESSIONS
from snakepit_otel.bridge.proto import snakepit_leases_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_leases_pb2_grpc import LeaseServiceServicer
from snakepit_otel.bridge.wire.errors import to_wire
from snakepit_otel.errors import BudgetExceeded, MessageTooLarge, SessionQuotaExceeded, SnakepitError, ValueRefused
from snakepit_otel.sessions import Creator, SessionStore
from snakepit_otel.sessions._session import MAX_ID_BYTES
from snakepit_otel.telemetry import incoming, within

_log = logging.getLogger("snakepit_otel.authority")
MOST_HELD = 1_000
"""The sessions that one stream may hold."""
_MOST_TEXT = 200
_STREAM_BYTES = 16 << 10
_HELD_BYTES = 1 << 10
"""Bytes that it takes to hold a session, besides the session."""
_BESIDES = 16 << 10
"""Bytes that a request has besides a session's metadata, whose limit is that of a session: half of it is baggage."""

Context = aio.ServicerContext[Any, Any]


class LeaseService(LeaseServiceServicer):
    """Holds sessions for clients, each for as long as its stream lasts.

    With `trusted` callers, what a request does is a part of the trace that it came from. A stream holds at
    most `most` sessions. What is kept for a stream is charged to `budget`, and the sessions that it creates to
    `lasting`.
    """

    def __init__(
        self,
        sessions: SessionStore,
        *,
        trusted: bool = False,
        most: int = MOST_HELD,
        budget: Budget | None = None,
        lasting: Budget | None = None,
    ) -> None:
        self._sessions = sessions
        self._trusted = trusted
        self._most = most
        self._budget = budget or Budget()
        self._lasting = lasting or self._budget
        self._streams: set[_Stream] = set()
        self._closed = False

    async def Hold(self, request_iterator: Any, context: Context) -> None:
        """Hold what the client names, until the stream ends."""
        peer = peer_of(context)
        try:
            kept = self._budget.charge(peer, _STREAM_BYTES, "leases")
        except BudgetExceeded as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{error.reason}: {error}")
        with kept:
            await self._hold(_Stream(self, context, peer, kept))

    async def _hold(self, stream: _Stream) -> None:
        if self._closed:
            # An answer that overtakes the client's own headers is an internal error to gRPC there.
            with suppress(DecodeError):
                await stream.context.read()
            stream.let_go()
        self._streams.add(stream)
        try:
            await stream.serve()
        finally:
            self._streams.discard(stream)
            stream.gone = True

    def close(self) -> None:
        """Let every client go, since the server stops. Sessions stay, as they do at every stop of an authority."""
        self._closed = True
        for stream in self._streams:
            stream.let_go()


class _Stream:
    """One client, and the sessions that it holds."""

    def __init__(self, service: LeaseService, context: Any, peer: Peer, kept: Charge) -> None:
        self._sessions = service._sessions
        self.context = context
        self._peer = peer
        self._lasting = service._lasting
        self._kept = kept
        self._trusted = service._trusted
        self._most = service._most
        self._lease = self._sessions.lease(self._tell_of_end)
        self._responses: deque[pb.HoldResponse] = deque()
        self._news = asyncio.Event()
        self._sent = asyncio.Event()
        self._over = False
        self._let_go = False
        self.gone = False
        """Whether nobody serves the stream any more."""

    async def serve(self) -> None:
        """Serve the client until it goes, and then end what it holds."""
        reading = asyncio.ensure_future(self._read())
        # Also where nobody asks any more: a client that goes ends the reading as well.
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await self.context.send_initial_metadata(())
            await self._send()
            if not self._let_go:
                # The client hears of the end of the stream once its sessions are gone.
                await reading
                await self._lease.end()
        finally:
            reading.cancel()
            # Goes on by itself, however this was stopped, and does what is left to do.
            self._lease.end_soon()
        if self._let_go:
            await self.context.abort(grpc.StatusCode.UNAVAILABLE, "the authority stops; sessions stay for their TTL")

    def let_go(self) -> None:
        """End the stream, and leave the sessions to their TTL."""
        self._let_go = True
        self._lease.release_all()
        self._news.set()

    async def _send(self) -> None:
        while not self._let_go:
            # Before looking: what comes during a write, an end above all, would else be waited for.
            self._news.clear()
            while self._responses:
                await self.context.write(self._responses.popleft())
            self._sent.set()
            if self._over:
                return
            await self._news.wait()

    async def _read(self) -> None:
        try:
            while (request := await self.context.read()) is not aio.EOF:
                # In a task of its own, which nothing cancels half-way: what was created has to be known.
                step = self._begin(request)
                # Or its last request would be held for as long as a stream is silent.
                del request
                await asyncio.shield(step)
                del step
                self._sent.clear()
                self._news.set()
                # Who does not listen is not served, so that what there is to say cannot pile up.
                await self._sent.wait()
        finally:
            self._over = True
            self._news.set()

    def _begin(self, request: pb.HoldRequest) -> asyncio.Future[None]:
        if not self._trusted or self._size_of(request) > self._largest:
            return asyncio.ensure_future(self._answer(request))
        with within(incoming(request.trace_context.items())):
            return asyncio.ensure_future(self._answer(request))

    async def _answer(self, request: pb.HoldRequest) -> None:
        try:
            held = await self._obey(request)
        except SnakepitError as error:
            self._refuse(request, error)
            return
        except Exception as error:  # noqa: BLE001 - whatever a backend raises is for the caller
            _log.exception("a lease could not do what it was asked for")
            self._refuse(request, error)
            return
        done = pb.Done(held=held)
        self._responses.append(pb.HoldResponse(number=request.number, session_id=request.session_id, done=done))
        if request.WhichOneof("what") in ("create", "hold") and request.session_id not in self._lease:
            # It ended before it was known to be held, and is to be told of afterwards.
            self._tell_of_end(request.session_id)

    @property
    def _largest(self) -> int:
        return self._sessions.settings.max_session_bytes + _BESIDES

    @staticmethod
    def _size_of(request: pb.HoldRequest) -> int:
        size: int = request.ByteSize()
        return size

    async def _obey(self, request: pb.HoldRequest) -> bool:
        if self._size_of(request) > self._largest:
            raise MessageTooLarge(
                f"a request for a lease has {self._size_of(request)} bytes; at most {self._largest} are allowed"
            )
        session_id, what = request.session_id, request.WhichOneof("what")
        if what in ("create", "hold") and session_id not in self._lease and len(self._lease) >= self._most:
            raise _full(self._most)
        if what in ("create", "hold"):
            self._reserve(len(self._lease) + 1)
        try:
            return await self._do(what, session_id, request)
        finally:
            self._reserve(len(self._lease))

    def _reserve(self, held: int) -> None:
        # A step that goes on when its stream is gone reserves nothing any more.
        if not self.gone:
            self._kept.resize(_STREAM_BYTES + _HELD_BYTES * held)

    async def _do(self, what: str | None, session_id: str, request: pb.HoldRequest) -> bool:
        match what:
            case "create":
                await self._create(session_id, request.create)
                return True
            case "hold":
                await self._lease.hold(session_id)
                return True
            case "release":
                return self._lease.release(session_id)
            case "end":
                return await self._lease.delete(session_id)
        raise ValueRefused("a request for a lease says what to do: create, hold, release or end")

    async def _create(self, session_id: str, create: pb.Create) -> None:
        owner = create.owner if create.HasField("owner") else None
        site = create.call_site[:_MOST_TEXT] or f"Hold from {self.context.peer().partition(':')[0]} client"
        await self._lease.create(
            session_id,
            ttl=create.ttl_seconds if create.HasField("ttl_seconds") else None,
            metadata=dict(create.metadata),
            owner=owner,
            creator=Creator(site, owner=owner),
            charge=Charge(self._lasting, self._peer, 0, SESSIONS),
        )

    def _refuse(self, request: pb.HoldRequest, error: Exception) -> None:
        # Cut, since it may be no id at all.
        session_id = request.session_id[:MAX_ID_BYTES]
        described = to_wire(error, {"session_id": session_id})
        self._responses.append(pb.HoldResponse(number=request.number, session_id=session_id, refused=described))

    def _tell_of_end(self, session_id: str) -> None:
        self._responses.append(pb.HoldResponse(session_id=session_id, ended=pb.Ended()))
        self._news.set()


def _full(most: int) -> SessionQuotaExceeded:
    error = SessionQuotaExceeded(most)
    error.args = (f"RESOURCE_EXHAUSTED: a connection holds at most {most} sessions; release some, or open another",)
    return error
