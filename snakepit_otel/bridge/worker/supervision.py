"""Service for the authority that started this worker: the end of requests, and telemetry controls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from snakepit_otel.bridge.proto import snakepit_supervision_pb2 as pb
from snakepit_otel.bridge.wire.telemetry_patterns import checked
from snakepit_otel.common.printable import printable_error
from snakepit_otel.errors import ValueRefused
from snakepit_otel.rpc.status import StatusCode
from snakepit_otel.rpc.transports.base import CallContext as Context
from snakepit_otel.telemetry import Level, _controls


class RunningRequests:
    """Requests of which something runs, by id; for the event loop's thread only."""

    def __init__(self) -> None:
        self._parts: dict[str, int] = {}
        self._awaited: dict[str, asyncio.Event] = {}

    def begin(self, request_id: str | None) -> None:
        """Count a part of the request that has begun; a request without an id has no awaited end."""
        if request_id is not None:
            self._parts[request_id] = self._parts.get(request_id, 0) + 1

    def end(self, request_id: str | None) -> None:
        """Count a part of the request that has ended."""
        if request_id is None:
            return
        left = self._parts.pop(request_id) - 1
        if left:
            self._parts[request_id] = left
        elif request_id in self._awaited:
            self._awaited.pop(request_id).set()

    def add_work(self, request_id: str | None, work: asyncio.Future[Any]) -> None:
        """Let the request run at least until `work` is done."""
        if not work.done():
            self.begin(request_id)
            work.add_done_callback(lambda _: self.end(request_id))

    async def wait_for_end(self, request_id: str) -> None:
        """Return once nothing of the request runs: at once if nothing does."""
        if request_id in self._parts:
            await self._awaited.setdefault(request_id, asyncio.Event()).wait()


class SupervisionService:
    """Serves the authority on the worker's own socket; `set_strict` switches the strict mode of references."""

    def __init__(self, running: RunningRequests, set_strict: Callable[[bool], None] = lambda _: None) -> None:
        self._running = running
        self._set_strict = set_strict
        self._is_off = _controls.current().level is Level.OFF

    async def AwaitEnd(self, request: pb.AwaitEndRequest, context: Context) -> pb.AwaitEndResponse:
        """Answer when nothing of the request runs here any more."""
        await self._running.wait_for_end(request.request_id)
        return pb.AwaitEndResponse()

    async def SetTelemetry(self, request: pb.SetTelemetryRequest, context: Context) -> pb.SetTelemetryResponse:
        """Record what the controls allow from now on, until the worker ends."""
        try:
            if not 0 <= request.sampling <= 1:
                raise ValueRefused(f"sampling is {request.sampling}; it must be from 0 to 1")
            controls = _controls.ControlState(
                Level(request.level), request.sampling, checked(request.allow), checked(request.deny)
            )
        except (ValueError, ValueRefused) as error:
            await context.abort(StatusCode.INVALID_ARGUMENT, printable_error(error))
        # A worker that was started off has set up nothing that could be turned up.
        if not self._is_off:
            _controls.apply(controls)
        if request.HasField("strict_mode"):
            self._set_strict(request.strict_mode)
        return pb.SetTelemetryResponse()
