"""Calls over gRPC, both ends: trace context in metadata, a span and a duration for each, the true status."""

from snakepit_otel.bridge.rpc.calls import call, call_blocking, pour, push, translated
from snakepit_otel.bridge.rpc.client import BlockingClientInterceptor, ObservedCallable, client_interceptors
from snakepit_otel.bridge.rpc.local_sockets import without_descriptors
from snakepit_otel.bridge.rpc.outcome import Peer
from snakepit_otel.bridge.rpc.server import BlockingServerInterceptor, ObservedHandler, ServerInterceptor
from snakepit_otel.bridge.rpc.targets import socket_of
from snakepit_otel.bridge.rpc.unpatched import aio_channel, aio_server, blocking_channel, blocking_server

__all__ = [
    "BlockingClientInterceptor",
    "BlockingServerInterceptor",
    "ObservedCallable",
    "ObservedHandler",
    "Peer",
    "ServerInterceptor",
    "aio_channel",
    "aio_server",
    "blocking_channel",
    "blocking_server",
    "call",
    "call_blocking",
    "client_interceptors",
    "pour",
    "push",
    "socket_of",
    "translated",
    "without_descriptors",
]
