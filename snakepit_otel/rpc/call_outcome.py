"""What telemetry says of a call: its attributes and its true status, by the RPC conventions."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from time import perf_counter_ns
from types import TracebackType
from typing import Any

import grpc
from grpc import aio
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from snakepit_otel.telemetry import AttributeSet, Observation, interned, names
from snakepit_otel.telemetry import _guard as faults
from snakepit_otel.telemetry._exception_text import message_of
from snakepit_otel.telemetry._labels import OTHER

OK, CANCELLED, UNKNOWN = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN
_DEADLINE = grpc.StatusCode.DEADLINE_EXCEEDED
_SERVER_FAULTS = frozenset(
    {
        UNKNOWN,
        _DEADLINE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""Codes that are the server's own fault; of the others, the caller is to be told, and nobody else."""
_OPEN_ENDED = frozenset({"snakepit.bridge.BridgeService/StreamTelemetry"})
"""Streams that go on until their reader leaves. Elixir reads the events of its workers under a deadline of a few
seconds, so the end of that time is how such a call ends, and nobody's fault."""
_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_MOST_TEXT = 500
_MOST_METHODS = 1_000
MOST_NAME = 256
"""Characters of a method's full name."""


class Method:
    """A method by its full name, with its sets of attributes: before the status is known, and by status."""

    __slots__ = ("by_status", "labels", "name", "ok", "server_faults")

    def __init__(self, name: str) -> None:
        self.name = name
        known = {names.RPC_SYSTEM_NAME: "grpc", names.RPC_METHOD: name}
        self.labels = interned(known)
        self.by_status = {
            code: interned({**known, names.RPC_RESPONSE_STATUS_CODE: code.name}) for code in grpc.StatusCode
        }
        self.ok = self.by_status[OK]
        self.server_faults = _SERVER_FAULTS - {_DEADLINE} if name in _OPEN_ENDED else _SERVER_FAULTS


_methods: dict[str | bytes, Method] = {}
OTHER_METHOD = Method(OTHER)


def method_of(name: str | bytes) -> Method:
    """Return the method of a path, with or without its first slash.

    Beyond 1 000 methods all are `_OTHER`, and so is one whose name has more than 256 characters.
    """
    found = _methods.get(name)
    if found is None:
        if len(_methods) >= _MOST_METHODS or len(name) > MOST_NAME:
            return OTHER_METHOD
        text = (name.decode(errors="replace") if isinstance(name, bytes) else name).lstrip("/")
        # Under the name as it was given, too, so that it is found in one look.
        found = _methods[name] = _methods[text] = _methods.get(text) or Method(text)
    return found


class Peer:
    """The server at an address, as client spans tell it; the address is one that gRPC takes as a target."""

    __slots__ = ("_attributes",)

    def __init__(self, target: str) -> None:
        self._attributes = AttributeSet(_server_attributes(target))

    def attributes(self) -> AttributeSet:
        """Return the server's address, and its port if it has one."""
        return self._attributes


def _server_attributes(target: str) -> dict[str, Any]:
    scheme, colon, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return {names.SERVER_ADDRESS: rest.removeprefix("//")}
    if colon and scheme in ("dns", "ipv4", "ipv6"):
        # A resolver may be named in between: dns://resolver/host:port.
        target = rest.rpartition("/")[2]
    host, _, port = target.rpartition(":")
    if not host or not port.isdecimal() or (":" in host and not host.startswith("[")):
        return {names.SERVER_ADDRESS: target.strip("[]")}
    return {names.SERVER_ADDRESS: host.strip("[]"), names.SERVER_PORT: int(port)}


