#!/usr/bin/env python3
"""The worker that Elixir starts by default: tools in threads, the event loop for itself."""

import argparse
import asyncio
import functools
import importlib
import inspect
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from concurrent import futures
from typing import Any

from snakepit_bridge import logging_config

if __name__ == "__main__":
    logging_config.configure_logging()

sys.path.insert(0, ".")

import _shared as shared
import grpc
import snakepit_bridge_pb2_grpc as pb2_grpc
from _pump import Pump
from _shared import _close_iterator, _maybe_cleanup, maybe_create_process_group
from snakepit_bridge import heartbeat, telemetry
from snakepit_bridge.telemetry import stream as streams
from snakepit_bridge.telemetry.backends import grpc as backend

telemetry.setup_tracing()
logger = logging_config.get_logger("grpc_server")
for one in (logger, logging.getLogger()):
    one.addFilter(telemetry.correlation_filter())

_STATUSES = {
    ValueError: grpc.StatusCode.INVALID_ARGUMENT,
    NotImplementedError: grpc.StatusCode.UNIMPLEMENTED,
    TimeoutError: grpc.StatusCode.DEADLINE_EXCEEDED,
    PermissionError: grpc.StatusCode.PERMISSION_DENIED,
    FileNotFoundError: grpc.StatusCode.NOT_FOUND,
}


def run_health_check(adapter_path: str):
    """Import the adapter, and exit with 0 or 1."""
    module, _, name = adapter_path.rpartition(".")
    try:
        getattr(importlib.import_module(module), name)
    except Exception as error:
        logger.error("adapter %s cannot be imported: %s", adapter_path, error)
        raise SystemExit(1) from None
    raise SystemExit(0)


def _stays(request: Any, arguments: dict[str, Any] | None = None) -> bool:
    """Say whether a call is to run on this thread, by the request or by what the environment names."""
    if request.metadata.get("thread_sensitive", "").strip().lower() in {"1", "true", "t", "yes", "y", "on"}:
        return True
    named = {entry.strip() for entry in os.environ.get("SNAKEPIT_THREAD_SENSITIVE", "").split(",")}
    told = arguments or {}
    module = told.get("module_path") or told.get("python_module") or told.get("library") or ""
    function = told.get("function") or told.get("method")
    return bool(module) and not named.isdisjoint({module, f"{module}.{function}"})


async def _call_maybe_async(func, *args, **kwargs):
    """Call a coroutine function here, anything else in a thread unless it must stay; say how it went, too."""
    stays = kwargs.pop("_thread_sensitive", False)
    coroutine = inspect.iscoroutinefunction(func)
    result = func(*args, **kwargs) if stays or coroutine else await asyncio.to_thread(func, *args, **kwargs)
    if not inspect.isawaitable(result):
        return result, "thread"
    return await result, "async" if coroutine else "awaitable"


