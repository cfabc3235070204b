"""Remote procedure calls, both ends: trace context in metadata, a span and a duration for each, the true status.

What needs gRPC is imported where it is first used: workers of this machine do without.
"""

from typing import TYPE_CHECKING

# First, since what the other modules import of OpenTelemetry reads variables, and must not raise for any.
import snakepit_otel.telemetry  # isort: split  # noqa: F401 - for what it imports
from snakepit_otel.common.lazy_exports import lazy_exports
from snakepit_otel.rpc.client_call import Peer
from snakepit_otel.rpc.local_sockets import without_descriptors
from snakepit_otel.rpc.status import ConnectionClosed, RpcError, StatusCode, snakepit_error
from snakepit_otel.rpc.targets import socket_of
from snakepit_otel.rpc.transports import transport_of
from snakepit_otel.rpc.transports.base import EOF, BlockingConnection, Connection, Listener

if TYPE_CHECKING:
    from snakepit_otel.rpc.grpc_client_interceptors import (
        BlockingClientInterceptor,
        ObservedCallable,
        client_interceptors,
    )
    from snakepit_otel.rpc.grpc_factories import aio_channel, aio_server, blocking_channel, blocking_server
    from snakepit_otel.rpc.grpc_server_interceptors import BlockingServerInterceptor, ObservedHandler, ServerInterceptor

__all__ = [
    "EOF",
    "BlockingClientInterceptor",
    "BlockingConnection",
    "BlockingServerInterceptor",
    "Connection",
    "ConnectionClosed",
    "Listener",
    "ObservedCallable",
    "ObservedHandler",
    "Peer",
    "RpcError",
    "ServerInterceptor",
    "StatusCode",
    "aio_channel",
    "aio_server",
    "blocking_channel",
    "blocking_server",
    "client_interceptors",
    "snakepit_error",
    "socket_of",
    "transport_of",
    "without_descriptors",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "BlockingClientInterceptor": "grpc_client_interceptors",
        "ObservedCallable": "grpc_client_interceptors",
        "client_interceptors": "grpc_client_interceptors",
        "aio_channel": "grpc_factories",
        "aio_server": "grpc_factories",
        "blocking_channel": "grpc_factories",
        "blocking_server": "grpc_factories",
        "BlockingServerInterceptor": "grpc_server_interceptors",
        "ObservedHandler": "grpc_server_interceptors",
        "ServerInterceptor": "grpc_server_interceptors",
    },
)
