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

from snakepit_otel.bridge import rpc
from snakepit_otel.bridge.failures import to_wire
from snakepit_otel.bridge.proto import snakepit_leases_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_leases_pb2_grpc import LeaseServiceServicer
from snakepit_otel.errors import MessageTooLarge, SessionQuotaExceeded, SnakepitError, ValueRefused
from snakepit_otel.sessions import Creator, SessionStore
from snakepit_otel.telemetry import incoming, within

_log = logging.getLogger("snakepit_otel.authority")
MOST_HELD = 1_000
"""The sessions that one stream may hold."""
_MOST_TEXT = 200
_BESIDES = 16 << 10
"""Bytes that a request has besides a session's metadata, whose limit is that of a session: half of it is baggage."""

Context = aio.ServicerContext[Any, Any]


class LeaseService(LeaseServiceServicer):
    """Holds sessions for clients, each for as long as its stream lasts.

    With `trusted` callers, what a request does is a part of the trace that it came from. A stream holds at
    most `most` sessions.
    """

    def __init__(self, sessions: SessionStore, *, trusted: bool = False, most: int = MOST_HELD) -> None:
        self._sessions = sessions
        self._trusted = trusted
        self._most = most
        self._streams: set[_Stream] = set()
        self._closed = False

    async def Hold(self, request_iterator: Any, context: Context) -> None:
        """Hold what the client names, until the stream ends."""
        stream = _Stream(self._sessions, context, trusted=self._trusted, most=self._most)
        if self._closed:
            # An answer that overtakes the client's own headers is an internal error to gRPC there.
            with suppress(DecodeError):
                await context.read()
            stream.let_go()
        self._streams.add(stream)
        try:
            await stream.serve()
        finally:
            self._streams.discard(stream)

    def close(self) -> None:
        """Let every client go, since the server stops. Sessions stay, as they do at every stop of an authority."""
        self._closed = True
        for stream in self._streams:
            stream.let_go()


class _Stream:
    """One client, and the sessions that it holds."""

    def __init__(self, sessions: SessionStore, context: Any, *, trusted: bool, most: int) -> None:
        self._sessions = sessions
        self._context = context
        self._trusted = trusted
        self._most = most
        self._lease = sessions.lease(self._tell_of_end)
        self._responses: deque[pb.HoldResponse] = deque()
        self._news = asyncio.Event()
        self._sent = asyncio.Event()
        self._over = False
        self._let_go = False

    async def serve(self) -> None:
        """Serve the client until it goes, and then end what it holds."""
        reading = asyncio.ensure_future(self._read())
        # Also where nobody asks any more: a client that goes ends the reading as well.
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await self._context.send_initial_metadata(())
            await self._send()
            if not self._let_go:
                # The client hears of the end of the stream once its sessions are gone.
                await reading
                await self._lease.end()
        except DecodeError as error:
            await rpc.refuse(error, self._context)
        finally:
            reading.cancel()
            # Goes on by itself, however this was stopped, and does what is left to do.
            self._lease.end_soon()
        if self._let_go:
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, "the authority stops; sessions stay for their TTL")

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
                await self._context.write(self._responses.popleft())
            self._sent.set()
            if self._over:
                return
            await self._news.wait()

    async def _read(self) -> None:
        try:
            while (request := await self._context.read()) is not aio.EOF:
                # In a task of its own, which nothing cancels half-way: what was created has to be known.
                step = self._begin(request)
                await asyncio.shield(step)
                self._sent.clear()
                self._news.set()
                # Who does not listen is not served, so that what there is to say cannot pile up.
                await self._sent.wait()
        finally:
            self._over = True
            self._news.set()

    def _begin(self, request: pb.HoldRequest) -> asyncio.Future[None]:
        if not self._trusted:
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

    async def _obey(self, request: pb.HoldRequest) -> bool:
        most = self._sessions.settings.max_session_bytes + _BESIDES
        if request.ByteSize() > most:
            raise MessageTooLarge(f"a request for a lease has {request.ByteSize()} bytes; at most {most} are allowed")
        session_id, what = request.session_id, request.WhichOneof("what")
        if what in ("create", "hold") and session_id not in self._lease and len(self._lease) >= self._most:
            raise _full(self._most)
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
        site = create.call_site[:_MOST_TEXT] or f"Hold from {self._context.peer().partition(':')[0]} client"
        await self._lease.create(
            session_id,
            ttl=create.ttl_seconds if create.HasField("ttl_seconds") else None,
            metadata=dict(create.metadata),
            owner=owner,
            creator=Creator(site, owner=owner),
        )

    def _refuse(self, request: pb.HoldRequest, error: Exception) -> None:
        described = to_wire(error, {"session_id": request.session_id})
        self._responses.append(pb.HoldResponse(number=request.number, session_id=request.session_id, refused=described))

    def _tell_of_end(self, session_id: str) -> None:
        self._responses.append(pb.HoldResponse(session_id=session_id, ended=pb.Ended()))
        self._news.set()


def _full(most: int) -> SessionQuotaExceeded:
    error = SessionQuotaExceeded(most)
    error.args = (f"RESOURCE_EXHAUSTED: a connection holds at most {most} sessions; release some, or open another",)
    return error
