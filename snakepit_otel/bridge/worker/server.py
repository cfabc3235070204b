"""A worker as a server: loads its adapter, listens, and stops in good order."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from snakepit_otel import telemetry
from snakepit_otel.adapters import SessionContext
from snakepit_otel.adapters._adapter_loading import load_adapter, require_thread_safe
from snakepit_otel.adapters._leftover_processes import LeftoverProcesses
from snakepit_otel.adapters._lifecycle import AdapterHost
from snakepit_otel.adapters._tool_description import ToolDescription, describe_all
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.adapters._worker_hooks import WorkerContext
from snakepit_otel.bridge.wire.buffer_service import BufferService
from snakepit_otel.bridge.wire.method_guards import guarded
from snakepit_otel.bridge.wire.services import BRIDGE, BUFFERS, SUPERVISION
from snakepit_otel.bridge.wire.unserializable import Unserializable
from snakepit_otel.bridge.worker.authority_client import AuthorityClient
from snakepit_otel.bridge.worker.memory import WorkerMemory
from snakepit_otel.bridge.worker.middleware_host import MiddlewareHost
from snakepit_otel.bridge.worker.process_controls import ProcessControls
from snakepit_otel.bridge.worker.service import WorkerService, worker_limits
from snakepit_otel.bridge.worker.supervision import RunningRequests, SupervisionService
from snakepit_otel.bridge.worker.telemetry_stream import TelemetryStream
from snakepit_otel.middleware._chain import MiddlewareChain
from snakepit_otel.middleware._loading import Spec, load_all
from snakepit_otel.rpc.addresses import MAX_MESSAGE_BYTES
from snakepit_otel.rpc.transports import LocalTransportName, transport_of
from snakepit_otel.system.daemon_thread import run_in_daemon_thread
from snakepit_otel.system.process_exit import ProcessExit, on_stop_signals
from snakepit_otel.telemetry import names

if TYPE_CHECKING:
    from snakepit_otel.rpc.tls import Tls

# With what comes before and after it, a worker is gone two and a half seconds after its grace.
_TIME_FOR_TELEMETRY_S = 1.7
# From then on the process is ended, whatever it is doing.
_MAX_TIME_BEYOND_GRACE_S = 2.9
_MARGIN_OF_START_S = 0.5


def freeze_gc() -> None:
    """Exclude what is loaded by now from garbage collection, which would visit all of it in the middle of requests."""
    gc.collect()
    gc.freeze()


def _worker_id(server: WorkerServer, *_: Any) -> dict[str, str]:
    return {names.SNAKEPIT_WORKER_ID: server.worker_id}


@dataclass(kw_only=True, eq=False)
class WorkerServer:
    """Serves one adapter at one address.

    `start` raises `AdapterNotLoaded` or `ToolRefused` for an adapter that cannot be used, and `ConfigurationError` for
    an address or a middleware that cannot, or for an adapter that must be thread-safe and is not marked so; and
    `WorkerStartFailed` if the adapter's `on_worker_start` fails, or runs up to `start_deadline`.
    """

    adapter: str
    listen: str
    authority_address: str
    worker_id: str
    threads: int = 1
    thread_safe: bool = False
    token: str | None = None  # shows the authority which worker calls back
    max_message_bytes: int = MAX_MESSAGE_BYTES
    grace: float = 2.0
    tls: Tls | None = None
    insecure: bool = False
    local_transport: LocalTransportName = "local"
    serves_grpc: bool = True  # at a Unix socket; workers of a pool have their authority alone to serve
    register_tools: bool = False
    on_session: Callable[[str], None] | None = None
    memory: WorkerMemory = field(default_factory=WorkerMemory)
    started_by: Mapping[str, str] = field(default_factory=dict)  # the trace context of loading the adapter
    whole_process: bool = False  # the process does nothing else; see `telemetry.setup`
    load: Callable[[str], type] = load_adapter
    context: type[SessionContext] = SessionContext
    middleware: Sequence[Spec] = ()
    pool: str | None = None
    slot: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    start_deadline: float | None = None  # on the monotonic clock
    stop_hook_timeout: float = 2.0

    def __post_init__(self) -> None:
        self._threads = ToolThreads(self.threads)
        self._stop_requested = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self._ending: ProcessExit | None = None
        self._context = WorkerContext(self.worker_id, self.pool, self.slot, self.threads, self.environment)
        self.address = ""
        self.tools: list[str] = []

    @property
    def has_stop_hook(self) -> bool:
        """Whether the adapter, which is loaded, has a hook to run before the worker ends."""
        return self._hooks.has_stop_hook

    async def start(self) -> None:
        """Load the adapter and listen."""
        self._telemetry = telemetry.setup("snakepit-worker", role="worker", whole_process=self.whole_process)
        sensitive = (telemetry.environment.value("SNAKEPIT_THREAD_SENSITIVE") or "").split(",")
        # Around this alone: what the server starts below keeps the context that it is started in.
        with telemetry.within(telemetry.incoming(self.started_by.items())):
            host = self._load([name.strip() for name in sensitive if name])
            self._hooks = host.worker_hooks
            await self._hooks.start(self._context, self._time_to_start())
        self.tools = [] if host.takes_any else list(host.tools)
        self._host = host
        self.authority = AuthorityClient(
            self.authority_address,
            max_message_bytes=self.max_message_bytes,
            worker_id=self.worker_id,
            token=self.token,
        )
        if self.token is not None:
            self.authority.connect()
        running = RunningRequests()
        self.events = TelemetryStream(ProcessControls())
        self._service = WorkerService(
            host,
            self.authority,
            worker_id=self.worker_id,
            register_tools=self.register_tools,
            on_session=self.on_session,
            unserializable=Unserializable.from_environment(os.environ),
            memory=self.memory,
            running=running,
            context=self.context,
            events=self.events,
        )
        # Only the authority has the worker's address, so its trace context is trusted.
        self._listener = transport_of(self.listen, self.local_transport, with_grpc=self.serves_grpc).listen(
            self.listen,
            max_message_bytes=self.max_message_bytes,
            tls=self.tls,
            insecure=self.insecure,
            trusted=True,
        )
        limits = worker_limits(self.max_message_bytes)
        self._listener.add(guarded(BRIDGE, self._service, limits))
        self._listener.add(guarded(BUFFERS, BufferService(self.memory.kept, self.max_message_bytes), limits))
        self._listener.add(guarded(SUPERVISION, SupervisionService(running, self.memory.set_strict), limits))
        self.address = self._listener.bind()
        await self._listener.start()
        if self.whole_process:
            self._ending = ProcessExit()
            hook_time = self.stop_hook_timeout if self.has_stop_hook else 0.0
            on_stop_signals(self.request_stop, self._ending, self.grace + hook_time + _MAX_TIME_BEYOND_GRACE_S)
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)

    def describe_tools(self) -> list[ToolDescription]:
        """Return descriptions of the adapter's tools, once it is loaded."""
        return describe_all(self._host.tools.values(), takes_any=self._host.takes_any)

    @telemetry.observed(names.ADAPTER_LOAD, details=_worker_id)
    def _load(self, thread_sensitive: list[str]) -> AdapterHost:
        adapter = self.load(self.adapter)
        if self.thread_safe:
            require_thread_safe(adapter, "profile = 'process'")
        if self.middleware:
            chain = MiddlewareChain(load_all(self.middleware))
            return MiddlewareHost(adapter, self._threads, thread_sensitive, middleware=chain)
        return AdapterHost(adapter, self._threads, thread_sensitive)

    def _time_to_start(self) -> float | None:
        if self.start_deadline is None:
            return None
        # Sooner than the pool, which kills the worker and cannot tell why it was late.
        left = self.start_deadline - time.monotonic()
        return max(left - min(_MARGIN_OF_START_S, left / 10), 0.0)

    def request_stop(self) -> None:
        """Let `run_until_stopped` return soon; when called again, without waiting for calls in flight."""
        if self._stop_requested.is_set():
            self._stop_at_once.set()
        self._stop_requested.set()

    async def run_until_stopped(self, before_closing: Callable[[], Awaitable[None]] | None = None) -> None:
        """Serve; then refuse new calls, finish those in flight within the grace, run the hook, send the telemetry."""
        await self._stop_requested.wait()
        if before_closing is not None:
            await before_closing()
        self._service.close_stream()
        await self._finish_calls()
        await self._hooks.stop(self._context, self.stop_hook_timeout)
        await self.authority.close()
        self.memory.close()
        left = LeftoverProcesses.by_this_process() if self.whole_process else LeftoverProcesses(())
        left.terminate(f"worker {self.worker_id}")
        shutdown = partial(self._telemetry.shutdown, _TIME_FOR_TELEMETRY_S)
        await asyncio.gather(left.end(), run_in_daemon_thread(shutdown))
        self._threads.close()
        if self._ending is not None:
            # Otherwise the event loop would wait for tasks at its end, and the interpreter for threads of users.
            self._ending.done()

    async def _finish_calls(self) -> None:
        """Refuse new calls, and let those in flight end within the grace, or until stop is requested again."""
        finishing = asyncio.ensure_future(self._listener.stop(self.grace))
        stop_at_once = asyncio.ensure_future(self._stop_at_once.wait())
        await asyncio.wait([finishing, stop_at_once], return_when=asyncio.FIRST_COMPLETED)
        if stop_at_once.done():
            await self._listener.stop(0)
        stop_at_once.cancel()
        await finishing
