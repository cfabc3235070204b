"""Tells the authority when nothing of a request runs in this worker any more."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc import aio

from snakepit_otel.bridge.proto import snakepit_supervision_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_supervision_pb2_grpc import SupervisionServiceServicer


class RunningRequests:
    """The requests of which something runs, by id; for the event loop's thread only."""

    def __init__(self) -> None:
        self._parts: dict[str, int] = {}
        self._awaited: dict[str, asyncio.Event] = {}

    def begin(self, request_id: str | None) -> None:
        """Note that a part of the request has begun; nobody can ask for one without an id."""
        if request_id is not None:
            self._parts[request_id] = self._parts.get(request_id, 0) + 1

    def end(self, request_id: str | None) -> None:
        """Note that a part of the request that had begun has ended."""
        if request_id is None:
            return
        left = self._parts.pop(request_id) - 1
        if left:
            self._parts[request_id] = left
        elif request_id in self._awaited:
            self._awaited.pop(request_id).set()

    def go_on(self, request_id: str | None, rest: asyncio.Future[Any]) -> None:
        """Note that the request runs at least until `rest` is done."""
        if not rest.done():
            self.begin(request_id)
            rest.add_done_callback(lambda _: self.end(request_id))

    async def wait_for_end(self, request_id: str) -> None:
        """Return once nothing of the request runs: at once if nothing does."""
        if request_id in self._parts:
            await self._awaited.setdefault(request_id, asyncio.Event()).wait()


class SupervisionService(SupervisionServiceServicer):
    """Serves the authority on the worker's own socket."""

    def __init__(self, running: RunningRequests) -> None:
        self._running = running

    async def AwaitEnd(
        self, request: pb.AwaitEndRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.AwaitEndResponse:
        """Answer when nothing of the request runs here any more."""
        await self._running.wait_for_end(request.request_id)
        return pb.AwaitEndResponse()
