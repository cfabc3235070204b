"""Transports, chosen by the address."""

from __future__ import annotations

from snakepit_otel.rpc.transports.base import Transport
from snakepit_otel.rpc.transports.grpc import GrpcTransport

TRANSPORTS: tuple[Transport, ...] = (GrpcTransport(),)
"""In order of preference; the last one takes every address."""


def transport_of(address: str) -> Transport:
    """Return the transport for an address."""
    return next(transport for transport in TRANSPORTS if transport.serves(address))
