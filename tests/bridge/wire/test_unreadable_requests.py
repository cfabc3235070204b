"""Requests that are no messages are the caller's mistake, and are refused as that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from snakepit_otel import rpc
from snakepit_otel.bridge.proto import snakepit_admin_pb2 as pb
from snakepit_otel.bridge.wire.authority_services import ADMIN
from snakepit_otel.bridge.wire.buffer_service import BufferService
from snakepit_otel.bridge.wire.method_guards import guarded
from snakepit_otel.bridge.wire.services import BUFFERS
from snakepit_otel.rpc.addresses import listen
from snakepit_otel.rpc.transports.grpc import add_handlers
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from snakepit_otel.zero_copy._buffer_store import BufferStore
from tests.waiting import until

ADMIN_PATH = "/snakepit_otel.admin.AdminService"
JUNK = b"\xff\xff\xff"
METHODS = [
    ("unary_unary", f"{ADMIN_PATH}/ShowSession"),
    ("unary_stream", f"{ADMIN_PATH}/RestartWorkers"),
    ("unary_stream", "/snakepit_otel.buffers.BufferService/Read"),
    ("stream_unary", "/snakepit_otel.buffers.BufferService/Write"),
]


class Admin:
    """Counts what reaches it."""

    def __init__(self) -> None:
        self.reached = 0
        self.closed = asyncio.Event()

    async def ShowSession(self, request: Any, context: Any) -> pb.ShowSessionResponse:
        self.reached += 1
        return pb.ShowSessionResponse()

    async def RestartWorkers(self, request: Any, context: Any) -> None:
        self.reached += 1
        try:
            while True:
                await context.write(pb.Replacement(pool="a"))
        finally:
            self.closed.set()


@pytest.fixture
async def served(short_path: Path) -> AsyncIterator[tuple[Admin, aio.Channel]]:
    """A server, observed, and a channel to it."""
    admin, address = Admin(), f"unix:{short_path}/s"
    server = rpc.aio_server(interceptors=[rpc.ServerInterceptor()])
    add_handlers(server, guarded(ADMIN, admin))
    add_handlers(server, guarded(BUFFERS, BufferService(BufferStore())))
    listen(server, address)
    await server.start()
    try:
        async with rpc.aio_channel(address) as channel:
            yield admin, channel
    finally:
        await server.stop(None)


async def ended(channel: aio.Channel, kind: str, path: str, raw: bytes) -> aio.AioRpcError:
    """Return the error of a call with these bytes for a request."""
    call: Any = getattr(channel, kind)(path, request_serializer=None, response_deserializer=None)
    made = call(iter([raw]) if kind == "stream_unary" else raw)
    with pytest.raises(aio.AioRpcError) as raised:
        await (made.read() if kind == "unary_stream" else made)
    return raised.value


@pytest.mark.parametrize(("kind", "path"), METHODS, ids=[path.rpartition("/")[2] for _, path in METHODS])
async def test_junk_is_refused(
    served: tuple[Admin, aio.Channel], capture: Capture, caplog: pytest.LogCaptureFixture, kind: str, path: str
) -> None:
    """Junk gets INVALID_ARGUMENT and words, its span is no error of the server's, and no traceback is logged."""
    admin, channel = served
    with caplog.at_level(logging.INFO):
        error = await ended(channel, kind, path, JUNK)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "cannot be read" in (error.details() or "")
    assert admin.reached == 0
    assert caplog.records == []
    # The caller may have the status before the server's span has its end.
    (span,) = await until(lambda: capture.spans(path[1:]))
    assert span.attributes is not None
    assert span.attributes[names.RPC_RESPONSE_STATUS_CODE] == "INVALID_ARGUMENT"
    assert names.ERROR_TYPE not in span.attributes


async def test_what_can_be_read_is_served(served: tuple[Admin, aio.Channel]) -> None:
    """Messages reach their handlers, and a stream that its reader leaves ends in its handler."""
    admin, channel = served
    show: Any = channel.unary_unary(f"{ADMIN_PATH}/ShowSession", request_serializer=None, response_deserializer=None)
    assert await show(b"") == b""
    restart: Any = channel.unary_stream(f"{ADMIN_PATH}/RestartWorkers", response_deserializer=pb.Replacement.FromString)
    call = restart(b"")
    assert (await call.read()).pool == "a"
    call.cancel()
    async with asyncio.timeout(10):
        await admin.closed.wait()
    assert admin.reached == 2
