"""A scripted Elixir Snakepit: it starts one worker as upstream's Elixir does, and talks with it in the same way."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue
from grpc import aio

from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import (
    BridgeServiceStub,
    add_BridgeServiceServicer_to_server,
)
from tests.bridge.elixir import Context, Elixir, encoded
from tests.bridge.parts import raw
from tests.instrumentation.upstream import PROJECT, Upstream, find
from tests.instrumentation.upstream import python_path as compose
from tests.waiting import until

CORRELATION = "x-snakepit-correlation-id"
HEARTBEAT = {
    "enabled": True,
    "interval_ms": 2000,
    "timeout_ms": 10_000,
    "max_missed_heartbeats": 3,
    "initial_delay_ms": 0,
    "dependent": True,
}
GRACE = 60.0
ELIXIRS_GRACE = 6.0
"""Seconds for a worker to end by itself, which are too few for one that has much to do on a busy machine."""
# Proxies are for the world outside; loopback must not go by them.
_OPTIONS = [
    ("grpc.max_send_message_length", 100 << 20),
    ("grpc.max_receive_message_length", 100 << 20),
    ("grpc.enable_http_proxy", 0),
]
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Answer:
    """What a worker said to ExecuteTool."""

    response: pb.ExecuteToolResponse
    correlation_id: str

    @property
    def ok(self) -> bool:
        """Whether the tool succeeded."""
        return self.response.success

    @property
    def value(self) -> Any:
        """What the tool returned, decoded as Elixir does: JSON, whatever the type's name."""
        assert self.ok, self.response.error_message
        return json.loads(self.response.result.value)

    @property
    def error(self) -> dict[str, Any]:
        """What the tool raised: type, message, stacktrace, traceback, context."""
        assert not self.ok, self.response
        error: dict[str, Any] = json.loads(self.response.error_message)
        return error


