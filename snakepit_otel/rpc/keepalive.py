"""Pings by which each end of a client's connection notices that the other has gone without a word.

A process that is killed closes its connections; a machine that loses power, or its network, does not. gRPC
answers pings in threads of its own, so a peer that is merely busy stays connected.
"""

from __future__ import annotations

from typing import Any

_EVERY_MS = 10_000
_ANSWER_MS = 20_000
_TOLERATED_MS = 5_000
"""How often a server lets its clients ping; gRPC's own five minutes would have it hang up on ours."""

HANDSHAKE_MS = 10_000
"""The time that a connection may take for its beginning, TLS and HTTP/2 both; gRPC's own limit is two minutes."""

_BOTH: list[tuple[str, Any]] = [
    ("grpc.keepalive_time_ms", _EVERY_MS),
    ("grpc.keepalive_timeout_ms", _ANSWER_MS),
    # What a server goes by, whatever its keepalive says; gRPC's own is a minute.
    ("grpc.http2.ping_timeout_ms", _ANSWER_MS),
    # Otherwise only two pings go out without data in between.
    ("grpc.http2.max_pings_without_data", 0),
]

CALLER: list[tuple[str, Any]] = _BOTH
"""Options for the channel of a client, whose server has those of `LISTENER`."""
LISTENER: list[tuple[str, Any]] = [
    *_BOTH,
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
    ("grpc.http2.min_ping_interval_without_data_ms", _TOLERATED_MS),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", _TOLERATED_MS),
]
"""Options for a server that clients call."""
