"""Limits of memory, connections and times that callers can cost the authority."""

from __future__ import annotations

import resource
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from snakepit_otel.bridge.authority.byte_budget import (
    ANONYMOUS_BYTES,
    ANONYMOUS_PEER_BYTES,
    COPIES_HELD,
    KNOWN_BYTES,
    Budget,
)
from snakepit_otel.bridge.wire.method_guards import AUTHORITY_TOOL_BYTES
from snakepit_otel.common.validation import Milliseconds, Whole

_MOST_CONNECTIONS = 256
_HANDSHAKE_MS = 10_000  # until a connection has spoken HTTP/2
_WITHOUT_COMPRESSION = 1


def _default_connections() -> int:
    # Three quarters are left to the Unix socket, the workers, and shared memory.
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if descriptors < 0 else max(1, min(_MOST_CONNECTIONS, descriptors // 4))


class LimitSettings(BaseModel):
    """Limits of callers: identified ones, on the Unix socket or with a client certificate, and anonymous ones.

    Times are in milliseconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    anonymous_bytes: Whole = Field(
        default=ANONYMOUS_BYTES, ge=1 << 20, description="The most that is held for all anonymous callers together."
    )
    anonymous_peer_bytes: Whole = Field(
        default=ANONYMOUS_PEER_BYTES,
        ge=1 << 20,
        description="The most that is held for anonymous callers of one machine; a message may have a third of it.",
    )
    known_bytes: Whole = Field(
        default=KNOWN_BYTES, ge=1 << 20, description="The most that is held for all other callers together."
    )
    max_connections: Whole = Field(
        default_factory=_default_connections,
        ge=1,
        le=65_536,
        description="Connections on TCP; by default a quarter of the file descriptors that are allowed, 256 at most.",
    )
    max_connection_calls: Whole = Field(
        default=100, ge=1, le=65_536, description="Calls at a time on one connection on TCP; a client has others wait."
    )
    arrival_timeout: Milliseconds = Field(
        default=60_000, ge=100, description="How long a request on TCP may take to arrive."
    )
    unread_timeout: Milliseconds = Field(
        default=60_000,
        ge=100,
        description="How long a caller may read nothing of its answer before its stream, or its connection, is ended.",
    )
    idle_timeout: Milliseconds = Field(
        default=300_000,
        ge=1_000,
        le=2_147_483_647,
        description="How long a connection on TCP may have no calls; clients make another for the next call.",
    )
    authority_tool_bytes: Whole = Field(
        default=AUTHORITY_TOOL_BYTES,
        ge=1 << 10,
        description="Bytes of JSON that a tool of the authority takes in one call from another process.",
    )

    @model_validator(mode="after")
    def _one_is_not_more_than_all(self) -> Self:
        if self.anonymous_peer_bytes > self.anonymous_bytes:
            raise ValueError("anonymous_peer_bytes is more than anonymous_bytes, which is for all of them")
        return self

    def budget(self) -> Budget:
        """Return a budget with these limits, of which nothing is taken."""
        return Budget(self.anonymous_bytes, self.anonymous_peer_bytes, self.known_bytes)

    def largest_message(self, largest: int, *, anonymous: bool) -> int:
        """Return the size of the largest message that a listener takes, if pools take `largest`."""
        return min(largest, self.anonymous_peer_bytes // COPIES_HELD) if anonymous else largest

    def tcp_options(self, *, anonymous: bool) -> list[tuple[str, Any]]:
        """Return the options of a listener on TCP."""
        return [
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            ("grpc.max_concurrent_streams", self.max_connection_calls),
            ("grpc.max_connection_idle_ms", self.idle_timeout),
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
            ("grpc.http2.settings_timeout", _HANDSHAKE_MS),
            # An unread stream holds the first 64 KiB, at whatever rate they arrive.
            ("grpc.http2.bdp_probe", 0),
            # A compressed megabyte may become a hundred before its size can be checked.
            *([("grpc.compression_enabled_algorithms_bitset", _WITHOUT_COMPRESSION)] if anonymous else []),
        ]