class ClientCall(Observation):
    """A call as its caller sees it: every status but OK is an error."""

    def __init__(self, method: Method, peer: Peer | None = None) -> None:
        super().__init__(
            names.RPC_CLIENT,
            method.labels,
            None if peer is None else peer.attributes,
            span_name=method.name,
        )
        self._method = method

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        if self.labels is self._method.labels:
            self._tell(error)
        super().__exit__(None, None, None)

    def note(self, code: grpc.StatusCode, details: str | None = "") -> None:
        """Take this for the status."""
        self.labels = self._method.by_status[code]
        if code is not OK:
            self.fail(code.name, (details or "")[:_MOST_TEXT])

    def note_cancelled(self, error: BaseException) -> None:
        """Note that the caller gave up, since this happened to it."""
        self.note(CANCELLED, _text(error))

    def settle(self, code: grpc.StatusCode, details: str | None = "") -> None:
        """End the passage of a call that ended so."""
        self.note(code, details)
        self.end()

    def settle_raised(self, error: BaseException) -> None:
        """End the passage of a call that raised this."""
        self._tell(error)
        self.end()

    def _tell(self, error: BaseException | None) -> None:
        if error is None:
            self.labels = self._method.ok
        elif isinstance(error, asyncio.CancelledError):
            self.note(CANCELLED)
        else:
            code, details = _status_of(error)
            if code is None:
                # It failed before there was a call, so there is no status.
                self.fail(type(error).__qualname__, _text(error))
            else:
                self.note(code, details)

    def follow(self, call: Any) -> None:
        """Settle when a call on a blocking channel has ended, as gRPC tells it."""
        try:
            done = _Done(self, call)
            if call.done() or not call.add_callback(done):
                done()
        except (AttributeError, TypeError):
            # An interceptor further in gave something else in place of a call, a mere iterator for one.
            self.end()

    def follow_aio(self, call: Any) -> None:
        """Settle when a call on an aio channel has ended, as gRPC tells it."""
        try:
            call.add_done_callback(self._aio_done)
        except NotImplementedError:
            # An interceptor further in gave a mere response in place of a call, and that is how it ended.
            self._aio_done(call)

    def _aio_done(self, call: Any) -> None:
        code = _result_of(call.code())
        self.settle(UNKNOWN if code is None else code, _result_of(call.details()))


class _Done:
    """Called when a call has ended. It does not keep the call alive: dropping a call is to cancel it."""

    __slots__ = ("_call", "_observed")

    def __init__(self, observed: ClientCall, call: Any) -> None:
        self._observed = observed
        self._call = weakref.ref(call)

    def __call__(self) -> None:
        call = self._call()
        if call is None:
            self._observed.settle(CANCELLED, "the caller let go of it")
        else:
            self._observed.settle(call.code() or UNKNOWN, call.details())


class ServerCall(Observation):
    """A call as its server sees it: only statuses that are the server's fault are errors."""

    def __init__(self, method: Method, parent: Context | None, links: Iterable[SpanContext], context: Any) -> None:
        super().__init__(names.RPC_SERVER, method.labels, span_name=method.name, parent=parent, links=links)
        self._method = method
        self.context = context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        self._tell(error)
        super().__exit__(None, None, None)

    def settle(self, error: BaseException | None = None) -> None:
        """End the passage of a call whose handler returned, or raised this."""
        self._tell(error)
        if self.labels is self._method.ok:
            self.end_well()
        else:
            self.end()

    def status(self, error: BaseException | None) -> grpc.StatusCode:
        """Return the status of a call whose handler returned, or raised this."""
        raise NotImplementedError

    def said(self) -> str:
        """Return what the handler said of the status."""
        raise NotImplementedError

    def _tell(self, error: BaseException | None) -> None:
        try:
            self._take_status(error)
        except Exception as fault:  # noqa: BLE001 - telemetry never raises into the code it observes
            faults.contain(f"telling how a call of {self._method.name} ended", fault)

    def _take_status(self, error: BaseException | None) -> None:
        code = self.status(error)
        if code is OK:
            self.labels = self._method.ok
            return
        self.labels = self._method.by_status[code]
        if code in self._method.server_faults:
            text = ""
            with suppress(Exception):
                text = self.said() or _text(error)
            self.fail(code.name, text[:_MOST_TEXT])

    def cut_short(self) -> grpc.StatusCode:
        """Return why the caller no longer waits: the deadline has passed, or it cancelled."""
        left = self.context.time_remaining()
        return _DEADLINE if left is not None and self.is_over(left) else CANCELLED

    def is_over(self, left: float) -> bool:
        """Say whether the caller's time may be up when ours has these seconds left."""
        # Its deadline is a little earlier than ours: on the wire the timeout is rounded up, by a hundredth at
        # most, and it began when the request was sent.
        return left <= 0.02 + 0.01 * ((perf_counter_ns() - self.started) * 1e-9 + left)


