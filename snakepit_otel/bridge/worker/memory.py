"""A worker's way to the memory of its requests: file descriptors, copies, or none."""

from __future__ import annotations

import asyncio
from pathlib import Path

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.worker.authority_client import AuthorityClient
from snakepit_otel.zero_copy._buffer_store import BufferStore
from snakepit_otel.zero_copy._descriptor import Description, Owner
from snakepit_otel.zero_copy._exchange import ExchangeUnavailable
from snakepit_otel.zero_copy._fd_client import FdClient
from snakepit_otel.zero_copy._limits import Limits
from snakepit_otel.zero_copy._memory import Buffer
from snakepit_otel.zero_copy._scope import Scope


class _Placed:
    """What foreign peers have placed with a worker, for their next call to it; see `scope.Exchange`."""

    def __init__(self, kept: BufferStore) -> None:
        self._kept = kept

    def publish(self, request: str | None, description: Description, buffer: Buffer) -> None:
        """Refuse to: such a peer can only read what is copied for it."""
        raise ExchangeUnavailable("foreign_peer")

    def fetch(self, request: str | None, ref: str) -> tuple[Description, Buffer]:
        """Return what was placed, which is spent with that."""
        found = self._kept.fetch(request, ref)
        self._kept.release(request, ref)
        return found

    def release(self, request: str | None, ref: str) -> None:
        """Do nothing."""

    def has(self, ref: str) -> bool:
        return self._kept.has(ref)


class WorkerMemory:
    """Opens a scope for each request; buffers for peers without request ids, such as Elixir, wait in `kept`."""

    def __init__(self, settings: Limits | None = None, fd_server: Path | None = None, *, strict: bool = False) -> None:
        self._settings = settings or Limits()
        self._strict = strict
        self._link = FdClient(fd_server) if fd_server is not None else None
        self._reason = "unreachable" if self._settings.enabled else "disabled"
        self.kept = BufferStore(self._settings, strict=strict)

    def open(self, request: pb.ExecuteToolRequest, request_id: str | None) -> Scope:
        """Return the scope of a request's references on the worker's side."""
        return Scope(
            Owner.PYTHON,
            self._link if request_id else _Placed(self.kept),
            self._settings,
            request=request_id,
            session_id=request.session_id or None,
            tool=request.tool_name,
            strict=self._strict,
            no_exchange=self._reason if request_id else "foreign_peer",
            foreign=not request_id,
        )

    def set_strict(self, strict: bool) -> None:
        """Report references that are made for nothing from now on, or no longer."""
        self._strict = self.kept.strict = strict

    async def send(self, scope: Scope, authority: AuthorityClient) -> None:
        """Copy what could not be shared to where the other side can read it."""
        if scope.request is not None:
            await authority.copier.send(scope)
            return
        loop = asyncio.get_running_loop()
        loop.call_later(self._settings.unused_ttl / 1000 + 1, self.kept.sweep)
        for copying in scope.to_send:
            self.kept.publish(None, copying.reference.description, copying.reference.open())
            scope.copied(copying)
        scope.to_send.clear()

    def close(self) -> None:
        """Let go of all."""
        self.kept.close()
        if self._link is not None:
            self._link.close()
