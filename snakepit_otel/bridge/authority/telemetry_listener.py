"""The authority's end of StreamTelemetry: what a worker is to record, and the events it sends."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from snakepit_otel import rpc
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.wire import methods
from snakepit_otel.bridge.worker.telemetry_stream import RECEIPT
from snakepit_otel.common.backoff import Backoff
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.telemetry._foreign_events import EventFold, refuse

_log = logging.getLogger("snakepit_otel.authority")
_ON = (pb.TelemetryControl(toggle=pb.TelemetryToggle(enabled=True)),)
_MAX_EVENT_BYTES = 1 << 20
_MOST_EVENTS = 5_000
"""Events of one worker that are read in a second. Those that it has more of wait with it, as far as it lets them."""


class TelemetryListener:
    """Listens to one worker, ours or upstream's, for as long as it runs; an async context manager.

    With a `fold` the worker's events become OpenTelemetry: for workers that do not export by themselves.
    Without one no events are wanted, and a worker of ours makes none. `controls` are sent whenever the
    stream begins; it begins again, after a wait that grows, when it breaks. A worker has one listener at a
    time: the newcomer takes the place of the one before.

    `worker` is where the worker listens, `unix:PATH` or `HOST:PORT`, or a stub to call it by. `pause` is how
    to wait.
    """

    def __init__(
        self,
        worker: Any,
        *,
        fold: EventFold | None = None,
        controls: Iterable[pb.TelemetryControl] = _ON,
        worker_id: str = "",
        pause: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._channel: aio.Channel | None = None
        if isinstance(worker, str):
            # How long to wait is decided here, and not by the channel, which would wait two minutes in the end.
            options = [
                ("grpc.max_receive_message_length", _MAX_EVENT_BYTES),
                ("grpc.max_reconnect_backoff_ms", 1_000),
            ]
            self._channel = rpc.aio_channel(worker, options=options)
            worker = BridgeServiceStub(self._channel)
        self._stub = worker
        self._fold = fold
        self._controls = tuple(controls)
        self._worker_id = worker_id
        self._pause = pause
        self._told = asyncio.Event()
        self._settled = asyncio.Event()
        self._sent = 0
        self._all_sent = False
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def start(self) -> None:
        """Begin to listen."""
        # In a context of its own: what is heard belongs to no request of whoever starts this.
        self._task = asyncio.get_running_loop().create_task(
            self._keep_listening(), name=f"listener to {self._worker_id}", context=contextvars.Context()
        )

    async def close(self) -> None:
        """Leave the worker, which then records as it was configured to."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._settled.set()
        if self._channel is not None:
            await self._channel.close()

    async def tell(self, controls: Iterable[pb.TelemetryControl], timeout: float = 5.0) -> bool:
        """Send controls, in place of those before; say whether the worker has told that it obeys them.

        Without a fold this waits for a worker of ours to tell, for `timeout` seconds at most. Others never
        tell, and with a fold nothing is waited for. Controls that cannot be sent now are sent as soon as
        the worker can be reached.
        """
        self._controls = tuple(controls)
        self._all_sent = False
        self._settled.clear()
        self._told.set()
        if self._fold is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), timeout)
        return self._settled.is_set() and not self._ended

    @property
    def _ended(self) -> bool:
        return self._task is None or self._task.done()

    async def _keep_listening(self) -> None:
        backoff = Backoff()
        while True:
            started = time.monotonic()
            try:
                await self._listen()
            except aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    _log.warning("worker %s has no telemetry stream; it is not listened to", printable(self._worker_id))
                    self._settled.set()
                    return
                if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and self._fold is not None:
                    refuse("too_large")
                _log.debug(
                    "the telemetry stream of worker %s broke: %s",
                    printable(self._worker_id),
                    printable(error.details(), MAX_MESSAGE_CHARACTERS),
                )
            except DecodeError as error:
                refuse("too_large")
                _log.debug(
                    "an event of worker %s cannot be read: %s",
                    printable(self._worker_id),
                    printable(error, MAX_MESSAGE_CHARACTERS),
                )
            except Exception:  # noqa: BLE001 - nothing that goes wrong with one stream ends the listening
                _log.exception("listening to worker %s failed; it is tried again", printable(self._worker_id))
            # gRPC reports the end of a call in place of a cancellation that comes at the same moment.
            if self._closing:
                return
            await self._pause(backoff.after(time.monotonic() - started))

    async def _listen(self) -> None:
        headers = ((methods.CONTROL_ONLY_HEADER, "true"),) if self._fold is None else None
        call = self._stub.StreamTelemetry(metadata=headers)
        self._sent, self._all_sent = 0, False
        sending = asyncio.ensure_future(self._send(call))
        try:
            read, since = 0, time.monotonic()
            while (event := await call.read()) is not aio.EOF:
                self._hear(event)
                read += 1
                if read == _MOST_EVENTS:
                    await self._pause(max(0.0, since + 1 - time.monotonic()))
                    read, since = 0, time.monotonic()
        finally:
            sending.cancel()
            call.cancel()
            await asyncio.wait([sending])
            if not sending.cancelled():
                # What went wrong with sending goes wrong with reading, too.
                sending.exception()

    async def _send(self, call: Any) -> None:
        while True:
            self._told.clear()
            controls = self._controls
            self._sent += len(controls)
            self._all_sent = True
            for control in controls:
                await call.write(control)
            if call.done():
                return
            await self._told.wait()

    def _hear(self, event: pb.TelemetryEvent) -> None:
        if self._fold is not None:
            self._fold.take(event, self._worker_id)
        elif self._all_sent and _receipt(event) >= self._sent:
            self._settled.set()


def _receipt(event: pb.TelemetryEvent) -> int:
    """Return how many controls the worker says that it has obeyed; -1 if it says no such thing."""
    if tuple(event.event_parts) != RECEIPT or "count" not in event.measurements:
        return -1
    return int(event.measurements["count"].int_value)
