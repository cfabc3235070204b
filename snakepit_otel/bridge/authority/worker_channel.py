"""The authority's connection to one worker: tool calls, heartbeats, ends of requests, telemetry controls."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from snakepit_otel.bridge.authority.jobs import CallFailed, CallTimedOut, ConnectionLost, Job, TakeChunk
from snakepit_otel.bridge.authority.worker_telemetry_controls import WorkerTelemetryControls
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto import snakepit_supervision_pb2 as supervision_pb
from snakepit_otel.bridge.wire import methods
from snakepit_otel.bridge.wire.failures import failure_in
from snakepit_otel.bridge.wire.raw_messages import LargeRequest
from snakepit_otel.bridge.wire.reference_list import UNLISTED
from snakepit_otel.bridge.wire.services import SUPERVISION, WORKER
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.bridge.wire.tool_calls import stream_error
from snakepit_otel.rpc import RpcError, StatusCode, transport_of
from snakepit_otel.telemetry import Level

# Heartbeats belong to an unsampled trace: otherwise the worker would begin a trace for each.
_UNSAMPLED = (("traceparent", f"00-{1:032x}-{1:016x}-00"),)


class WorkerChannel:
    """Calls of one worker at `address`. They raise `CallFailed`; times are in seconds."""

    def __init__(self, address: str, worker_id: str, max_message_bytes: int) -> None:
        self._worker_id = worker_id
        self._connection = transport_of(address).connect(
            address, (WORKER, SUPERVISION), max_message_bytes=max_message_bytes
        )
        self._telemetry: WorkerTelemetryControls | None = None

    @property
    def transport(self) -> str:
        """The system name of the transport in use; empty before there is a connection."""
        return self._connection.transport or ""

    async def ready(self, timeout: float) -> bool:
        """Wait until connected; return whether that is so in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._connection.ready()
                return True
        return False

    async def execute(self, job: Job, timeout: float | None) -> Any:
        """Run a request and return its response."""
        try:
            return await self._connection.call(methods.EXECUTE_TOOL, job.request, timeout, _headers(job))
        except RpcError as error:
            raise self._failure(error) from None

    async def stream(self, job: Job, take: TakeChunk, timeout: float | None) -> None:
        """Run a request and await `take` for each chunk."""
        try:
            await self._connection.stream(methods.EXECUTE_STREAMING_TOOL, job.request, take, timeout, _headers(job))
        except RpcError as error:
            raise self._failure(error) from None

    async def ping(self, timeout: float) -> None:
        """Return once the worker's event loop has answered."""
        try:
            request = pb.PingRequest(message="heartbeat")
            await self._connection.call(methods.PING, request, timeout, _UNSAMPLED, observed=False)
        except RpcError as error:
            raise self._failure(error) from None

    async def await_request_end(self, request_id: str, timeout: float) -> None:
        """Return once nothing of a request runs in the worker any more."""
        try:
            request = supervision_pb.AwaitEndRequest(request_id=request_id)
            await self._connection.call(methods.AWAIT_END, request, timeout)
        except RpcError as error:
            raise self._failure(error) from None

    async def configure(self, initial: Level, controls: Controls) -> None:
        """Set what the worker records; `initial` is the level at its start.

        Returns when the worker has confirmed that, or after five seconds if it is too busy; then it follows later.
        """
        if self._telemetry is None:
            self._telemetry = WorkerTelemetryControls(self._connection, self._worker_id, initial)
        await self._telemetry.apply(controls)

    async def close(self) -> None:
        """Close the connection and cancel its calls."""
        if self._telemetry is not None:
            await self._telemetry.close()
        await self._connection.close()

    def _failure(self, error: RpcError) -> CallFailed:
        public = stream_error(error, f"worker {self._worker_id}")
        kind = CallFailed
        if error.code is StatusCode.DEADLINE_EXCEEDED:
            kind = CallTimedOut
        elif error.code in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED):
            kind = ConnectionLost
        described = error.details.startswith("{") and kind is CallFailed
        return kind(public, error.code.name, failure_in(error.details) if described else None)


def _headers(job: Job) -> list[tuple[str, str]] | None:
    if not isinstance(job.request, LargeRequest):
        return None
    # Large requests are passed on unparsed, so what the authority adds cannot stand in their own metadata.
    headers = [(methods.REQUEST_HEADER, job.request_id)]
    if job.request.metadata.get(methods.REFERENCES) == UNLISTED:
        headers.append((methods.REFERENCES_HEADER, UNLISTED))
    return headers
