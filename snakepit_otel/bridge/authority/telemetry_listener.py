"""Listener to the events of workers that export no OpenTelemetry by themselves: upstream's StreamTelemetry."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from snakepit_otel import rpc
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.common.backoff import Backoff
from snakepit_otel.common.guard import guard
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.telemetry._foreign_events import ForeignEventRecorder, count_refused

_log = logging.getLogger("snakepit_otel.authority")
_ON = (pb.TelemetryControl(toggle=pb.TelemetryToggle(enabled=True)),)
_MAX_EVENT_BYTES = 1 << 20
_MAX_EVENTS_PER_SECOND = 5_000  # of one worker; more wait in its buffer


class TelemetryListener:
    """Passes the events of one worker to `recorder`, for as long as the worker runs; an async context manager.

    `controls` are sent whenever the stream begins; when it breaks, it begins again after a wait that grows. A worker
    has one listener at a time: a new one takes the place of the one before. `address` is the worker's, `unix:PATH` or
    `HOST:PORT`.
    """

    def __init__(
        self,
        address: str,
        *,
        recorder: ForeignEventRecorder,
        controls: Iterable[pb.TelemetryControl] = _ON,
        worker_id: str = "",
        pause: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        # The listener decides how long to wait, and not the channel, which would wait two minutes in the end.
        options = [("grpc.max_receive_message_length", _MAX_EVENT_BYTES), ("grpc.max_reconnect_backoff_ms", 1_000)]
        self._channel = rpc.aio_channel(address, options=options)
        self._stub = BridgeServiceStub(self._channel)
        self._recorder = recorder
        self._controls = tuple(controls)
        self._worker_id = worker_id
        self._pause = pause
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def start(self) -> None:
        """Begin to listen."""
        # In a context of its own: events belong to no request of the caller.
        self._task = asyncio.get_running_loop().create_task(
            self._keep_listening(), name=f"listener to {self._worker_id}", context=contextvars.Context()
        )

    async def close(self) -> None:
        """Leave the worker, which then records as it was configured to."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._channel.close()

    def set_controls(self, controls: Iterable[pb.TelemetryControl]) -> None:
        """Replace the controls, and send them: now, or as soon as the worker can be reached."""
        self._controls = tuple(controls)
        self._changed.set()

    @property
    def _ended(self) -> bool:
        return self._task is None or self._task.done()

    async def _keep_listening(self) -> None:
        backoff = Backoff()
        while True:
            started = time.monotonic()
            with guard(f"listening to worker {self._worker_id}", _log):
                try:
                    await self._listen()
                except aio.AioRpcError as error:
                    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                        _log.warning("worker %s has no telemetry stream, so no events", printable(self._worker_id))
                        return
                    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                        count_refused("too_large")
                    _log.debug(
                        "the telemetry stream of worker %s broke: %s",
                        printable(self._worker_id),
                        printable(error.details(), MAX_MESSAGE_CHARACTERS),
                    )
                except DecodeError as error:
                    count_refused("too_large")
                    _log.debug(
                        "an event of worker %s cannot be read: %s",
                        printable(self._worker_id),
                        printable(error, MAX_MESSAGE_CHARACTERS),
                    )
            # gRPC reports the end of a call in place of a cancellation that comes at the same moment.
            if self._closing:
                return
            await self._pause(backoff.after(time.monotonic() - started))

    async def _listen(self) -> None:
        call = self._stub.StreamTelemetry()
        sending = asyncio.ensure_future(self._send(call))
        try:
            read, since = 0, time.monotonic()
            while (event := await call.read()) is not aio.EOF:
                self._recorder.record_message(event, self._worker_id)
                read += 1
                if read == _MAX_EVENTS_PER_SECOND:
                    await self._pause(max(0.0, since + 1 - time.monotonic()))
                    read, since = 0, time.monotonic()
        finally:
            sending.cancel()
            call.cancel()
            await asyncio.wait([sending])
            if not sending.cancelled():
                # Retrieved only: reading fails for the same reason.
                sending.exception()

    async def _send(self, call: Any) -> None:
        while True:
            self._changed.clear()
            for control in self._controls:
                await call.write(control)
            if call.done():
                return
            await self._changed.wait()