class ElixirSnakepit(Elixir):
    """Elixir's side and one worker of it: started at the beginning of the block, stopped at its end.

    `calls`, `last`, `headers`, `sessions` and `registered` say what the worker asked (see `Elixir`); `metadata` has
    the headers of every call, in order; `events` what came over the telemetry stream. Tools are given by name.
    Upstream's Elixir listens for five seconds, and never again; this one for `telemetry_timeout`, by default for ever.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        adapter: str,
        directory: Path,
        *,
        adapter_args: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        upstream: Upstream | None = None,
        cwd: Path | None = None,
        heartbeat: Mapping[str, Any] | None = None,
        log_level: str = "error",
        process_group: bool = True,
        listen_telemetry: bool = True,
        telemetry_timeout: float | None = None,
        tools: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        super().__init__(**(tools or {}))
        self._command = [str(part) for part in command]
        self._arguments = ["--adapter", adapter, *adapter_args]
        self._directory = directory
        self._environ = dict(environ or {})
        self._upstream = upstream or find()
        self._heartbeat = {**HEARTBEAT, **(heartbeat or {})}
        self._log_level = log_level
        self._process_group = process_group
        self._listen_telemetry = listen_telemetry
        self._telemetry_timeout = telemetry_timeout
        scripts = [Path(part).parent for part in self._command if part.endswith(".py")]
        self._cwd = cwd or (scripts[-1] if scripts else None)
        number = next(_numbers)
        self.worker_id = f"pool_worker_{number}"
        self.session_id = f"session_{number}_{time.time_ns() // 1000}"
        self.run_id = f"{time.time_ns() // 1000}_{secrets.token_hex(3)}"
        self.ready_file = directory / f"snakepit_ready_{self.worker_id}_{number}"
        self.events: list[pb.TelemetryEvent] = []
        self.metadata: list[tuple[str, dict[str, Any]]] = []
        self.telemetry_status: grpc.StatusCode | None = None
        self.address = ""
        self.port = 0
        self.process: asyncio.subprocess.Process | None = None
        self.stub: Any = None
        self._server: aio.Server | None = None
        self._channel: aio.Channel | None = None
        self._telemetry: aio.StreamStreamCall[pb.TelemetryControl, pb.TelemetryEvent] | None = None
        self._listening: asyncio.Task[None] | None = None

    # The life of the worker

    async def __aenter__(self) -> Self:
        try:
            await self.serve()
            await self.start()
            await self.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
        if error is not None:
            error.add_note(f"the worker said:\n{self.said}")

    async def serve(self) -> None:
        """Serve the bridge on loopback."""
        self._server = aio.server(options=_OPTIONS)
        add_BridgeServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    async def start(self) -> None:
        """Start the worker and wait until it is ready; fail with what it said if it ends before."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with self._file("out").open("wb") as out, self._file("err").open("wb") as err:
            self.process = await asyncio.create_subprocess_exec(
                *self.command_line(), stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=err, **self._where()
            )
        ending = asyncio.ensure_future(self.process.wait())
        try:
            await until(lambda: ending.done() or self._read_port())
        finally:
            ending.cancel()
            self.ready_file.unlink(missing_ok=True)
        if not self.port:
            raise AssertionError(f"the worker ended with {self.process.returncode} before it was ready:\n{self.said}")

    async def connect(self) -> None:
        """Do what Elixir does with a worker that is ready: ping, make its session, listen to its telemetry."""
        self._channel = aio.insecure_channel(f"localhost:{self.port}", options=_OPTIONS)
        self.stub = BridgeServiceStub(self._channel)
        await self.ping("connection_test")
        await self.initialize(self.session_id)
        if self._listen_telemetry:
            self._telemetry = self.stub.StreamTelemetry(timeout=self._telemetry_timeout)
            self._listening = asyncio.create_task(self._listen(self._telemetry))
            await self.toggle(True)

    async def stop(self, number: signal.Signals = signal.SIGTERM, grace: float = GRACE) -> int:
        """Signal the worker, kill its group if it does not end in time, and return its exit status.

        A negative status is the number of the signal that ended it.
        """
        assert self.process is not None
        if self.process.returncode is None:
            self._signal(number)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), grace)
        self.kill_group()
        return await self.process.wait()

    def kill_group(self) -> None:
        """Kill the worker and whatever it has started, if there is anything left."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            # There is no group by that number unless the worker has made it.
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.returncode is None:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # Not by asyncio's process: that may take the exit status away from the loop, which then reports 255.
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def close(self) -> None:
        """Stop the worker, and then serving."""
        if self.process is not None:
            await self.stop(grace=ELIXIRS_GRACE)
        if self._listening is not None:
            self._listening.cancel()
            with suppress(asyncio.CancelledError):
                await self._listening
        if self._channel is not None:
            await self._channel.close()
        if self._server is not None:
            await self._server.stop(None)

    # What it starts the worker with

    def command_line(self) -> list[str]:
        """Return the command, and the arguments in Elixir's order."""
        return [
            *self._command,
            *self._arguments,
            *("--port", "0"),
            *("--elixir-address", self.address),
            *("--snakepit-run-id", self.run_id),
            *("--snakepit-instance-name", "tests"),
            *("--snakepit-instance-token", "token"),
        ]

    def environment(self) -> dict[str, str]:
        """Return the environment: ours, what a test adds, and Elixir's over both."""
        inherited = {**os.environ, **self._environ}
        before = [entry for entry in inherited.get("PYTHONPATH", "").split(os.pathsep) if entry]
        elixirs = {
            "PYTHONPATH": compose(self._upstream, *before, PROJECT),
            "SNAKEPIT_PYTHON": sys.executable,
            "SNAKEPIT_HEARTBEAT_CONFIG": json.dumps(self._heartbeat),
            "SNAKEPIT_READY_FILE": str(self.ready_file),
            "SNAKEPIT_LOG_LEVEL": self._log_level,
        }
        if self._process_group:
            elixirs["SNAKEPIT_PROCESS_GROUP"] = "1"
        return {**inherited, **elixirs, "no_proxy": "localhost,127.0.0.1"}

    def _where(self) -> dict[str, Any]:
        return {"cwd": self._cwd, "env": self.environment()}

    def _read_port(self) -> int:
        with suppress(FileNotFoundError, ValueError):
            self.port = int(self.ready_file.read_text())
        return self.port

    def _file(self, kind: str) -> Path:
        return self._directory / f"{self.worker_id}.{kind}"

    @property
    def pid(self) -> int:
        """The worker's process."""
        assert self.process is not None
        return self.process.pid

    @property
    def exit_status(self) -> int | None:
        """The worker's exit status, if it has ended."""
        return None if self.process is None else self.process.returncode

    @property
    def stdout(self) -> str:
        """What the worker has written to standard output; what it buffers is not there before its end."""
        return self._file("out").read_text() if self._file("out").exists() else ""

    @property
    def stderr(self) -> str:
        """What the worker has written to standard error."""
        return self._file("err").read_text() if self._file("err").exists() else ""

    @property
    def said(self) -> str:
        """What the worker has written, to either."""
        return f"{self.stderr}{self.stdout}"

    # What it asks of the worker

    async def ping(self, message: str = "ping") -> pb.PingResponse:
        """Ping; at first as patiently as a connection just made needs."""
        answer: pb.PingResponse = await self.stub.Ping(pb.PingRequest(message=message), timeout=30, wait_for_ready=True)
        return answer

    async def initialize(self, session_id: str) -> pb.InitializeSessionResponse:
        """Have the worker pass on the making of a session."""
        request = pb.InitializeSessionRequest(
            session_id=session_id,
            metadata={"elixir_node": "nonode@nohost", "initialized_at": datetime.now(UTC).isoformat()},
            config=pb.SessionConfig(enable_caching=True, cache_ttl_seconds=60, enable_telemetry=False),
        )
        answer: pb.InitializeSessionResponse = await self.stub.InitializeSession(request, timeout=30)
        return answer

    async def heartbeat(self, session_id: str | None = None) -> pb.HeartbeatResponse:
        """Beat as Elixir's monitor does; the worker passes it on, so it comes back to us."""
        answer: pb.HeartbeatResponse = await self.stub.Heartbeat(
            pb.HeartbeatRequest(session_id=session_id or self.session_id), timeout=10
        )
        return answer

    async def cleanup_session(self, session_id: str) -> pb.CleanupSessionResponse:
        """Have the worker pass on the end of a session."""
        answer: pb.CleanupSessionResponse = await self.stub.CleanupSession(
            pb.CleanupSessionRequest(session_id=session_id), timeout=30
        )
        return answer

    async def get_session(self, session_id: str) -> pb.GetSessionResponse:
        """Have the worker pass on a look at a session."""
        answer: pb.GetSessionResponse = await self.stub.GetSession(
            pb.GetSessionRequest(session_id=session_id), timeout=30
        )
        return answer

    async def execute(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        in_session: str | None = None,
        session_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        binary: Mapping[str, bytes] | None = None,
        correlation_id: str | None = None,
        timeout: float = 30.0,
    ) -> Answer:
        """Run a tool.

        Elixir's pool sends the worker's own session id with every request; a caller's session (`in_session`) travels
        as the argument `session_id`. Another `session_id` is what gRPC clients of Elixir's bridge have.
        """
        request, sent = self._request(tool, arguments, in_session, session_id, metadata, binary, correlation_id)
        response = await self.stub.ExecuteTool(request, timeout=timeout, metadata=_headers(sent, headers))
        return Answer(response, sent)

    async def stream(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        in_session: str | None = None,
        session_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        binary: Mapping[str, bytes] | None = None,
        correlation_id: str | None = None,
        timeout: float = 30.0,
    ) -> AsyncGenerator[pb.ToolChunk, None]:
        """Yield a tool's chunks; cancel the call if whoever reads them leaves before the end."""
        request, sent = self._request(tool, arguments, in_session, session_id, metadata, binary, correlation_id)
        request.stream = True
        call = self.stub.ExecuteStreamingTool(request, timeout=timeout, metadata=_headers(sent, headers))
        try:
            async for chunk in call:
                yield chunk
        finally:
            call.cancel()

    async def chunks(self, tool: str, arguments: Mapping[str, Any] | None = None, **more: Any) -> list[pb.ToolChunk]:
        """Return all of a tool's chunks."""
        return [chunk async for chunk in self.stream(tool, arguments, **more)]

    def _request(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None,
        in_session: str | None,
        session_id: str | None,
        metadata: Mapping[str, str] | None,
        binary: Mapping[str, bytes] | None,
        correlation_id: str | None,
    ) -> tuple[pb.ExecuteToolRequest, str]:
        sent = correlation_id or secrets.token_hex(16)
        told = {**(arguments or {}), **({"session_id": in_session} if in_session else {})}
        request = pb.ExecuteToolRequest(
            session_id=session_id or self.session_id,
            tool_name=tool,
            parameters=raw(**told),
            metadata={"correlation_id": sent, **(metadata or {})},
            binary_parameters=binary or {},
        )
        return request, sent

    # The telemetry stream

    async def toggle(self, enabled: bool) -> None:
        """Tell the worker whether to send events."""
        await self._control(pb.TelemetryControl(toggle=pb.TelemetryToggle(enabled=enabled)))

    async def sample(self, rate: float) -> None:
        """Tell the worker what part of its events to send."""
        await self._control(pb.TelemetryControl(sampling=pb.TelemetrySamplingUpdate(sampling_rate=rate)))

    async def filter(self, allow: Sequence[str] = (), deny: Sequence[str] = ()) -> None:
        """Tell the worker which events to send."""
        await self._control(pb.TelemetryControl(filter=pb.TelemetryEventFilter(allow=allow, deny=deny)))

    async def _control(self, control: pb.TelemetryControl) -> None:
        assert self._telemetry is not None
        # The threaded server has no such stream; Elixir notes that and goes on.
        with suppress(aio.AioRpcError, asyncio.InvalidStateError):
            await self._telemetry.write(control)

    async def _listen(self, stream: aio.StreamStreamCall[pb.TelemetryControl, pb.TelemetryEvent]) -> None:
        try:
            async for event in stream:
                self.events.append(event)
            self.telemetry_status = grpc.StatusCode.OK
        except aio.AioRpcError as error:
            self.telemetry_status = error.code()
        finally:
            stream.cancel()

    async def event(self, name: str) -> pb.TelemetryEvent:
        """Return the first event of this name, once there is one."""
        found = await until(lambda: [one for one in self.events if ".".join(one.event_parts) == name])
        assert isinstance(found[0], pb.TelemetryEvent)
        return found[0]

    # What the worker asks of it, where upstream's Elixir is not as `Elixir` has it

    def _note(self, name: str, request: Any, context: Context) -> None:
        super()._note(name, request, context)
        self.metadata.append((name, self.headers[name]))

    async def Ping(self, request: pb.PingRequest, context: Context) -> pb.PingResponse:
        self._note("Ping", request, context)
        return pb.PingResponse(message=f"pong: {request.message}", server_time=Timestamp(seconds=int(time.time())))

    async def RegisterTools(self, request: pb.RegisterToolsRequest, context: Context) -> pb.RegisterToolsResponse:
        self._note("RegisterTools", request, context)
        session, names = request.session_id, [tool.name for tool in request.tools]
        if session not in self.sessions:
            return pb.RegisterToolsResponse(success=False, error_message="not_found")
        known = self.registered.setdefault(session, [])
        for name in names:
            if name in known:
                return pb.RegisterToolsResponse(success=False, error_message=f'{{:duplicate_tool, "{name}"}}')
        known.extend(names)
        return pb.RegisterToolsResponse(success=True, tool_ids={name: f"{session}:{name}" for name in names})

    async def ExecuteElixirTool(
        self, request: pb.ExecuteElixirToolRequest, context: Context
    ) -> pb.ExecuteElixirToolResponse:
        """Run a tool, with parameters as adapters send them: JSON under any name, or a genuine StringValue."""
        self._note("ExecuteElixirTool", request, context)
        tool = self._tools.get(request.tool_name)
        if request.session_id not in self.sessions:
            return pb.ExecuteElixirToolResponse(success=False, error_message="not_found")
        if tool is None:
            words = f"Tool {request.tool_name} not found for session {request.session_id}"
            return pb.ExecuteElixirToolResponse(success=False, error_message=words)
        try:
            result = tool(**{name: _decode(message) for name, message in request.parameters.items()})
        except Exception as error:
            return pb.ExecuteElixirToolResponse(success=False, error_message=f"Tool execution failed: {error}")
        return pb.ExecuteElixirToolResponse(success=True, result=encoded(result), metadata={"execution_time": "0"})


def _headers(correlation_id: str, more: Mapping[str, str] | None) -> list[tuple[str, str]]:
    """Return what Elixir sends with a call: no trace context, unless a test gives one."""
    return [(CORRELATION, correlation_id), *(more or {}).items()]


def _decode(message: AnyMessage) -> Any:
    try:
        return json.loads(message.value)
    except ValueError:
        # Upstream's Elixir cannot read what upstream's Python sends here; we would rather have the call succeed.
        text = StringValue()
        assert message.Unpack(text), message
        return text.value
