"""Settings of the tools that run in the authority."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from snakepit_otel.bridge.authority.limits import LimitSettings
from snakepit_otel.common.validation import Milliseconds, Whole
from snakepit_otel.rpc.tls import Tls


class AuthoritySettings(BaseModel):
    """Limits of the tools of `authority_tools`. Times are in milliseconds.

    The tools for session state, which every adapter uses, have none of these limits and do not wait for the others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool_threads: Whole = Field(default=16, ge=1, le=1024, description="Plain functions that run at a time.")
    tool_threads_each: Whole = Field(
        default=8,
        ge=1,
        le=1024,
        description="Threads of one tool, those of its calls that run on after their time limit included.",
    )
    tool_threads_abandoned: Whole = Field(
        default=64,
        ge=0,
        le=1024,
        description="Threads beyond `tool_threads`, in place of those in which calls run on after their time limit.",
    )
    max_queue_size: Whole = Field(
        default=1_000,
        ge=0,
        description="Calls of one tool that may wait for a thread, or run at a time as coroutines; more are refused.",
    )
    queue_timeout: Milliseconds = Field(default=5_000, ge=0, description="How long a call waits for a thread.")
    tool_timeout: Milliseconds = Field(
        default=300_000, ge=1, description="How long a call may take at most; an earlier deadline of its own counts."
    )


class TlsSettings(BaseModel):
    """PEM files for a TCP listener; when they change, new connections have the new ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: Path
    key: Path
    client_ca: Path | None = Field(
        default=None, description="The authority that signs clients' certificates; with it, clients must have one."
    )

    def files(self) -> Tls:
        """The files as listeners take them."""
        return Tls(self.certificate, self.key, self.client_ca)


class ServerSettings(BaseModel):
    """Listeners of the authority for callers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: str | None = Field(default=None, description="`HOST:PORT` for callers on TCP; none by default.")
    socket: Path | None = Field(
        default=None, description="Path of the Unix socket; by default in a new private directory."
    )
    tls: TlsSettings | None = None

    insecure: bool = Field(
        default=False,
        description="Listen beyond loopback without TLS or `client_ca`: everybody who reaches the port may call.",
    )
    local_transport: Literal["local", "grpc"] = Field(
        default="local",
        description="Transport over Unix sockets, between processes of this machine; `grpc` switches back to gRPC.",
    )
    trust_trace_context: bool | None = Field(
        default=None,
        description="Continue the traces and sampling decisions of all callers, or of none: their traces are linked "
        "then. By default those of callers on the Unix socket, and with a certificate on TCP.",
    )
    limits: LimitSettings = Field(default=LimitSettings(), description="Limits of callers.")
