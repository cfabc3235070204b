#!/usr/bin/env python3
"""The worker for thread-safe adapters: many requests at a time, no heartbeats, no telemetry stream, no health check."""

import argparse
import asyncio
import inspect
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable
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
from snakepit_bridge import telemetry

telemetry.setup_tracing()
logger = logging_config.get_logger("grpc_server_threaded")
for one in (logger, logging.getLogger()):
    one.addFilter(telemetry.correlation_filter())


class ThreadSafetyMonitor:
    """Notes which threads enter which method."""

    def __init__(self, enabled: bool = False):
        self.enabled, self.lock = enabled, threading.Lock()
        self.access_tracker: dict[str, set[int]] = {}
        self.warnings_issued: set[str] = set()

    def record_access(self, method_name: str):
        if self.enabled:
            with self.lock:
                threads = self.access_tracker.setdefault(method_name, set())
                threads.add(threading.get_ident())
                if len(threads) > 1:
                    self.warnings_issued.add(method_name)

    def get_stats(self) -> dict:
        with self.lock:
            warned = len(self.warnings_issued)
            return {
                "concurrent_accesses": sum(len(threads) > 1 for threads in self.access_tracker.values()),
                "tracked_methods": len(self.access_tracker),
                "warnings_issued": warned,
            }


class ThreadedBridgeServiceServicer(pb2_grpc.BridgeServiceServicer):
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
        self.adapter_class, self.elixir_address, self.max_workers = adapter_class, elixir_address, max_workers
        self.loop, self.server = loop or asyncio.get_running_loop(), None
        self.safety_monitor = ThreadSafetyMonitor(enable_safety_checks)
        self.request_count, self.active_requests = 0, 0
        self.start_time, self.stats_lock = time.time(), threading.Lock()
        self.elixir_channel, self.sync_elixir_channel = (
            channel(elixir_address) for channel in (grpc.aio.insecure_channel, grpc.insecure_channel)
        )
        self.elixir_stub, self.sync_elixir_stub = (
            pb2_grpc.BridgeServiceStub(channel) for channel in (self.elixir_channel, self.sync_elixir_channel)
        )

    def get_stats(self) -> dict:
        with self.stats_lock:
            up, count = time.time() - self.start_time, self.request_count
            rate = {"uptime_seconds": up, "requests_per_second": count / up if up else 0}
            now = {"active_requests": self.active_requests, "max_workers": self.max_workers}
        return {"total_requests": count, **now, **rate, "safety_monitor": self.safety_monitor.get_stats()}

    async def close(self):
        await self.elixir_channel.close()
        self.sync_elixir_channel.close()

    def _span(self, method: str, sent: Iterable[tuple[str, str]], **about: Any):
        attributes = {f"snakepit.{key}": value for key, value in about.items()}
        return telemetry.otel_span(f"BridgeService/{method}", context_metadata=sent, attributes=attributes)

    async def _pass_on(self, method: str, request, context):
        """Have Elixir answer, and give it all that came with the call, trace context included."""
        sent = context.invocation_metadata()
        with self._span(method, sent, session_id=request.session_id):
            return await getattr(self.elixir_stub, method)(request, metadata=telemetry.outgoing_metadata(sent))

    async def Ping(self, request, context):
        thread = threading.current_thread().name
        with self._span("Ping", context.invocation_metadata(), thread=thread):
            return shared.pong(f"Pong from threaded Python [{thread}]: {request.message}")

    async def InitializeSession(self, request, context):
        return await self._pass_on("InitializeSession", request, context)

    async def CleanupSession(self, request, context):
        return await self._pass_on("CleanupSession", request, context)

    async def GetSession(self, request, context):
        return await self._pass_on("GetSession", request, context)

    async def Heartbeat(self, request, context):
        return await self._pass_on("Heartbeat", request, context)

    def _begin(self, method: str, request, context) -> Any:
        """Count a request, and return the span to put around it."""
        self.safety_monitor.record_access(method)
        with self.stats_lock:
            self.request_count += 1
            self.active_requests += 1
            number = self.request_count
        about = {"session_id": request.session_id, "tool": request.tool_name, "request_id": number}
        return self._span(method, context.invocation_metadata(), thread=threading.current_thread().name, **about)

    def _end(self) -> None:
        with self.stats_lock:
            self.active_requests -= 1

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
            with self._begin("ExecuteTool", request, context):
                work = self._work(request, context, toolless)
                return work.answer(await work.run())
        except Exception as error:
            logger.exception("ExecuteTool")
            return shared.pb2.ExecuteToolResponse(error_message=work.failure(error))
        finally:
            self._end()
            # Outside of the span, as upstream's.
            await _maybe_cleanup(work and work.adapter)

    async def ExecuteStreamingTool(self, request, context):
        async def toolless():
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the adapter runs no tools")

        work = iterator = None
        try:
            with self._begin("ExecuteStreamingTool", request, context):
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
        finally:
            self._end()

    def set_server(self, server):
        self.server = server


async def wait_for_elixir_server(elixir_address: str, max_retries: int = 30, initial_delay: float = 0.05):
    return await shared.reach(elixir_address, pb2_grpc.BridgeServiceStub, max_retries, initial_delay)


async def serve_threaded(
    port: int,
    adapter_module: str,
    elixir_address: str,
    max_workers: int,
    enable_safety_checks: bool,
    shutdown_event: asyncio.Event,
):
    """Serve from when Elixir answers until the event is set."""
    reached = await wait_for_elixir_server(elixir_address)
    if not reached:
        raise SystemExit(1)
    adapter = shared.find_adapter(adapter_module)
    options = [*shared.MESSAGE_SIZES, ("grpc.max_concurrent_streams", max_workers), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(futures.ThreadPoolExecutor(max_workers), options=options)
    loop = asyncio.get_running_loop()
    servicer = ThreadedBridgeServiceServicer(adapter, elixir_address, max_workers, enable_safety_checks, loop=loop)

    def add() -> None:
        pb2_grpc.add_BridgeServiceServicer_to_server(servicer, server)

    await shared.serve_until(shutdown_event, server, servicer, add, port)


def main():
    logging_config.configure_logging()
    address = os.environ.get("SNAKEPIT_GRPC_ADDRESS") or os.environ.get("SNAKEPIT_ELIXIR_ADDRESS")
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--elixir-address", default=address)
    parser.add_argument("--max-workers", type=int, default=10)
    parser.add_argument("--thread-safety-check", action="store_true")
    for flag in ("--snakepit-run-id", "--snakepit-instance-name", "--snakepit-instance-token"):
        parser.add_argument(flag, default="")
    args = parser.parse_args()
    if not args.elixir_address:
        parser.error("--elixir-address is required")
    maybe_create_process_group()
    told = (args.port, args.adapter, args.elixir_address, args.max_workers, args.thread_safety_check)
    shared.run_to_the_end(lambda end: serve_threaded(*told, end))


if __name__ == "__main__":
    main()