class AioServerCall(ServerCall):
    """A call that an aio server's coroutine or async generator handles."""

    @classmethod
    def arrived(cls, method: Method, metadata: Any) -> AioServerCall:
        """Return the call that has arrived with this metadata, in its own task; the context comes later."""
        call = cls.__new__(cls)
        call.point = names.RPC_SERVER
        call.labels = method.labels
        call.span_name = method.name
        call._method = method
        call.arrive(metadata or ())
        return call

    def status(self, error: BaseException | None) -> grpc.StatusCode:
        """See `ServerCall`."""
        if error is None:
            if self.context.time_remaining() == 0:
                # Not even a handler of streamed requests need notice: to it they merely came to an end.
                return _DEADLINE
            code = self.context.code()
            return OK if code is None else _aio_code(code)
        if isinstance(error, asyncio.CancelledError) or _peer_is_gone(error):
            return self.cut_short()
        code = _aio_code(self.context.code())
        if isinstance(error, GeneratorExit) and code is OK:
            return self.cut_short()
        return UNKNOWN if code is OK else code

    async def hear_of_cancellation(self) -> None:
        """Let gRPC cancel a handler that took a cancelled call's last request for the last that there was to be."""
        await asyncio.sleep(0)
        left = self.context.time_remaining()
        if left is not None and self.is_over(left):
            # The caller's deadline ends its requests, too, and word of it may come some turns of the loop later.
            # If they did end by themselves, there is still time for the response.
            await asyncio.sleep(left / 2)

    def said(self) -> str:
        """See `ServerCall`."""
        return str(self.context.details())


class BlockingServerCall(ServerCall):
    """A call that a function or a generator handles, in a thread of a blocking server.

    Nothing interrupts such a handler when its caller goes, so what happened is noted when it happens.
    """

    def __init__(self, method: Method, parent: Context | None, links: Iterable[SpanContext], context: Any) -> None:
        super().__init__(method, parent, links, context)
        self._cut_short: grpc.StatusCode | None = None
        if not context.add_callback(self._over):
            self._over()

    def _over(self) -> None:
        # Called for every call; for one that was answered, the passage has ended by then.
        self._cut_short = self.cut_short()

    def status(self, error: BaseException | None) -> grpc.StatusCode:
        """See `ServerCall`."""
        if not self.context.is_active():
            return self._cut_short or self.cut_short()
        code = self.context.code()
        if code is None:
            return OK if error is None else CANCELLED if isinstance(error, GeneratorExit) else UNKNOWN
        return code if isinstance(code, grpc.StatusCode) else UNKNOWN

    def said(self) -> str:
        """See `ServerCall`."""
        return (self.context.details() or b"").decode(errors="replace")


class ThreadServerCall(ServerCall):
    """A call that a function or a generator handles, in a thread of an aio server.

    Its context tells neither the status nor whether the caller has gone; `context` is one of `Noting`.
    """

    def status(self, error: BaseException | None) -> grpc.StatusCode:
        """See `ServerCall`."""
        if self.context.time_remaining() == 0:
            return _DEADLINE
        code = _aio_code(self.context.noted)
        if code is OK and error is not None:
            return CANCELLED if isinstance(error, GeneratorExit) else UNKNOWN
        return code

    def said(self) -> str:
        """See `ServerCall`."""
        return str(self.context.noted_details)


class Noting:
    """The context of a handler in a thread of an aio server, with a note of the status that is set."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.noted: Any = None
        self.noted_details = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def set_code(self, code: Any) -> None:
        """See `grpc.ServicerContext`."""
        self._context.set_code(code)
        self.noted = code

    def set_details(self, details: str) -> None:
        """See `grpc.ServicerContext`."""
        self._context.set_details(details)
        self.noted_details = details

    def abort(self, code: Any, details: str = "", *more: Any) -> None:
        """See `grpc.ServicerContext`."""
        self.noted, self.noted_details = code, details
        self._context.abort(code, details, *more)


def _aio_code(code: Any) -> grpc.StatusCode:
    """Return the status that an aio server sends for a code."""
    if code is None:
        return OK
    if isinstance(code, grpc.StatusCode):
        return code
    return _BY_NUMBER.get(code, UNKNOWN) if isinstance(code, int) else UNKNOWN


def _peer_is_gone(error: BaseException) -> bool:
    """Say whether an aio server raised this because there is nobody to write to or read from."""
    return isinstance(error, aio.BaseError) and not isinstance(error, aio.UsageError | aio.AbortError)


def _status_of(error: BaseException) -> tuple[grpc.StatusCode | None, str]:
    code: Callable[[], Any] | None = getattr(error, "code", None)
    if not isinstance(error, grpc.RpcError) or code is None:
        return None, ""
    found = code()
    return found if isinstance(found, grpc.StatusCode) else None, error.details() or ""


def _result_of(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that need not wait; None if it would."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    return None


def _text(error: BaseException | None) -> str:
    return "" if error is None else f"{type(error).__name__}: {message_of(error)}"
