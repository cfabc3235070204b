"""Transport to Unix sockets of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from snakepit_otel.common.byte_charge import ByteCharge
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.rpc.addresses import MAX_MESSAGE_BYTES
from snakepit_otel.rpc.services import Methods
from snakepit_otel.rpc.targets import socket_of
from snakepit_otel.rpc.transports.base import BlockingConnection, Connection, Listener, Transport
from snakepit_otel.rpc.transports.local.blocking import LocalBlockingConnection
from snakepit_otel.rpc.transports.local.connection import LocalConnection
from snakepit_otel.rpc.transports.local.faults import count_fault
from snakepit_otel.rpc.transports.local.listener import LocalListener

if TYPE_CHECKING:
    from snakepit_otel.rpc.local_sockets import LocalSocket
    from snakepit_otel.rpc.tls import Tls


class LocalTransport:
    """Makes connections and listeners for `unix:PATH`.

    A peer that speaks only gRPC is called over gRPC; a listener `with_grpc` serves such peers, too.
    """

    def __init__(self, *, with_grpc: bool = True) -> None:
        self._with_grpc = with_grpc

    def serves(self, address: str) -> bool:
        """See `Transport`."""
        return address[:5].lower() == "unix:"

    def connect(
        self,
        address: str,
        services: Iterable[Methods],
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        credentials: Any = None,
        keepalive: bool = False,
    ) -> Connection:
        """See `Transport`."""
        if credentials is not None:
            raise ConfigurationError("TLS is for HOST:PORT; on a Unix socket there is none")
        services = tuple(services)

        def over_grpc() -> Connection:
            return _grpc().connect(address, services, max_message_bytes=max_message_bytes, keepalive=keepalive)

        return LocalConnection(
            _socket(address),
            address,
            services,
            max_message_bytes=max_message_bytes,
            keepalive=keepalive,
            over_grpc=over_grpc,
            on_fault=count_fault,
        )

    def connect_blocking(
        self, address: str, services: Iterable[Methods], *, max_message_bytes: int = MAX_MESSAGE_BYTES
    ) -> BlockingConnection:
        """See `Transport`."""
        services = tuple(services)

        def over_grpc() -> BlockingConnection:
            return _grpc().connect_blocking(address, services, max_message_bytes=max_message_bytes)

        return LocalBlockingConnection(
            _socket(address),
            address,
            services,
            max_message_bytes=max_message_bytes,
            over_grpc=over_grpc,
            on_fault=count_fault,
        )

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
        """See `Transport`."""

        def listen_over_grpc(inner: str) -> Listener:
            return _grpc().listen(
                inner,
                max_message_bytes=max_message_bytes,
                tls=tls,
                insecure=insecure,
                trusted=trusted,
                interceptors=interceptors,
                options=options,
            )

        return LocalListener(
            address,
            max_message_bytes=max_message_bytes,
            trusted=trusted,
            replace=replace,
            unread_timeout=unread_timeout,
            new_charge=new_charge,
            listen_over_grpc=listen_over_grpc if self._with_grpc else None,
            on_fault=count_fault,
        )


def _socket(address: str) -> LocalSocket:
    found = socket_of(address)
    if found is None:
        raise ConfigurationError(f"{address!r} is no Unix socket: unix:/path/to/socket")
    return found


def _grpc() -> Transport:
    # Imported late: most peers need none.
    from snakepit_otel.rpc.transports.grpc import GrpcTransport

    return GrpcTransport()
