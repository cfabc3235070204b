"""Lease of a client: the sessions that it holds while it is connected."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress

from snakepit_otel.bridge.proto import snakepit_leases_pb2 as pb
from snakepit_otel.bridge.wire.errors import from_wire
from snakepit_otel.bridge.wire.messages import message
from snakepit_otel.bridge.wire.methods import HOLD
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.errors import AuthorityUnavailable, SessionNotFound, SnakepitError
from snakepit_otel.rpc import Connection, RpcError
from snakepit_otel.rpc.transports.base import EOF
from snakepit_otel.sessions._session import checked_owner, checked_ttl
from snakepit_otel.telemetry import outgoing

_log = logging.getLogger("snakepit_otel.client")
_MAX_LOST = 10_000
_MAX_NAMED = 5
_CLOSE_TIMEOUT_S = 2.0
# gRPC's asyncio fails with this where the peer refuses a call before its headers count as sent.
_REFUSED_EARLY = "Internal error from Core"

Translate = Callable[[RpcError], SnakepitError]


class LeaseHolder:
    """Holds sessions over one stream of a connection, which begins with the first request, and again after it broke.

    A session that ends while it is held is lost; `check` refuses its next uses, which would create it again, empty and
    not held. Methods raise the authority's errors, and what `translate` returns for the error of a stream.
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
        create = message(
            pb.Create,
            ttl_seconds=None if ttl is None else checked_ttl(ttl),
            metadata=metadata or {},
            owner=checked_owner(owner),
            call_site=printable(call_site),
        )
        await self._request(message(pb.HoldRequest, session_id=session_id, create=create))

    async def hold(self, session_id: str) -> None:
        """Hold a live session. Raises `SessionNotFound`."""
        await self._request(message(pb.HoldRequest, session_id=session_id, hold=pb.Hold()))

    async def release(self, session_id: str) -> bool:
        """Leave a session to its TTL, and return whether it was held."""
        return await self._request_end(message(pb.HoldRequest, session_id=session_id, release=pb.Release()))

    async def end(self, session_id: str) -> bool:
        """Delete a session if it is held, and return whether it was; a lost one counts as lost no longer."""
        return await self._request_end(message(pb.HoldRequest, session_id=session_id, end=pb.End()))

    def check(self, session_id: str | None) -> None:
        """Raise `SessionNotFound` for a session that was lost, with the reason."""
        if session_id is not None and (reason := self._lost.get(session_id)):
            error = SessionNotFound(session_id)
            error.args = (f"session {session_id!r} was held, and {reason}; create it again to start with an empty one",)
            raise error

    def forget_loss(self, session_id: str) -> None:
        """Allow uses of the session again: it has been created again."""
        self._lost.pop(session_id, None)

    def expect_end(self, session_id: str) -> None:
        """Do not count the session as lost at its end: it is being deleted by this client."""
        self._lost.pop(session_id, None)
        if self._stream is not None:
            self._stream.held.discard(session_id)

    async def close(self) -> None:
        """Delete the held sessions, and wait for that at most two seconds."""
        if self._stream is not None:
            await self._stream.close()

    async def _request(self, request: pb.HoldRequest) -> None:
        for tries_left in (1, 0):
            if self._stream is None or self._stream.is_over:
                self._stream = _Stream(self._connection, self._on_lost)
            try:
                await self._stream.request(request)
                break
            except RpcError as error:
                if error.details != _REFUSED_EARLY or not tries_left:
                    raise self._translate(error) from None
        self._lost.pop(request.session_id, None)

    async def _request_end(self, request: pb.HoldRequest) -> bool:
        stream = self._stream
        self._lost.pop(request.session_id, None)
        if stream is None or request.session_id not in stream.held:
            return False
        try:
            return (await stream.request(request)).held
        except (RpcError, AuthorityUnavailable):
            # The stream broke, and the authority deletes the session.
            self._lost.pop(request.session_id, None)
            return False

    def _on_lost(self, session_id: str, reason: str) -> None:
        self._lost[session_id] = reason
        self._lost.move_to_end(session_id)
        while len(self._lost) > _MAX_LOST:
            self._lost.popitem(last=False)


