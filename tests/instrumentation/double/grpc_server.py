#!/usr/bin/env python3
"""The worker that Elixir starts by default: tools in threads, the event loop for itself."""

import asyncio
import inspect
import json
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
from _pump import Pump
from _shared import _close_iterator, _maybe_cleanup, maybe_create_process_group
from snakepit_bridge import heartbeat, telemetry
from snakepit_bridge.telemetry import stream as streams

telemetry.setup_tracing()
logger = logging_config.get_logger("grpc_server")


def run_health_check(adapter_path: str):
    """Import the adapter, and exit with 0 or 1."""
    shared.find_adapter(adapter_path)
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


async def _call(function, stays: bool, named: dict[str, Any]):
    """Call a coroutine function here, anything else in a thread unless it must stay."""
    stays = stays or inspect.iscoroutinefunction(function)
    result = function(**named) if stays else await asyncio.to_thread(function, **named)
    return await result if inspect.isawaitable(result) else result


def _heartbeat_config(options: Mapping[str, Any] | None) -> heartbeat.HeartbeatConfig:
    """Return the command line's options, and the environment's over them."""
    return heartbeat.HeartbeatConfig(
        **{**(options or {}), **json.loads(os.environ.get("SNAKEPIT_HEARTBEAT_CONFIG") or "{}")}
    )


class BridgeServiceServicer(shared.BridgeServiceServicer):
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
        super().__init__(adapter_class, elixir_address, loop)
        self.telemetry_stream = streams.TelemetryStream(1024)
        telemetry._set_backend(self.telemetry_stream)
        self.heartbeat_config = _heartbeat_config(heartbeat_options)
        self.heartbeat_clients: dict[str, heartbeat.HeartbeatClient] = {}
        self._known: set[str] = set()

    async def close(self):
        self.telemetry_stream.close()
        for session_id in [*self.heartbeat_clients]:
            await self._silence(session_id)
        await super().close()

    async def Ping(self, request, context):
        return shared.pong(f"Pong from Python: {request.message}")

    async def InitializeSession(self, request, context):
        answer = await self._pass_on("InitializeSession", request, context)
        await self._beat(request.session_id)
        return answer

    async def CleanupSession(self, request, context):
        try:
            return await self._pass_on("CleanupSession", request, context)
        finally:
            await self._silence(request.session_id)

    async def GetSession(self, request, context):
        answer = await self._pass_on("GetSession", request, context)
        await self._beat(request.session_id)
        return answer

    async def Heartbeat(self, request, context):
        return await self._pass_on("Heartbeat", request, context)

    def _work(self, request, toolless) -> shared.Work:
        async def call(phase, **named):
            return await _call(phase, _stays(request, work.arguments), named)

        async def met():
            await self._beat(request.session_id)

        async def register(adapter):
            # Once per session; upstream takes it for done even if it failed.
            if request.session_id not in self._known:
                adapter.register_with_session(request.session_id, self.sync_elixir_stub)
                self._known.add(request.session_id)

        work = shared.Work(self, request, met=met, register=register, call=call, toolless=toolless)
        return work

    async def ExecuteTool(self, request, context):
        async def toolless():
            raise grpc.RpcError(grpc.StatusCode.UNIMPLEMENTED, "the adapter has no execute_tool")

        work = self._work(request, toolless)
        with self._span("ExecuteTool", request, context):
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
        with self._span("ExecuteStreamingTool", request, context):
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

    async def _beat(self, session_id: str) -> None:
        async def end(_missed: int) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        config = self.heartbeat_config
        if session_id not in self.heartbeat_clients and config.enabled:
            on_missed = end if config.dependent else None
            client = heartbeat.HeartbeatClient(self.elixir_stub, session_id, config, on_threshold_exceeded=on_missed)
            self.heartbeat_clients[session_id] = client
            client.start()

    async def _silence(self, session_id: str) -> None:
        if client := self.heartbeat_clients.pop(session_id, None):
            await client.stop()


async def serve_with_shutdown(
    port: int,
    adapter_module: str,
    elixir_address: str,
    shutdown_event: asyncio.Event,
    heartbeat_options: Mapping[str, Any] | None = None,
):
    """Serve from when Elixir answers until the event is set."""
    await shared.reach(elixir_address)
    adapter = shared.find_adapter(adapter_module)
    server = grpc.aio.server(futures.ThreadPoolExecutor(10), options=shared.MESSAGE_SIZES)
    own = {"loop": asyncio.get_running_loop(), "shutdown_event": shutdown_event}
    servicer = BridgeServiceServicer(adapter, elixir_address, heartbeat_options, **own)

    await shared.serve_until(shutdown_event, server, servicer, port)


def _arguments():
    parser = shared.arguments()
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
