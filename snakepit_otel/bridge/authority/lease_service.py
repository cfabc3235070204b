"""Lease service: a client's stream holds sessions, which end with it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import Any

from google.protobuf.message import DecodeError

from snakepit_otel.bridge.authority.byte_budget import Budget, Charge
from snakepit_otel.bridge.authority.dispatcher import SESSIONS
from snakepit_otel.bridge.proto import snakepit_leases_pb2 as pb
from snakepit_otel.bridge.wire.errors import to_wire
from snakepit_otel.bridge.wire.peers import Peer, peer_of
from snakepit_otel.common.guard import guard
from snakepit_otel.errors import BudgetExceeded, MessageTooLarge, SessionQuotaExceeded, SnakepitError, ValueRefused
from snakepit_otel.rpc.status import StatusCode
from snakepit_otel.rpc.transports.base import EOF
from snakepit_otel.rpc.transports.base import CallContext as Context
from snakepit_otel.sessions import Creator, SessionStore
from snakepit_otel.sessions._session import MAX_ID_BYTES
from snakepit_otel.telemetry import incoming, within

_log = logging.getLogger("snakepit_otel.authority")
MAX_HELD = 1_000  # sessions of one stream
_MAX_CALL_SITE = 200  # characters
_STREAM_BYTES = 16 << 10
_HELD_BYTES = 1 << 10  # to hold a session, besides the session
_REQUEST_OVERHEAD = 16 << 10  # of a request besides a session's metadata, half of it for baggage


class LeaseService:
    """Holds sessions for clients, each for as long as its stream lasts.

    The requests of `trusted` callers continue their traces. A stream holds at most `max_held` sessions. The stream is
    charged to `budget`, and the sessions that it creates to `lasting`.
    """

    def __init__(
        self,
        sessions: SessionStore,
        *,
        trusted: bool = False,
        max_held: int = MAX_HELD,
        budget: Budget | None = None,
        lasting: Budget | None = None,
    ) -> None:
        self.sessions = sessions
        self.trusted = trusted
        self.max_held = max_held
        self.max_request_bytes = sessions.settings.max_session_bytes + _REQUEST_OVERHEAD
        self._budget = budget or Budget()
        self.lasting = lasting or self._budget
        self._streams: set[_Stream] = set()
        self._closed = False

    async def Hold(self, request_iterator: Any, context: Context) -> None:
        """Hold the sessions that the client names, until the stream ends."""
        peer = peer_of(context)
        try:
            charge = self._budget.charge(peer, _STREAM_BYTES, "leases")
        except BudgetExceeded as error:
            await context.abort(StatusCode.RESOURCE_EXHAUSTED, f"{error.reason}: {error}")
        with charge:
            stream = _Stream(self, context, peer, charge)
            if self._closed:
                # A reply that overtakes the client's own headers is an internal error in the client's gRPC.
                with suppress(DecodeError):
                    await context.read()
                stream.release()
            self._streams.add(stream)
            try:
                await stream.serve()
            finally:
                self._streams.discard(stream)
                stream.charge = None

    def close(self) -> None:
        """End all streams, since the server stops. Sessions stay, as they do at every stop of an authority."""
        self._closed = True
        for stream in self._streams:
            stream.release()


class _Stream:
    """One client, and the sessions that it holds; `charge` is None once the stream has ended."""

    def __init__(self, service: LeaseService, context: Any, peer: Peer, charge: Charge) -> None:
        self._service = service
        self._context = context
        self._peer = peer
        self.charge: Charge | None = charge
        self._lease = service.sessions.lease(self._on_session_lost)
        self._responses: deque[pb.HoldResponse] = deque()
        self._has_responses = asyncio.Event()
        self._sent = asyncio.Event()
        self._is_read = False
        self._released = False

    async def serve(self) -> None:
        reading = asyncio.ensure_future(self._read())
        # The end of a client ends the reading with an error that nobody awaits.
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await self._context.send_initial_metadata(())
            await self._send()
            if not self._released:
                # The stream ends after its sessions, so that the client can wait for their end.
                await reading
                await self._lease.end()
        finally:
            reading.cancel()
            self._lease.end_soon()  # goes on by itself, also where this is cancelled
        if self._released:
            await self._context.abort(StatusCode.UNAVAILABLE, "the authority stops; sessions stay for their TTL")

    def release(self) -> None:
        """End the stream, and leave the sessions to their TTL."""
        self._released = True
        self._lease.release_all()
        self._has_responses.set()

    async def _send(self) -> None:
        while not self._released:
            # Cleared first: a response that comes during a write would else wait for the next one.
            self._has_responses.clear()
            while self._responses:
                await self._context.write(self._responses.popleft())
            self._sent.set()
            if self._is_read:
                return
            await self._has_responses.wait()

    async def _read(self) -> None:
        try:
            while (request := await self._context.read()) is not EOF:
                # In a task of its own, which nothing cancels: a session that was created must be held.
                step = self._begin(request)
                del request  # or a silent stream would keep its last request
                await asyncio.shield(step)
                del step
                self._sent.clear()
                self._has_responses.set()
                # A client that reads no responses has no further requests served, so that they cannot pile up.
                await self._sent.wait()
        finally:
            self._is_read = True
            self._has_responses.set()

    def _begin(self, request: pb.HoldRequest) -> asyncio.Future[None]:
        if not self._service.trusted or request.ByteSize() > self._service.max_request_bytes:
            return asyncio.ensure_future(self._respond(request))
        with within(incoming(request.trace_context.items())):
            return asyncio.ensure_future(self._respond(request))

    async def _respond(self, request: pb.HoldRequest) -> None:
        held = False
        error: Exception | None = None
        with guard("a request of a lease", _log) as guarded:
            try:
                held = await self._apply(request)
            except SnakepitError as refusal:
                error = refusal
        if error := error or guarded.error:
            session_id = request.session_id[:MAX_ID_BYTES]  # of a request that may be malformed
            refused = to_wire(error, {"session_id": session_id})
            self._responses.append(pb.HoldResponse(number=request.number, session_id=session_id, refused=refused))
            return
        done = pb.Done(held=held)
        self._responses.append(pb.HoldResponse(number=request.number, session_id=request.session_id, done=done))
        if request.WhichOneof("what") in ("create", "hold") and request.session_id not in self._lease:
            # It ended before the client could know that it is held.
            self._on_session_lost(request.session_id)

    async def _apply(self, request: pb.HoldRequest) -> bool:
        size, service = request.ByteSize(), self._service
        if size > service.max_request_bytes:
            raise MessageTooLarge(
                f"a request for a lease has {size} bytes; at most {service.max_request_bytes} are allowed"
            )
        session_id, operation = request.session_id, request.WhichOneof("what")
        if operation in ("create", "hold"):
            if session_id not in self._lease and len(self._lease) >= service.max_held:
                raise _too_many(service.max_held)
            self._resize_charge(len(self._lease) + 1)
        try:
            match operation:
                case "create":
                    await self._create(session_id, request.create)
                case "hold":
                    await self._lease.hold(session_id)
                case "release":
                    return self._lease.release(session_id)
                case "end":
                    return await self._lease.delete(session_id)
                case _:
                    raise ValueRefused("a request for a lease needs one of: create, hold, release or end")
        finally:
            self._resize_charge(len(self._lease))
        return True

    def _resize_charge(self, held: int) -> None:
        if self.charge is not None:
            self.charge.resize(_STREAM_BYTES + _HELD_BYTES * held)

    async def _create(self, session_id: str, create: pb.Create) -> None:
        owner = create.owner if create.HasField("owner") else None
        site = create.call_site[:_MAX_CALL_SITE] or f"Hold from {self._context.peer().partition(':')[0]} client"
        await self._lease.create(
            session_id,
            ttl=create.ttl_seconds if create.HasField("ttl_seconds") else None,
            metadata=dict(create.metadata),
            owner=owner,
            creator=Creator(site, owner=owner),
            charge=Charge(self._service.lasting, self._peer, 0, SESSIONS),
        )

    def _on_session_lost(self, session_id: str) -> None:
        self._responses.append(pb.HoldResponse(session_id=session_id, ended=pb.Ended()))
        self._has_responses.set()


def _too_many(limit: int) -> SessionQuotaExceeded:
    error = SessionQuotaExceeded(limit)
    error.args = (f"RESOURCE_EXHAUSTED: a connection holds at most {limit} sessions; release some, or open another",)
    return error
