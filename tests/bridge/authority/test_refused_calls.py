"""Calls that are refused leave nothing behind for the collector of cycles, which comes when it likes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from snakepit_otel import rpc
from snakepit_otel.bridge.authority.admission import AdmissionInterceptor
from snakepit_otel.bridge.authority.byte_budget import Budget
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceServicer, BridgeServiceStub
from snakepit_otel.bridge.wire.services import BRIDGE
from snakepit_otel.errors import InvalidSession
from snakepit_otel.rpc.addresses import listen
from snakepit_otel.rpc.services import handlers_of
from snakepit_otel.rpc.transports.grpc import add_handlers
from tests.waiting import until


class Large:
    """What stands for a message."""


class Refusing(BridgeServiceServicer):
    """Refuses every call, and knows what its frames had."""

    def __init__(self) -> None:
        self.had: list[weakref.ref[Large]] = []

    async def Ping(self, request: pb.PingRequest, context: Any) -> Any:
        """Refuse, because of an error that another frame has raised."""
        large = Large()
        self.had.append(weakref.ref(large))
        try:
            self._check(large)
        except InvalidSession as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    def _check(self, large: Large) -> None:
        raise InvalidSession(f"{type(large).__name__} cannot be")


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Have no cycles collected for the length of a test."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("who", ["authority", "worker"])
async def test_a_refused_call_lets_go_of_its_message(short_path: Path, who: str) -> None:
    """The frames of a call that was aborted are gone once it is answered, and the caller gets the status."""
    service = Refusing()
    admission = [AdmissionInterceptor(Budget())] if who == "authority" else []
    server = rpc.aio_server(interceptors=[rpc.ServerInterceptor(), *admission])
    add_handlers(server, handlers_of(BRIDGE, service))
    address = listen(server, f"unix:{short_path}/s")
    await server.start()
    async with rpc.aio_channel(address) as channel:
        for _ in range(3):
            with pytest.raises(aio.AioRpcError, match="Large cannot be") as raised:
                await BridgeServiceStub(channel).Ping(pb.PingRequest())
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    # By its first call a worker's interceptor gets to know a method.
    await until(lambda: len(service.had) == 3 and not any(one() for one in service.had[who == "worker" :]))
    await server.stop(None)
