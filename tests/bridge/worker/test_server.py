"""A worker's start and stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
from grpc import aio

from snakepit_otel import WorkerContext, compatibility
from snakepit_otel.adapters._adapter_loading import load_adapter, spec_of
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.worker.authority_client import AuthorityClient
from snakepit_otel.bridge.worker.server import WorkerServer
from snakepit_otel.errors import AdapterNotLoaded, AuthorityUnavailable, ConfigurationError, ToolRefused
from snakepit_otel.testing import Capture
from tests.bridge.elixir import Elixir
from tests.bridge.painting import Painting
from tests.bridge.parts import serving
from tests.waiting import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
NOT_AN_ADAPTER = f"{__name__}:Nothing"


class Nothing:
    """Has no tools."""


def new_worker(directory: Path, **more: Any) -> WorkerServer:
    """Return a worker that has not started."""
    settings: dict[str, Any] = {
        "adapter": spec_of(Painting),
        "listen": f"unix:{directory}/worker",
        "authority_address": f"unix:{directory}/authority",
        "worker_id": "worker-1",
    }
    return WorkerServer(**(settings | more))


async def stop(server: WorkerServer) -> None:
    """Stop a worker."""
    server.request_stop()
    await server.run_until_stopped()


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"adapter": "nowhere:Adapter"}, AdapterNotLoaded, "importing nowhere failed"),
        ({"adapter": NOT_AN_ADAPTER}, ToolRefused, "Nothing has no tools"),
        ({"listen": "0.0.0.0:0"}, ConfigurationError, "can be reached from other machines"),
    ],
)
async def test_what_will_not_do(short_path: Path, settings: dict[str, str], error: type[Exception], words: str) -> None:
    """A worker that cannot be started says why."""
    with pytest.raises(error, match=words):
        await new_worker(short_path, **settings).start()


async def test_it_knows_its_tools_and_address(short_path: Path) -> None:
    """After its start a worker has the names of its tools, and the address with the port it was given."""
    server = new_worker(short_path, listen="127.0.0.1:0")
    await server.start()
    assert "add" in server.tools
    async with aio.insecure_channel(server.address) as channel:
        assert (await BridgeServiceStub(channel).Ping(pb.PingRequest(message="x"))).message.endswith("x")
    await stop(server)


async def test_calls_in_flight_are_finished(short_path: Path) -> None:
    """A worker that is told to stop refuses new calls and finishes what it has, within its grace."""
    server = new_worker(short_path, grace=20.0)
    await server.start()
    async with aio.insecure_channel(server.address) as channel:
        stub = BridgeServiceStub(channel)
        running = asyncio.ensure_future(stub.ExecuteTool(pb.ExecuteToolRequest(tool_name="block")))
        await until(Painting.started.is_set)
        stopping = asyncio.ensure_future(stop(server))
        await until(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY)
        Painting.release.set()
        assert json.loads((await running).result.value) == "released"
        await stopping


class Hooked(Painting):
    """Notes what its hooks see."""

    seen: ClassVar[list[Any]] = []

    @classmethod
    def on_worker_start(cls, worker: WorkerContext) -> None:
        """Note the worker, which no pool has started."""
        cls.seen.append((worker.worker_id, worker.pool, worker.slot, worker.concurrency))

    @classmethod
    def on_worker_stop(cls) -> None:
        """Note whether the last request has ended."""
        cls.seen.append(cls.closed.is_set())


@pytest.mark.parametrize("load", [load_adapter, compatibility.load])
async def test_hooks_of_the_adapter(short_path: Path, capture: Capture, load: Callable[[str], type]) -> None:
    """They run around all calls, also in compatibility mode; the span of the first is in the trace of the start."""
    Hooked.seen.clear()
    parent = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    server = new_worker(short_path, adapter=spec_of(Hooked), started_by=parent, load=load, grace=0.05)
    await server.start()
    assert Hooked.seen == [("worker-1", None, None, 1)]
    async with aio.insecure_channel(server.address) as channel:
        running = asyncio.ensure_future(BridgeServiceStub(channel).ExecuteTool(pb.ExecuteToolRequest(tool_name="wait")))
        await until(Painting.started.is_set)
        await stop(server)
        with pytest.raises(aio.AioRpcError):
            await running
    assert Hooked.seen[1:] == [True]
    start, end = capture.spans("run worker hook")
    assert (start.trace_id, end.trace_id == TRACE) == (TRACE, False)
    assert start.attributes["snakepit.worker.hook.name"] == "on_worker_start"


async def test_calls_beyond_the_grace_are_cancelled(short_path: Path) -> None:
    """What is not done within the grace is cancelled, and the worker stops."""
    server = new_worker(short_path, grace=0.05)
    await server.start()
    async with aio.insecure_channel(server.address) as channel:
        running = asyncio.ensure_future(BridgeServiceStub(channel).ExecuteTool(pb.ExecuteToolRequest(tool_name="wait")))
        await until(Painting.started.is_set)
        await stop(server)
        with pytest.raises(aio.AioRpcError):
            await running
        await until(Painting.closed.is_set)


async def test_what_is_to_be_done_before_closing(short_path: Path) -> None:
    """Something may be done once the worker is told to stop, while it still serves."""
    server = new_worker(short_path)
    await server.start()
    seen = []

    async def before_closing() -> None:
        async with aio.insecure_channel(server.address) as channel:
            seen.append((await BridgeServiceStub(channel).Ping(pb.PingRequest(message="still"))).message)

    server.request_stop()
    await server.run_until_stopped(before_closing)
    assert seen == ["Pong from Python: still"]


async def test_waiting_for_the_authority(short_path: Path) -> None:
    """A worker may wait until its authority answers; it is pinged until it does."""
    link = AuthorityClient(f"unix:{short_path}/elixir")
    waiting = asyncio.ensure_future(link.wait_until_reachable())
    elixir = Elixir()
    async with serving(elixir, f"unix:{short_path}/elixir"):
        await waiting
    assert elixir.calls == ["Ping"]
    await link.close()


async def test_an_authority_that_never_answers(short_path: Path) -> None:
    """After so many tries the worker gives up, and the message has the address."""
    link = AuthorityClient(f"unix:{short_path}/nowhere")
    with pytest.raises(AuthorityUnavailable, match=f"answered .*Ping at unix:{short_path}/nowhere in 2 tries"):
        await link.wait_until_reachable(tries=2)
    await link.close()
