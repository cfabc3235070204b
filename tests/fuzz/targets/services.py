"""Whole messages: real servers in this process, each with all its services, called with any bytes."""

from __future__ import annotations

import asyncio
import atexit
import gc
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass
from grpc import aio

from snakepit_otel import BaseAdapter, rpc, tool
from snakepit_otel.adapters._lifecycle import AdapterHost
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.bridge.authority.admin_service import AdminService
from snakepit_otel.bridge.authority.dispatcher import Dispatcher
from snakepit_otel.bridge.authority.lease_service import LeaseService
from snakepit_otel.bridge.authority.service import AuthorityService, authority_limits
from snakepit_otel.bridge.authority.state_tools import STATE_TOOLS
from snakepit_otel.bridge.authority.tool_registry import ToolRegistry
from snakepit_otel.bridge.proto import (
    snakepit_admin_pb2,
    snakepit_bridge_pb2,
    snakepit_buffers_pb2,
    snakepit_leases_pb2,
    snakepit_supervision_pb2,
)
from snakepit_otel.bridge.wire import methods
from snakepit_otel.bridge.wire.authority_services import ADMIN, LEASES
from snakepit_otel.bridge.wire.buffer_service import BufferService
from snakepit_otel.bridge.wire.method_guards import Limit, guarded
from snakepit_otel.bridge.wire.restart_report import RestartReport
from snakepit_otel.bridge.wire.services import BRIDGE, BUFFERS, SUPERVISION
from snakepit_otel.bridge.wire.status import Status
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.bridge.worker.authority_client import AuthorityClient
from snakepit_otel.bridge.worker.service import WorkerService, worker_limits
from snakepit_otel.bridge.worker.supervision import RunningRequests, SupervisionService
from snakepit_otel.bridge.worker.telemetry_stream import TelemetryStream
from snakepit_otel.rpc.addresses import listen, options
from snakepit_otel.rpc.services import Methods
from snakepit_otel.rpc.transports.grpc import add_handlers
from snakepit_otel.sessions import SessionStore
from snakepit_otel.zero_copy._buffer_store import BufferStore
from tests.bridge.parts import OneWorker, closing
from tests.fuzz.choices import Choices
from tests.fuzz.kit import insist, target
from tests.fuzz.targets.references import form

_LARGEST = 1 << 20
_IN_TIME = 10.0
_MOST_CALLS, _MOST_MESSAGES = 5, 4
_DETAILS = 8 << 10
_SESSIONS = ("s", "t", "", "x" * 257, "a\nb", "é")
_TOOLS = ("echo", "raises", "reads", "chunks", "state_set", "state_get", "state_update", "nothing", "\x1b[2J")
_JSON = (
    '{"a": [1, 2.5, null]}',
    '"text"',
    "NaN",
    "[" * 900,
    '{"__snakepit_zero_copy__": true}',
    "1" * 400,
    "",
    "\n\x01a",
)
_URLS = tuple(
    f"type.googleapis.com/{kind}"
    for kind in (
        "google.protobuf.StringValue",
        "google.protobuf.Value",
        "snakepit.float",
        "snakepit.pickle.binary",
        "x",
    )
)


class Echo(BaseAdapter):
    """Gives back, raises, and reads what it is given."""

    @tool
    def echo(self, value: Any = None) -> Any:
        """Return it."""
        return value

    @tool
    def raises(self, value: Any = None) -> None:
        """Raise it."""
        raise ValueError(value)

    @tool
    def reads(self, key: str = "a") -> Any:
        """Return a part of the session's state."""
        return self.session_context.state.get(key)

    @tool(supports_streaming=True)
    def chunks(self, value: Any = None) -> Any:
        """Yield it twice."""
        yield value
        yield value


@dataclass(frozen=True)
class _Method:
    path: str
    kind: str
    request: Any
    endless: bool = False
    """Whether the server ends it only with its client."""


def _methods(file: Any, only: str = "") -> Iterable[_Method]:
    for service in file.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            described: Any = Default().FindMethodByName(method.full_name)
            sides = ["unary", "stream"]
            kind = f"{sides[described.client_streaming]}_{sides[described.server_streaming]}"
            path = f"/{service.full_name}/{method.name}"
            if only in path:
                yield _Method(path, kind, GetMessageClass(method.input_type), method.name == "StreamTelemetry")


OF_AUTHORITY = [
    method
    for file in (snakepit_bridge_pb2, snakepit_buffers_pb2, snakepit_leases_pb2, snakepit_admin_pb2)
    for method in _methods(file)
    if not method.endless
]
OF_WORKER = [
    method
    for file in (snakepit_bridge_pb2, snakepit_buffers_pb2, snakepit_supervision_pb2)
    for method in _methods(file)
]