def _heartbeat_options(told: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the command line's options, and the environment's over them."""
    try:
        elixirs = json.loads(os.environ.get("SNAKEPIT_HEARTBEAT_CONFIG") or "{}")
    except json.JSONDecodeError:
        elixirs = None
    if not isinstance(elixirs, dict):
        logger.warning("SNAKEPIT_HEARTBEAT_CONFIG is no JSON object and is left out")
        elixirs = {}
    return {**(told or {}), **elixirs}


def grpc_error_handler(func):
    """Turn what a method raises into a status."""

    @functools.wraps(func)
    async def handled(servicer, request, context):
        try:
            return await func(servicer, request, context)
        except Exception as error:
            if isinstance(error, grpc.RpcError):
                raise
            logger.exception("%s", func.__name__)
            codes = (code for kind, code in _STATUSES.items() if isinstance(error, kind))
            await context.abort(next(codes, grpc.StatusCode.INTERNAL), str(error))

    return handled


class BridgeServiceServicer(pb2_grpc.BridgeServiceServicer):
    """The worker's side of the bridge: sessions are passed on to Elixir, tools are run here."""

    def __init__(
        self,
        adapter_class,
        elixir_address: str,
        heartbeat_options: Mapping[str, Any] | None = None,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        shutdown_event: asyncio.Event | None = None,
    ):
        self.adapter_class, self.elixir_address = adapter_class, elixir_address
        self.loop, self.shutdown_event, self.server = loop or asyncio.get_event_loop(), shutdown_event, None
        self.telemetry_stream = streams.TelemetryStream(1024)
        telemetry.set_backend(backend.GrpcBackend(self.telemetry_stream))
        self.elixir_channel, self.sync_elixir_channel = (
            channel(elixir_address) for channel in (grpc.aio.insecure_channel, grpc.insecure_channel)
        )
        self.elixir_stub, self.sync_elixir_stub = (
            pb2_grpc.BridgeServiceStub(channel) for channel in (self.elixir_channel, self.sync_elixir_channel)
        )
        self.heartbeat_config = heartbeat.HeartbeatConfig.from_mapping(_heartbeat_options(heartbeat_options))
        self.heartbeat_clients: dict[str, heartbeat.HeartbeatClient] = {}
        self._known: set[str] = set()

    async def close(self):
        self.telemetry_stream.close()
        for session_id in [*self.heartbeat_clients]:
            await self._silence(session_id)
        await self.elixir_channel.close()
        self.sync_elixir_channel.close()

    def _span(self, method: str, request, context, **more: str):
        about = {"snakepit.session_id": request.session_id, **more}
        sent = context.invocation_metadata()
        return telemetry.otel_span(f"BridgeService/{method}", context_metadata=sent, attributes=about)

    async def _pass_on(self, method: str, request, context, after=None):
        """Have Elixir answer, and do what follows, with the headers left behind."""
        with self._span(method, request, context):
            answer = await getattr(self.elixir_stub, method)(request, metadata=telemetry.outgoing_metadata())
            if after:
                await after(request.session_id)
            return answer

    async def Ping(self, request, context):
        return shared.pong(f"Pong from Python: {request.message}")

    async def InitializeSession(self, request, context):
        return await self._pass_on("InitializeSession", request, context, self._beat)

    async def CleanupSession(self, request, context):
        try:
            return await self._pass_on("CleanupSession", request, context)
        finally:
            await self._silence(request.session_id)

    async def GetSession(self, request, context):
        return await self._pass_on("GetSession", request, context, self._beat)

    async def Heartbeat(self, request, context):
        return await self._pass_on("Heartbeat", request, context)

    def _work(self, request, toolless) -> shared.Work:
        async def call(phase, **named):
            stays = _stays(request, work.arguments)
            return (await _call_maybe_async(phase, _thread_sensitive=stays, **named))[0]

        async def met():
            await self._beat(request.session_id)

        async def register(adapter):
            # Once per session; upstream takes it for done even if it failed.
            if request.session_id not in self._known:
                adapter.register_with_session(request.session_id, self.sync_elixir_stub)
                self._known.add(request.session_id)

        work = shared.Work(self, request, met=met, register=register, call=call, toolless=toolless)
        return work

    @grpc_error_handler
    async def ExecuteTool(self, request, context):
        async def toolless():
            raise grpc.RpcError(grpc.StatusCode.UNIMPLEMENTED, "the adapter has no execute_tool")

        work = self._work(request, toolless)
        with self._span("ExecuteTool", request, context, **{"snakepit.tool": request.tool_name}):
            try:
                result = await work.run()
                if inspect.isgenerator(result) or inspect.isasyncgen(result):
                    result = {"error": f"{request.tool_name} streams; call it by ExecuteStreamingTool"}
                return work.answer(result)
            except Exception as error:
                logger.exception("ExecuteTool")
                return shared.pb2.ExecuteToolResponse(error_message=work.failure(error))
            finally:
                await _maybe_cleanup(work.adapter)

    async def ExecuteStreamingTool(self, request, context):
        async def toolless():
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the adapter runs no tools")

        work, iterator = self._work(request, toolless), None
        with self._span("ExecuteStreamingTool", request, context, **{"snakepit.tool": request.tool_name}):
            try:
                iterator = await work.run()
                pump = Pump(request.tool_name, iterator, context, self.loop)
                try:
                    async for item in pump.items():
                        if isinstance(item, Exception):
                            await context.abort(grpc.StatusCode.INTERNAL, work.failure(item))
                        yield item
                finally:
                    await pump.stop()
                    await _close_iterator(iterator)
                    await _maybe_cleanup(work.adapter)
            except Exception as error:
                logger.exception("ExecuteStreamingTool")
                # A stream that failed on the way comes here, too, by the abort above: its adapter is cleaned up once
                # more, and gRPC refuses the second abort. So it is upstream.
                await _close_iterator(iterator)
                await _maybe_cleanup(work.adapter)
                await context.abort(grpc.StatusCode.INTERNAL, work.failure(error))

    async def StreamTelemetry(self, request_iterator, context):
        # Elixir waits for the headers, and the first event may be long in coming.
        await context.send_initial_metadata([])
        async for event in self.telemetry_stream.stream(request_iterator, context):
            yield event

    def set_server(self, server):
        self.server = server

    def create_heartbeat_client(self, session_id: str) -> heartbeat.HeartbeatClient | None:
        async def give_up(missed: int) -> None:
            logger.error("session %s: %s heartbeats missed; this worker ends", session_id, missed)
            if self.shutdown_event:
                self.shutdown_event.set()
            os.kill(os.getpid(), signal.SIGTERM)

        config = self.heartbeat_config
        if not config.enabled:
            return None
        return heartbeat.HeartbeatClient(
            self.elixir_stub, session_id, config, on_threshold_exceeded=give_up if config.dependent else None
        )

    async def _beat(self, session_id: str) -> None:
        if session_id not in self.heartbeat_clients and (client := self.create_heartbeat_client(session_id)):
            self.heartbeat_clients[session_id] = client
            client.start()

    async def _silence(self, session_id: str) -> None:
        if client := self.heartbeat_clients.pop(session_id, None):
            await client.stop()


async def wait_for_elixir_server(elixir_address: str, max_retries: int | None = 60, initial_delay: float = 0.05):
    return await shared.reach(elixir_address, pb2_grpc.BridgeServiceStub, max_retries, initial_delay)


async def serve_with_shutdown(
    port: int,
    adapter_module: str,
    elixir_address: str,
    shutdown_event: asyncio.Event,
    heartbeat_options: Mapping[str, Any] | None = None,
):
    """Serve from when Elixir answers until the event is set."""
    reached = await wait_for_elixir_server(elixir_address)
    if not reached:
        raise SystemExit(1)
    adapter = shared.find_adapter(adapter_module)
    server = grpc.aio.server(futures.ThreadPoolExecutor(10), options=shared.MESSAGE_SIZES)
    own = {"loop": asyncio.get_running_loop(), "shutdown_event": shutdown_event}
    servicer = BridgeServiceServicer(adapter, elixir_address, heartbeat_options, **own)

    def add() -> None:
        pb2_grpc.add_BridgeServiceServicer_to_server(servicer, server)

    await shared.serve_until(shutdown_event, server, servicer, add, port)


async def serve(port: int, adapter_module: str, elixir_address: str):
    await serve_with_shutdown(port, adapter_module, elixir_address, asyncio.Event())


async def shutdown(server):
    await server.stop(grace=5)


def _arguments() -> argparse.ArgumentParser:
    address = os.environ.get("SNAKEPIT_GRPC_ADDRESS") or os.environ.get("SNAKEPIT_ELIXIR_ADDRESS")
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--adapter")
    parser.add_argument("--elixir-address", default=address)
    for flag in ("--snakepit-run-id", "--snakepit-instance-name", "--snakepit-instance-token"):
        parser.add_argument(flag, default="")
    parser.add_argument("--heartbeat-enabled", action="store_true")
    for flag in ("interval-ms", "timeout-ms", "max-missed", "initial-delay-ms"):
        parser.add_argument(f"--heartbeat-{flag}", type=int)
    parser.add_argument("--heartbeat-dependent", dest="heartbeat_dependent", action="store_true", default=None)
    parser.add_argument("--heartbeat-independent", dest="heartbeat_dependent", action="store_false", default=None)
    parser.add_argument("--health-check", action="store_true")
    return parser


def main():
    logging_config.configure_logging()
    parser = _arguments()
    args = parser.parse_args()
    if args.health_check:
        run_health_check(args.adapter or "snakepit_bridge.adapters.showcase.ShowcaseAdapter")
    for needed in ("adapter", "elixir_address"):
        if not getattr(args, needed):
            parser.error(f"--{needed.replace('_', '-')} is required")
    maybe_create_process_group()
    told = {
        "enabled": args.heartbeat_enabled or None,
        "interval_ms": args.heartbeat_interval_ms,
        "timeout_ms": args.heartbeat_timeout_ms,
        "max_missed_heartbeats": args.heartbeat_max_missed,
        "initial_delay_ms": args.heartbeat_initial_delay_ms,
        "dependent": args.heartbeat_dependent,
    }
    options = {key: value for key, value in told.items() if value is not None}
    address = args.elixir_address
    shared.run_to_the_end(lambda end: serve_with_shutdown(args.port, args.adapter, address, end, options))


if __name__ == "__main__":
    main()
