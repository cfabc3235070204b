"""Pings by which each end of a client's connection notices that the other end is gone without having closed it.

A process that is killed closes its connections; a machine that loses power, or its network, does not. gRPC
answers pings in threads of its own, so a peer that is merely busy stays connected.
"""

from __future__ import annotations

from typing import Any

_PING_INTERVAL_MS = 10_000
_PING_TIMEOUT_MS = 20_000
# gRPC's own minimum of five minutes would close the connections of our clients.
_MIN_PING_INTERVAL_MS = 5_000
HANDSHAKE_MS = 10_000  # for TLS and HTTP/2 together; gRPC's own limit is two minutes

# Options of a client's channel and of its server.
CALLER: list[tuple[str, Any]] = [
    ("grpc.keepalive_time_ms", _PING_INTERVAL_MS),
    ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
    # The timeout that a server uses, whatever its keepalive options are; gRPC's own is a minute.
    ("grpc.http2.ping_timeout_ms", _PING_TIMEOUT_MS),
    # Otherwise only two pings go out without data in between.
    ("grpc.http2.max_pings_without_data", 0),
]
LISTENER: list[tuple[str, Any]] = [
    *CALLER,
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
    ("grpc.http2.min_ping_interval_without_data_ms", _MIN_PING_INTERVAL_MS),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", _MIN_PING_INTERVAL_MS),
]