class _Servers:
    """An authority with a worker, both in this process, and what they keep."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.faults: list[str] = []
        self.loop.set_exception_handler(self._note)
        self._running = AsyncExitStack()
        self.loop.run_until_complete(self._start())

    def _note(self, _loop: Any, context: dict[str, Any]) -> None:
        self.faults.append(f"{context.get('message')}: {context.get('exception')!r}")

    async def _start(self) -> None:
        enter = self._running.enter_async_context
        directory = Path(self._running.enter_context(tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp")))
        ours, theirs = f"unix:{directory}/authority", f"unix:{directory}/worker"
        self.sessions, self.tools, self.buffer_store = SessionStore(), ToolRegistry(STATE_TOOLS), BufferStore()
        self._running.callback(self.buffer_store.close)
        pool = OneWorker(theirs)
        dispatcher = Dispatcher(self.sessions, self.tools, pool, self.buffer_store)
        self.authority = AuthorityService(dispatcher)
        admin = AdminService(self.sessions, set_telemetry=_set_telemetry, status=_status, restart=_restart)
        await self._serve(
            ours,
            authority_limits(_LARGEST, self.sessions.settings.max_session_bytes),
            (BRIDGE, self.authority),
            (BUFFERS, BufferService(self.buffer_store, _LARGEST)),
            (LEASES, LeaseService(self.sessions)),
            (ADMIN, admin),
        )
        threads, running = ToolThreads(1), RunningRequests()
        link = AuthorityClient(ours, max_message_bytes=_LARGEST, worker_id="worker-1", token=None)
        self._running.push_async_callback(link.close)
        self._running.callback(threads.close)
        service = WorkerService(
            AdapterHost(Echo, threads, []), link, worker_id="worker-1", running=running, events=TelemetryStream()
        )
        await self._serve(
            theirs,
            worker_limits(_LARGEST),
            (BRIDGE, service),
            (BUFFERS, BufferService(BufferStore(), _LARGEST)),
            (SUPERVISION, SupervisionService(running)),
        )
        await enter(closing(pool.connection))
        self.channels = [await enter(rpc.aio_channel(address, options=options(_LARGEST))) for address in (ours, theirs)]

    async def _serve(self, address: str, limits: Mapping[str, Limit], *services: tuple[Methods, object]) -> None:
        server = rpc.aio_server(interceptors=[rpc.ServerInterceptor()], options=options(_LARGEST))
        for of_service, service in services:
            add_handlers(server, guarded(of_service, service, limits))
        listen(server, address)
        await server.start()
        self._running.push_async_callback(server.stop, None)

    async def tidy(self) -> None:
        """Delete what a run has left, and see that the books are right."""
        for session in await self.sessions.list():
            await self.sessions.delete(session.id)
            self.tools.forget(session.id)
        stats = await self.sessions.stats()
        gone = stats.deleted + stats.pruned_ttl + stats.pruned_overflow
        insist(stats.live == 0 and stats.created == gone, "the ledger is wrong:", stats)
        for scope in list(self.buffer_store._requests.values()):
            self.buffer_store._close(scope, "request_end")
        for held in list(self.buffer_store._stored.values()):
            self.buffer_store._remove(held)

    def close(self) -> None:
        """Stop both."""
        self.loop.run_until_complete(self._running.aclose())
        self.loop.run_until_complete(asyncio.sleep(0.05))
        self.loop.close()


async def _set_telemetry(**changes: Any) -> Controls:
    return Controls().changed(**changes)


async def _status() -> Status:
    return Status(version="1", run_id="r", pid=1, uptime_seconds=1.0)


async def _restart(_pool: str | None, _report: Any) -> RestartReport:
    return RestartReport(())


_alive: list[_Servers] = []


def close() -> None:
    """Stop the servers, if they run."""
    while _alive:
        _alive.pop().close()
        gc.collect()


def _running() -> _Servers:
    if not _alive:
        _alive.append(_Servers())
        atexit.register(close)
    return _alive[0]


@target(steps=None, largest=16_384)
def messages(data: bytes) -> None:
    """Any bytes to any method of any service are answered in time with a documented status."""
    choices = Choices(data)
    raw = data[3:]

    def bodies(_: _Method) -> list[bytes]:
        return [raw] if not choices.chance() else [raw[: len(raw) // 2], raw[len(raw) // 2 :]]

    _run([_call(choices, bodies)])


@target(steps=None, largest=8_192)
def conversations(data: bytes) -> None:
    """Several well-formed messages with any fields, one after the other, leave books that are right."""
    choices = Choices(data)

    def bodies(method: _Method) -> list[bytes]:
        return [_message(choices, method).SerializeToString() for _ in range(1 + choices.below(_MOST_MESSAGES))]

    _run([_call(choices, bodies) for _ in range(1 + choices.below(_MOST_CALLS))])


def _message(choices: Choices, method: _Method) -> Any:
    """Return a request whose fields are about to be right."""
    message = choices.fill(method.request())
    fields = method.request.DESCRIPTOR.fields_by_name
    if "session_id" in fields and choices.below(8):
        message.session_id = choices.pick(_SESSIONS)
    if "tool_name" in fields and choices.below(8):
        message.tool_name = choices.pick(_TOOLS)
    if "parameters" in fields and fields["parameters"].message_type.GetOptions().map_entry:
        for _ in range(choices.below(3)):
            message.parameters[choices.pick(["value", "key", "default", "x"])].CopyFrom(_any(choices))
    if "metadata" in fields and choices.chance(4):
        key = choices.pick(
            [
                "timeout_ms",
                "snakepit_request_id",
                "snakepit_pool",
                "correlation_id",
                "thread_sensitive",
                "snakepit_references",
            ]
        )
        message.metadata[key] = choices.pick(["1000", "1", "x", "true", "0" * 32, "*"])
    if "reference" in fields and choices.chance():
        with suppress(TypeError, ValueError):
            message.reference = json.dumps(form(choices)).encode()
    return message


def _any(choices: Choices) -> AnyMessage:
    if choices.chance(4):
        value = json.dumps({"a": [form(choices)]})
    else:
        value = choices.pick(_JSON) if choices.chance() else json.dumps(choices.json())
    return AnyMessage(type_url=choices.pick(_URLS), value=value.encode("utf-8", "replace"))


@dataclass(frozen=True)
class _Call:
    worker: bool
    method: _Method
    bodies: list[bytes]
    headers: tuple[tuple[str, str], ...]


def _call(choices: Choices, bodies: Callable[[_Method], list[bytes]]) -> _Call:
    worker = choices.chance()
    method = choices.pick(OF_WORKER if worker else OF_AUTHORITY)
    headers = []
    for _ in range(choices.below(3)):
        name = choices.pick(
            [methods.TTL_HEADER, methods.OWNER_HEADER, methods.CALL_SITE_HEADER, "traceparent", "baggage"]
        )
        value = choices.pick(["60", "nan", "%1b%5b2J", "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "a=1", "x" * 300])
        headers.append((name, value))
    return _Call(worker, method, bodies(method), tuple(headers))


def _run(calls: list[_Call]) -> None:
    servers = _running()
    try:
        servers.loop.run_until_complete(_make(servers, calls))
    finally:
        servers.loop.run_until_complete(servers.tidy())
    faults, servers.faults = servers.faults, []
    insist(not faults, "a task failed:", faults)


async def _make(servers: _Servers, calls: list[_Call]) -> None:
    for call in calls:
        code, details = await _made(servers.channels[call.worker], call)
        where = f"{call.method.path}: {code.name}: {details!r:.200}"
        insist(code is not grpc.StatusCode.UNKNOWN, "an error without a status:", where)
        insist(code is not grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time:", where)
        unexpected = "Unexpected" in details and code is not grpc.StatusCode.UNIMPLEMENTED
        insist("Exception iterating" not in details and not unexpected, "an error of ours:", where)
        insist(len(details.encode()) <= _DETAILS, f"{len(details):,} characters of details:", where)


async def _made(channel: Any, call: _Call) -> tuple[grpc.StatusCode, str]:
    """Make a call, and return how it ended."""
    method = call.method
    stub = getattr(channel, method.kind)(method.path, request_serializer=None, response_deserializer=None)
    how = {"timeout": _IN_TIME, "metadata": call.headers}
    try:
        if method.kind == "unary_unary":
            await stub(call.bodies[0], **how)
        elif method.kind == "unary_stream":
            async for _ in stub(call.bodies[0], **how):
                pass
        elif method.kind == "stream_unary":
            await stub(iter(call.bodies), **how)
        else:
            await _talk(stub(**how), call)
    except aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


async def _talk(call: Any, about: _Call) -> None:
    for body in about.bodies:
        await call.write(body)
    await call.done_writing()
    if about.method.endless:
        # It has been read by the time that the next call is answered.
        call.cancel()
        return
    while await call.read() is not aio.EOF:
        pass
    code = await call.code()
    if code is not grpc.StatusCode.OK:
        raise aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), await call.details())
