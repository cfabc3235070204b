"""Transports, chosen by the address."""

from __future__ import annotations

from snakepit_otel.rpc.transports.base import Transport


def transport_of(_address: str) -> Transport:
    """Return the transport for an address."""
    # Imported late: a process that has no need of gRPC does without it.
    from snakepit_otel.rpc.transports.grpc import GrpcTransport

    return GrpcTransport()
