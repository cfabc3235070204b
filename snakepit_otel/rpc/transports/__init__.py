"""Transports, chosen by the address: local for Unix sockets, gRPC for all others, and where it is asked for."""

from __future__ import annotations

from typing import Literal

from snakepit_otel.rpc.transports.base import Transport

LocalTransportName = Literal["local", "grpc"]


def transport_of(address: str, local: LocalTransportName = "local", *, with_grpc: bool = True) -> Transport:
    """Return the transport for an address.

    With `local` as "grpc", a listener at a Unix socket serves gRPC alone; a connection finds out what its peer speaks
    in any case. A listener that is not `with_grpc` serves no peers that speak gRPC at a Unix socket.
    """
    if local == "local" and address[:5].lower() == "unix:":
        from snakepit_otel.rpc.transports.local import LocalTransport

        return LocalTransport(with_grpc=with_grpc)
    # Imported late: a process that has no need of gRPC does without it.
    from snakepit_otel.rpc.transports.grpc import GrpcTransport

    return GrpcTransport()
