"""The class that middleware derives from, and the request and the result that its hooks get."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from types import MappingProxyType
from typing import Any, Literal

Side = Literal["authority", "worker"]
Attribute = str | bool | int | float | list[str] | list[bool] | list[int] | list[float]
MAX_ATTRIBUTES = 64
MAX_TEXT = 1_024


class Middleware:
    """User code around every request of the authority, of a worker, or of both; override the hooks that you need.

    With `[A, B]`, the order is `A.before`, `B.before`, the request, `B.after`, `A.after`. Each middleware whose
    `before` has returned gets exactly one of `after` and `on_error`, so that what one takes the other can give back.
    For a stream, hooks run once, not for each chunk.

    A hook refuses the request by raising `RequestRefused`. Whatever else it raises fails the request with
    `MiddlewareFailed`, which names the middleware. In both cases the middleware before it get `on_error`.

    One instance serves all requests, many at a time. Hooks may be coroutine functions. Plain ones run on the event
    loop and must not block, unless `blocking` is True: then they run in a thread.
    """

    blocking: bool = False

    def before(self, request: MiddlewareRequest) -> Any:
        """Run before the request. May rewrite `request.arguments` and `request.metadata`."""

    def after(self, request: MiddlewareRequest, result: MiddlewareResult) -> Any:
        """Run after the request has succeeded; for a stream, after its last chunk."""

    def on_error(self, request: MiddlewareRequest, error: BaseException) -> Any:
        """Run after the request has failed, was refused, or was cancelled (`asyncio.CancelledError`).

        What it raises is logged, and does not replace `error`.
        """


@dataclass(frozen=True)
class Caller:
    """The peer that sent the request.

    `name` is `unix` for this process and for Unix sockets, else a machine's address or the name in the client's
    certificate, which is `tls_subject` as well. `is_trusted` is True on a Unix socket and with a client certificate.
    `headers` are the gRPC metadata of a remote call, as far as they are text.
    """

    name: str = "unix"
    is_trusted: bool = True
    tls_subject: str | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class MiddlewareRequest:
    """One request, as the hooks of a side see it.

    `deadline` is on the clock of `time.monotonic`. `values` are for middleware to keep what belongs to the request.
    """

    def __init__(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        session_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        caller: Caller | None = None,
        deadline: float | None = None,
        side: Side = "authority",
        is_stream: bool = False,
    ) -> None:
        self.tool = tool
        self.session_id = session_id
        self.caller = caller or Caller()
        self.deadline = deadline
        self.side = side
        self.is_stream = is_stream
        self.values: dict[str, Any] = {}
        self._arguments: Mapping[str, Any] | None = MappingProxyType(dict(arguments or {}))
        self._metadata: Mapping[str, str] = MappingProxyType(dict(metadata or {}))
        self._attributes: dict[str, Attribute] = {}
        self._read_arguments: Callable[[], Mapping[str, Any]] | None = None
        self._on_attribute: Callable[[str, Attribute], None] | None = None
        self.has_new_arguments = False
        self.has_new_metadata = False

    def decoded_by(self, read: Callable[[], Mapping[str, Any]]) -> None:
        """Have the arguments decoded when they are first read."""
        self._arguments, self._read_arguments = None, read

    def record_attributes(self, record: Callable[[str, Attribute], None]) -> None:
        """Call `record` for each attribute that is set."""
        self._on_attribute = record

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments by name; assign a new mapping to rewrite them, since changes inside do not count.

        In the authority they are decoded when they are first read, and a zero-copy reference is a mapping; in a
        worker it is a `Reference`.
        """
        if self._arguments is None:
            assert self._read_arguments is not None
            self._arguments = MappingProxyType(dict(self._read_arguments()))
        return self._arguments

    @arguments.setter
    def arguments(self, arguments: Mapping[str, Any]) -> None:
        self._arguments = MappingProxyType(dict(arguments))
        self.has_new_arguments = True

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata that the caller gave the request; assign a new mapping to rewrite them.

        Rewritten in the authority, they reach the worker's middleware, and tools as `context.request_metadata`.
        """
        return self._metadata

    @metadata.setter
    def metadata(self, metadata: Mapping[str, str]) -> None:
        self._metadata = MappingProxyType(dict(metadata))
        self.has_new_metadata = True

    @property
    def attributes(self) -> Mapping[str, Attribute]:
        """The attributes set so far."""
        return MappingProxyType(self._attributes)

    def set_attribute(self, key: str, value: Attribute) -> None:
        """Set an attribute of the request's span, and of the events that are emitted from now on.

        At most 64 per request; more are ignored. Text is cut at 1,024 characters, and a list after 64 values. Metrics
        get none, since their attribute sets are closed.
        """
        key = key[:MAX_TEXT]
        value = [_cut(one) for one in value[:MAX_ATTRIBUTES]] if isinstance(value, list) else _cut(value)
        if key not in self._attributes and len(self._attributes) >= MAX_ATTRIBUTES:
            return
        self._attributes[key] = value
        if self._on_attribute is not None:
            self._on_attribute(key, value)

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline, at least 0; None if the caller has set none."""
        return None if self.deadline is None else max(self.deadline - monotonic(), 0.0)


def _cut(value: Any) -> Any:
    return value[:MAX_TEXT] if isinstance(value, str) else value


class MiddlewareResult:
    """The result of a request that succeeded; `chunks` is how many a stream had, None for other requests."""

    def __init__(self, value: Any = None, *, chunks: int | None = None) -> None:
        self.chunks = chunks
        self._value = value
        self._read: Callable[[], Any] | None = None

    @classmethod
    def decoded_by(cls, read: Callable[[], Any]) -> MiddlewareResult:
        """Return a result whose value is decoded when it is first read."""
        result = cls()
        result._read = read
        return result

    @property
    def value(self) -> Any:
        """What the tool returned; None for a stream. It cannot be replaced."""
        if self._read is not None:
            self._value, self._read = self._read(), None
        return self._value
