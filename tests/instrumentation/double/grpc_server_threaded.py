#!/usr/bin/env python3
"""The worker for thread-safe adapters: many requests at a time, no heartbeats, no telemetry stream, no health check."""

import asyncio
import inspect
import sys
import threading
from concurrent import futures

from snakepit_bridge import logging_config

if __name__ == "__main__":
    logging_config.configure_logging()

sys.path.insert(0, ".")

import _shared as shared
import grpc
from _pump import Pump
from _shared import _close_iterator, _maybe_cleanup, maybe_create_process_group
from snakepit_bridge import telemetry

telemetry.setup_tracing()
logger = logging_config.get_logger("grpc_server_threaded")


class ThreadedBridgeServiceServicer(shared.BridgeServiceServicer):
    """The worker's side of the bridge; tools that do not await run on the event loop, whatever the name says."""

    def __init__(
        self,
        adapter_class,
        elixir_address: str,
        max_workers: int,
        enable_safety_checks: bool = False,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
    ):
        if getattr(adapter_class, "__thread_safe__", False) is False:
            raise ValueError(f"adapter {adapter_class.__name__} does not say __thread_safe__ = True")
        super().__init__(adapter_class, elixir_address, loop)
        self.max_workers = max_workers

    async def _pass_on(self, method: str, request, context):
        # With all headers of the call, trace context included.
        return await super()._pass_on(method, request, context, context.invocation_metadata())

    async def Ping(self, request, context):
        with telemetry.otel_span("BridgeService/Ping", context_metadata=context.invocation_metadata()):
            thread = threading.current_thread().name
            return shared.pong(f"Pong from threaded Python [{thread}]: {request.message}")

    async def InitializeSession(self, request, context):
        return await self._pass_on("InitializeSession", request, context)

    async def CleanupSession(self, request, context):
        return await self._pass_on("CleanupSession", request, context)

    async def GetSession(self, request, context):
        return await self._pass_on("GetSession", request, context)

    async def Heartbeat(self, request, context):
        return await self._pass_on("Heartbeat", request, context)

    def _work(self, request, context, toolless) -> shared.Work:
        async def met():
            """Do nothing: there are no heartbeats."""

        async def register(adapter):
            adapter.register_with_session(request.session_id, self.sync_elixir_stub)

        async def call(phase, **named):
            result = phase(**named)
            return await result if inspect.isawaitable(result) else result

        sent = telemetry.outgoing_metadata(context.invocation_metadata())
        return shared.Work(self, request, met=met, register=register, call=call, toolless=toolless, metadata=sent)

    async def ExecuteTool(self, request, context):
        async def toolless():
            raise NotImplementedError("the adapter has no execute_tool")

        work = None
        try:
            with self._span("ExecuteTool", request, context):
                work = self._work(request, context, toolless)
                return work.answer(await work.run())
        except Exception as error:
            logger.exception("ExecuteTool")
            return shared.pb2.ExecuteToolResponse(error_message=work.failure(error))
        finally:
            # Outside of the span, as upstream's.
            await _maybe_cleanup(work and work.adapter)

    async def ExecuteStreamingTool(self, request, context):
        async def toolless():
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the adapter runs no tools")

        work = iterator = None
        try:
            with self._span("ExecuteStreamingTool", request, context):
                work = self._work(request, context, toolless)
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
            # As in the other server, a second time for streams that failed on the way.
            await _close_iterator(iterator)
            await _maybe_cleanup(work and work.adapter)
            await context.abort(grpc.StatusCode.INTERNAL, work.failure(error))


async def serve_threaded(
    port: int,
    adapter_module: str,
    elixir_address: str,
    max_workers: int,
    enable_safety_checks: bool,
    shutdown_event: asyncio.Event,
):
    """Serve from when Elixir answers until the event is set."""
    await shared.reach(elixir_address)
    adapter = shared.find_adapter(adapter_module)
    options = [*shared.MESSAGE_SIZES, ("grpc.max_concurrent_streams", max_workers), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(futures.ThreadPoolExecutor(max_workers), options=options)
    loop = asyncio.get_running_loop()
    servicer = ThreadedBridgeServiceServicer(adapter, elixir_address, max_workers, enable_safety_checks, loop=loop)

    await shared.serve_until(shutdown_event, server, servicer, port)


def main():
    logging_config.configure_logging()
    parser = shared.arguments(required=True)
    parser.add_argument("--max-workers", type=int, default=10)
    parser.add_argument("--thread-safety-check", action="store_true")
    args = parser.parse_args()
    if not args.elixir_address:
        parser.error("--elixir-address is required")
    maybe_create_process_group()
    told = (args.port, args.adapter, args.elixir_address, args.max_workers, args.thread_safety_check)
    shared.run_to_the_end(lambda end: serve_threaded(*told, end))


if __name__ == "__main__":
    main()
