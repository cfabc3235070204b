"""Elixir Snakepits, each with two workers under a steady load: upstream's Python workers, or ours in their place."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from itertools import count, cycle
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.cli.elixir import SCRIPT
from tests.bridge.elixir import Context
from tests.dashboards.proof.deployment import NAMESPACE
from tests.dashboards.proof.pace import EXPORT_SECONDS
from tests.instrumentation.elixir import ElixirSnakepit
from tests.instrumentation.upstream import PROJECT, Upstream, find

UPSTREAMS, OURS = "elixir-upstream", "elixir-ours"

_EVERY = 0.4
"""Seconds from one request of a worker to its next."""
_LATE = "too-late"
_NOTHING_OF_UPSTREAMS = Upstream(root=PROJECT, python_path=(), real=False)
_FOR_UPSTREAMS = "tests.dashboards.proof.upstream_adapter"
_FOR_OURS = "tests.dashboards.proof.adapter.UnderElixir"
_SHARED = {
    "__snakepit_zero_copy__": True,
    "kind": "dlpack",
    "device": "cpu",
    "dtype": "float32",
    "shape": [256],
    "owner": "elixir",
    "ref": "of-elixir",
    "copy": False,
    "bytes": 1024,
}
Requests = list[Callable[[], Awaitable[Any]]]


class _Side(ElixirSnakepit):
    """Elixir's side and one worker; it is late for one session."""

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        """Describe a session."""
        if request.session_id == _LATE:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "it took too long to find out")
        return await super().GetSession(request, context)


class Elixir:
    """A service whose telemetry is that of its workers alone."""

    def __init__(self, name: str, workers: list[tuple[_Side, Callable[[_Side], Requests]]]) -> None:
        self.name = name
        self._workers = workers

    async def start(self) -> None:
        """Start the workers, and return when they serve."""
        await asyncio.gather(*(side.__aenter__() for side, _ in self._workers))

    async def stop(self) -> None:
        """Have them end as they should, or else end them."""
        await asyncio.gather(*(side.close() for side, _ in self._workers))

    async def live(self, until_told: asyncio.Event) -> None:
        """Make requests until told to end; what becomes of one does not matter, but that there are any does."""
        await asyncio.gather(*(self._live(side, requests(side), until_told) for side, requests in self._workers))

    async def _live(self, side: _Side, requests: Requests, until_told: asyncio.Event) -> None:
        for request in cycle(requests):
            if until_told.is_set():
                return
            try:
                await request()
            except aio.AioRpcError as error:
                if side.exit_status is not None:
                    error.add_note(f"a worker of {self.name} has ended with {side.exit_status}; it said:\n{side.said}")
                    raise
            await asyncio.sleep(_EVERY)


def upstreams(folder: Path, otlp: str) -> Elixir:
    """Return an Elixir with both of upstream's servers, as `opentelemetry-instrument` starts them."""
    upstream = find()
    instrument = [Path(sys.executable).with_name("opentelemetry-instrument"), sys.executable]

    def side(threaded: bool, adapter: str, *arguments: str) -> _Side:
        command = [*instrument, upstream.server_script(threaded)]
        return _side(UPSTREAMS, command, f"{_FOR_UPSTREAMS}.{adapter}", folder, otlp, arguments, upstream)

    plain, threaded = side(False, "Everyday"), side(True, "ThreadedEveryday", "--max-workers", "4")
    return Elixir(UPSTREAMS, [(plain, _everyday), (threaded, _everyday)])


def ours(folder: Path, otlp: str) -> Elixir:
    """Return an Elixir with our workers in upstream's place: one has the same adapter, the other an adapter of ours."""

    def side(adapter: str, *arguments: str) -> _Side:
        return _side(OURS, [sys.executable, SCRIPT], adapter, folder, otlp, arguments, _NOTHING_OF_UPSTREAMS)

    theirs = side(f"{_FOR_UPSTREAMS}.Everyday", "--snakepit-bridge")
    return Elixir(OURS, [(theirs, _everyday), (side(_FOR_OURS), _under_elixir)])


def _side(
    name: str,
    command: list[str | Path],
    adapter: str,
    folder: Path,
    otlp: str,
    arguments: tuple[str, ...],
    upstream: Upstream,
) -> _Side:
    return _Side(
        command,
        adapter,
        folder / name,
        adapter_args=arguments,
        upstream=upstream,
        environ={
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
            "OTEL_SERVICE_NAME": name,
            "OTEL_RESOURCE_ATTRIBUTES": f"service.namespace={NAMESPACE}",
            "OTEL_METRIC_EXPORT_INTERVAL": str(int(EXPORT_SECONDS * 1000)),
            # Little at a time, because the queues of the proof's collector are short.
            "OTEL_BSP_SCHEDULE_DELAY": "500",
        },
        # A busy machine must not be taken for an Elixir that has died.
        heartbeat={"dependent": False},
        tools={"add": lambda a, b: a + b},
    )


def _everyday(side: _Side) -> Requests:
    """Return what an adapter of `upstream_adapter` is asked for."""
    return [
        lambda: side.execute("echo", {"value": 1}, in_session="caller-1"),
        lambda: side.execute("rest", {"seconds": 0.01}),
        lambda: side.chunks("count", {"to": 3}),
        lambda: side.chunks("count", {"to": 3, "fail_at": 2}),
        lambda: side.execute("fail"),
        lambda: side.execute("ask", {"name": "add", "parameters": {"a": 1, "b": 2}}),
        lambda: side.execute("ask", {"name": "nobody"}),
        lambda: side.execute("emit"),
        lambda: side.execute("emit", {"words": "no"}),
        lambda: side.execute("tell"),
        lambda: side.execute("make_reference"),
        lambda: side.execute("give_back", {"reference": _SHARED}),
        # Fewer than those that are shared: more than half of them would be worth an alert.
        lambda: side.execute("give_back", {"reference": {**_SHARED, "copy": True}}),
        *_about_sessions(side),
    ]


def _under_elixir(side: _Side) -> Requests:
    """Return what the adapter of ours is asked for."""
    return [
        lambda: side.execute("echo", {"value": 1}, in_session="caller-1"),
        lambda: side.chunks("numbers", {"to": 3}),
        lambda: side.execute("fail"),
        lambda: side.execute("ask", {"name": "add"}),
        lambda: side.execute("ask", {"name": "nobody"}),
        lambda: side.execute("make_a_mess"),
        lambda: side.execute("lend"),
        *_about_sessions(side),
    ]


def _about_sessions(side: _Side) -> Requests:
    """Return what every worker is asked for, and what it does not get in time."""
    numbers = count()

    async def a_guest() -> None:
        session = f"guest-{next(numbers)}"
        await side.initialize(session)
        await side.heartbeat(session)
        await side.get_session(session)
        await side.execute("echo", {"value": 1}, session_id=session)
        await side.cleanup_session(session)

    return [
        side.ping,
        a_guest,
        lambda: side.get_session("nobody"),
        lambda: side.get_session(_LATE),
        lambda: side.execute("work", {"seconds": 0.2}, timeout=0.1),
    ]