class _Stream:
    def __init__(self, connection: Connection, on_lost: Callable[[str, str], None]) -> None:
        self._on_lost = on_lost
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[pb.HoldRequest, asyncio.Future[pb.Done]]] = {}
        self._requests: asyncio.Queue[pb.HoldRequest | None] = asyncio.Queue()
        self._closing = False
        self.held: set[str] = set()
        self.is_over = False
        # In a context of its own: it outlasts the request that begins it.
        own = contextvars.Context()
        self._call = own.run(connection.bidirectional, HOLD)
        loop = asyncio.get_running_loop()
        self._sending = loop.create_task(self._send(), name="lease requests", context=own)
        self._reading = loop.create_task(self._read(), name="lease responses", context=own)

    async def request(self, request: pb.HoldRequest) -> pb.Done:
        """Send a request and return the response. Raises its error, and `AioRpcError` if the stream breaks."""
        if self.is_over:
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
        """End the stream, and wait until the authority has deleted its sessions, for at most two seconds."""
        self._closing = True
        self._requests.put_nowait(None)
        try:
            await asyncio.wait([self._reading], timeout=_CLOSE_TIMEOUT_S)
        finally:
            self._sending.cancel()
            self._call.cancel()
            self._reading.cancel()
        await asyncio.wait([self._reading, self._sending])

    async def _send(self) -> None:
        # A failed stream is reported by the reading task.
        with suppress(RpcError):
            while (request := await self._requests.get()) is not None:
                await self._call.write(request)
            await self._call.done_writing()

    async def _read(self) -> None:
        error: SnakepitError | RpcError = AuthorityUnavailable("the authority ended the stream")
        reason = "the authority ended it"
        try:
            while (response := await self._call.read()) is not EOF:
                self._on_response(response)
        except RpcError as failure:
            error, reason = failure, f"{failure.code.name}: {failure.details}"
        finally:
            self._on_end(error, reason)

    def _on_response(self, response: pb.HoldResponse) -> None:
        session_id = response.session_id
        if response.WhichOneof("what") == "ended":
            if session_id in self.held:
                self.held.discard(session_id)
                self._on_lost(session_id, "was deleted by others, was evicted, or has expired")
            return
        request, answer = self._waiting.pop(response.number, (None, None))
        if request is None or answer is None:
            return
        if response.WhichOneof("what") == "refused":
            if not answer.done():
                answer.set_exception(from_wire(response.refused))
            return
        operation = request.WhichOneof("what")
        if operation in ("release", "end"):
            self.held.discard(session_id)
        elif answer.done() and session_id not in self.held:
            # The caller was cancelled, and would never release it.
            undo = {"end": pb.End()} if operation == "create" else {"release": pb.Release()}
            self._requests.put_nowait(pb.HoldRequest(number=next(self._numbers), session_id=session_id, **undo))
        else:
            self.held.add(session_id)
        if not answer.done():
            answer.set_result(response.done)

    def _on_end(self, error: Exception, reason: str) -> None:
        self.is_over = True
        self._sending.cancel()
        for _, answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(error)
        self._waiting.clear()
        if not self.held or self._closing:
            return
        named = ", ".join(map(printable, sorted(self.held)[:_MAX_NAMED]))
        more = ", …" if len(self.held) > _MAX_NAMED else ""
        _log.warning(
            "the connection that held %d sessions (%s) broke: %s",
            len(self.held),
            printable(named + more, MAX_MESSAGE_CHARACTERS),
            printable(reason, MAX_MESSAGE_CHARACTERS),
        )
        for session_id in self.held:
            self._on_lost(session_id, f"its connection broke ({reason})")
        self.held.clear()
