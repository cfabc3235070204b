"""Contract of a transport: connections to a peer, and listeners that serve the same services to peers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from snakepit_otel.common.byte_charge import ByteCharge
from snakepit_otel.rpc.addresses import MAX_MESSAGE_BYTES
from snakepit_otel.rpc.services import Handler, Methods
from snakepit_otel.rpc.status import StatusCode

if TYPE_CHECKING:
    from snakepit_otel.rpc.tls import Tls

Metadata = Sequence[tuple[str, str]]
EOF: Final = object()
"""The result of reading a stream that has ended."""


class Dialogue(Protocol):
    """Call that streams both ways, at its caller. Methods raise `RpcError` for a call that has failed."""

    async def read(self) -> Any:
        """Return the next message, or `EOF` where the peer has ended the call well."""

    async def write(self, message: Any) -> None:
        """Send a message; return when there is room for the next one."""

    async def done_writing(self) -> None:
        """Let the peer read the end."""

    def cancel(self) -> None:
        """End the call, at the peer, too; again does nothing."""

    def done(self) -> bool:
        """Return whether the call has ended."""


class Connection(Protocol):
    """Calls to one peer from an event loop. Methods are named `package.Service/Method`.

    Every call carries the trace context and has a client span, except where `observed` is false. Times are in seconds.
    A call that fails raises `RpcError`; cancelling the caller cancels the call at the peer.
    """

    async def call(
        self,
        method: str,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        *,
        observed: bool = True,
    ) -> Any:
        """Send one message and return the answer."""

    async def stream(
        self,
        method: str,
        request: Any,
        take: Callable[[Any], Awaitable[None]],
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """Send one message and await `take` for each message of the answer; what `take` raises cancels the call."""

    async def upload(self, method: str, messages: Iterable[Any]) -> Any:
        """Send a stream of messages and return the answer."""

    def bidirectional(self, method: str, metadata: Metadata | None = None) -> Dialogue:
        """Begin a call that streams both ways; it has no span."""

    @property
    def transport(self) -> str | None:
        """The `rpc.system.name` of calls; None while there is no connection."""

    def connect(self) -> None:
        """Begin to connect now, and not with the first call."""

    async def ready(self) -> None:
        """Return once connected."""

    async def close(self) -> None:
        """Close the connection and cancel its calls; later calls raise `ConnectionClosed`."""


class BlockingConnection(Protocol):
    """Calls to one peer from any thread; see `Connection`."""

    def call(
        self,
        method: str,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        *,
        observed: bool = True,
    ) -> Any:
        """Send one message and return the answer."""

    def stub(self, service: Callable[[Any], Any]) -> Any:
        """Return a client class of gRPC's over a channel to the same peer, for code that has to have one; no spans."""

    def connect(self) -> None:
        """Begin to connect now, and not with the first call."""

    def close(self) -> None:
        """Close the connection and cancel its calls."""


class CallContext(Protocol):
    """Call at the side that serves it: the part of `grpc.aio.ServicerContext` that services may use."""

    def invocation_metadata(self) -> Any:
        """Return the caller's metadata as pairs."""

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller's deadline."""

    def peer(self) -> str:
        """Return the caller's address in gRPC's form, such as `unix:` or `ipv4:127.0.0.1:4711`."""

    async def read(self) -> Any:
        """Return the next message of a stream, or `EOF`."""

    async def write(self, message: Any) -> None:
        """Send a message of a stream."""

    def peer_identities(self) -> Iterable[bytes] | None:
        """Return the names in the certificate of the caller, if it has shown one."""

    async def abort(self, code: StatusCode, details: str = "") -> NoReturn:
        """End the call with a status; always raises."""


class Listener(Protocol):
    """Server at one address; handlers are added before it starts."""

    def add(self, handlers: Iterable[Handler]) -> None:
        """Serve the calls of these methods; those of others end with UNIMPLEMENTED."""

    def bind(self) -> str:
        """Take the address, and return the one to call by. Raises `ConfigurationError` if it cannot be used."""

    async def start(self) -> None:
        """Serve calls."""

    async def stop(self, grace: float | None) -> None:
        """Refuse new calls, and let those in flight have `grace` seconds; called again, a shorter grace counts."""


class Transport(Protocol):
    """Maker of connections and listeners for the addresses that it `serves`."""

    def serves(self, address: str) -> bool:
        """Return whether the address is of this transport's kind."""

    def connect(
        self,
        address: str,
        services: Iterable[Methods],
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        credentials: Any = None,
        keepalive: bool = False,
    ) -> Connection:
        """Make a connection; `credentials` are those of `rpc.tls`, `keepalive` notices a peer whose machine is gone.

        Raises `UnsafeSocket` for another user's socket, and `ConfigurationError` for an address that cannot be used.
        """

    def connect_blocking(
        self, address: str, services: Iterable[Methods], *, max_message_bytes: int = MAX_MESSAGE_BYTES
    ) -> BlockingConnection:
        """Make a connection for threads; errors as of `connect`."""

    def listen(
        self,
        address: str,
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        tls: Tls | None = None,
        insecure: bool = False,
        trusted: bool = False,
        interceptors: Callable[[], Sequence[Any]] = tuple,
        options: Sequence[tuple[str, Any]] = (),
        replace: bool = False,
        new_charge: Callable[[], ByteCharge] | None = None,
        unread_timeout: float = 60.0,
    ) -> Listener:
        """Make a listener.

        Callers that are `trusted` have their traces continued. `insecure` allows an address that other machines reach
        without TLS and client certificates. `interceptors` makes those of gRPC, whose the `options` are, too. With
        `replace`, another server of this user may listen at the address, and the listener takes its place or joins it.
        `new_charge` returns what the bytes held for one call are charged to, where no interceptor does that; a peer
        may take nothing of its answers for `unread_timeout` seconds.
        """
