"""Connection of one caller: admits its calls, within limits, and passes their frames on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from snakepit_otel.common.byte_charge import ByteCharge
from snakepit_otel.errors import BudgetExceeded
from snakepit_otel.rpc.addresses import MAX_METADATA_BYTES
from snakepit_otel.rpc.local_server_call import refuse_call
from snakepit_otel.rpc.status import StatusCode
from snakepit_otel.rpc.transports.local import frames
from snakepit_otel.rpc.transports.local.frames import MalformedFrame
from snakepit_otel.rpc.transports.local.link import Link
from snakepit_otel.rpc.transports.local.served_call import CALL_BYTES, COPIES_HELD, Call, ServedMethod

MAX_CALLS = 10_000  # at a time, of one connection
_TOO_MANY = f"{MAX_CALLS} calls at a time on one connection are the most; wait for some, or open another"
_CANCELLED = frames.failure_body(StatusCode.CANCELLED, "the caller no longer waits")
_STOPPING = "the server is stopping; the call did not run"


class ServedLink:
    """Connection of one caller; the receiver of its frames. `new_charge` returns the charge of one call."""

    def __init__(
        self,
        link: Link,
        loop: asyncio.AbstractEventLoop,
        methods: Mapping[bytes, ServedMethod],
        *,
        max_message_bytes: int,
        trusted: bool,
        new_charge: Callable[[], ByteCharge] | None,
        on_end: Callable[[ServedLink], None],
    ) -> None:
        self.link = link
        self.loop = loop
        self.trusted = trusted
        self._methods = methods
        self._max_message_bytes = max_message_bytes
        self._new_charge = new_charge
        self._on_end = on_end
        self.calls: dict[int, Call] = {}
        self._arriving: dict[int, ByteCharge] = {}
        self.window: int | None = None  # of the peer's streams; None for one without extensions
        self.is_leaving = False
        self._last = 0  # of the streams whose calls were taken

    @property
    def in_flight(self) -> int:
        """See `Receiver`."""
        return len(self.calls)

    def leave(self) -> None:
        """Take no further calls, and have the peer make none."""
        self.is_leaving = True
        if self.window is not None:
            self.link.send(frames.LEAVING, 0, 0, frames.count_body(self._last))

    def on_frame(self, kind: int, stream: int, flags: int, body: bytes) -> None:
        """See `Receiver`."""
        if kind == frames.REQUEST:
            self._begin(stream, flags, body)
        elif kind == frames.HELLO:
            if self.window is not None:
                raise MalformedFrame("a second hello")
            self.window = frames.window_in_hello(body)
            self.link.is_extended = True
            self.link.send(frames.HELLO, 0, 0, frames.hello_body())
            if self.is_leaving:
                self.leave()
        elif kind < frames.HELLO and kind != frames.DATA:
            raise MalformedFrame(f"a frame of type {kind} to a server")
        else:
            call = self.calls.get(stream)
            if call is None:
                # It has ended, and the peer did not know yet; or its request has not come whole.
                self.release(stream)
                if kind == frames.CANCEL:
                    is_answered = self.link.has_parts(stream)
                    self.link.drop_stream(stream)
                    if is_answered:
                        # The peer has parts of the answer, or will; it is to forget them.
                        self.answer(stream, _CANCELLED)
            elif kind == frames.DATA:
                call.on_data(flags, body)
            elif kind == frames.CANCEL:
                call.end_by_caller(flags)
            elif kind == frames.WINDOW:
                call.on_window(frames.count_in(body))

    def on_part(self, kind: int, stream: int, size: int) -> bool:
        """See `Receiver`."""
        if kind == frames.REQUEST:
            if stream in self.calls:
                raise MalformedFrame("a second request on one stream")
        elif kind != frames.DATA:
            raise MalformedFrame(f"a part of type {kind} to a server")
        elif stream not in self.calls:
            return False
        if size > self._max_message_bytes + frames.PART_BYTES:
            why = f"a message is larger than max (over {size} vs. {self._max_message_bytes})"
            self._refuse_part(kind, stream, why)
            return False
        if self._new_charge is not None:
            charge = self._arriving.get(stream)
            if charge is None:
                charge = self._arriving[stream] = self._new_charge()
            try:
                charge.resize(size)
            except BudgetExceeded as error:
                self._refuse_part(kind, stream, f"{error.reason}: {error}")
                return False
        return True

    def on_lost(self, _why: str) -> None:
        """See `Receiver`."""
        for charge in self._arriving.values():
            charge.resize(0)
        self._arriving.clear()
        for call in list(self.calls.values()):
            call.cancel()
        self._on_end(self)

    def end(self, stream: int) -> None:
        """Forget a call that has ended."""
        self.calls.pop(stream, None)
        self.release(stream)
        if self.is_leaving and not self.calls:
            self._on_end(self)

    def answer(self, stream: int, body: bytes, flags: int = 0) -> None:
        """End a call of the peer's by a response."""
        self.link.send(frames.RESPONSE, stream, flags, body)

    def _refuse_part(self, kind: int, stream: int, why: str) -> None:
        self.release(stream)
        call = self.calls.get(stream)
        if call is not None:
            call.fail(StatusCode.RESOURCE_EXHAUSTED, why)
        elif kind == frames.REQUEST:
            self._refuse(stream, StatusCode.RESOURCE_EXHAUSTED, why)

    def _refuse(self, stream: int, code: StatusCode, why: str) -> None:
        self.answer(stream, frames.failure_body(code, why), frames.NOT_RUN if self.window is not None else 0)

    def release(self, stream: int) -> None:
        """Give back what the parts of a body were charged with."""
        if self._arriving:
            charge = self._arriving.pop(stream, None)
            if charge is not None:
                charge.resize(0)

    def _why_refused(self, method: ServedMethod | None, payload: bytes) -> tuple[StatusCode, str]:
        if self.is_leaving:
            return StatusCode.UNAVAILABLE, _STOPPING
        if method is None:
            return StatusCode.UNIMPLEMENTED, "Method not found!"
        if len(payload) > self._max_message_bytes:
            why = f"a message is larger than max ({len(payload)} vs. {self._max_message_bytes})"
            return StatusCode.RESOURCE_EXHAUSTED, why
        return StatusCode.RESOURCE_EXHAUSTED, _TOO_MANY

    def _begin(self, stream: int, flags: int, body: bytes) -> None:
        if not stream & 1 or stream in self.calls:
            raise MalformedFrame(f"a request on stream {stream}")
        if len(body) > frames.PART_BYTES and frames.has_long_metadata(body, MAX_METADATA_BYTES):
            self.release(stream)
            why = f"metadata is larger than max ({MAX_METADATA_BYTES} bytes)"
            self._refuse(stream, StatusCode.RESOURCE_EXHAUSTED, why)
            return
        names = frames.names_in(body)
        method = self._methods.get(names) if names else None
        if method is not None:
            _, _, payload, timeout, metadata = frames.request_in(body, len(names))
        else:
            service, name, payload, timeout, metadata = frames.request_in(body)
            method = self._methods.get(frames.names_of(f"{service}/{name}"))
        self.release(stream)
        if method is None and not self.is_leaving:
            refuse_call(metadata, trusted=self.trusted)
        if method is None or self.is_leaving or len(self.calls) >= MAX_CALLS or len(payload) > self._max_message_bytes:
            self._refuse(stream, *self._why_refused(method, payload))
            return
        charge: ByteCharge | None = None
        if self._new_charge is not None:
            charge = self._new_charge()
            try:
                charge.resize(CALL_BYTES + COPIES_HELD * len(payload))
            except BudgetExceeded as error:
                self._refuse(stream, StatusCode.RESOURCE_EXHAUSTED, f"{error.reason}: {error}")
                return
        self._last = max(self._last, stream)
        call = self.calls[stream] = Call(self, stream, method, metadata, timeout, charge)
        if method.reads:
            if not flags & frames.REMOTE_OPEN:
                call.on_data(frames.REMOTE_CLOSED | frames.NO_DATA, b"")
            run = call.serve(None)
        else:
            run = call.serve(payload)
        call.start(run)
