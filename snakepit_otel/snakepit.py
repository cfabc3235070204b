"""The whole thing: an authority and its workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, Self

from snakepit_otel.adapters import spec_of
from snakepit_otel.bridge import rpc
from snakepit_otel.bridge.addresses import checked_socket_directory, listen, only_known_callers, options
from snakepit_otel.bridge.admin import AdminService
from snakepit_otel.bridge.authority import AuthorityService
from snakepit_otel.bridge.buffers import BufferService
from snakepit_otel.bridge.client import chunks, execute_request, result_of
from snakepit_otel.bridge.codec import decode_chunk
from snakepit_otel.bridge.directory import PrivateDirectory
from snakepit_otel.bridge.gateway import Gateway
from snakepit_otel.bridge.proto.snakepit_admin_pb2_grpc import add_AdminServiceServicer_to_server
from snakepit_otel.bridge.proto.snakepit_bridge_pb2 import ToolChunk
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import add_BridgeServiceServicer_to_server
from snakepit_otel.bridge.proto.snakepit_buffers_pb2_grpc import add_BufferServiceServicer_to_server
from snakepit_otel.bridge.recording import Controls, refuse_if_off
from snakepit_otel.bridge.registry import ToolRegistry
from snakepit_otel.bridge.state_tools import STATE_TOOLS
from snakepit_otel.call_site import call_site
from snakepit_otel.errors import ConfigurationError, PoolNotStarted, WorkerExited
from snakepit_otel.pool import PoolSettings, SharedMemory, WorkerPool
from snakepit_otel.sessions import Creator, SessionSettings, SessionStore
from snakepit_otel.settings import ServerSettings
from snakepit_otel.telemetry import Level
from snakepit_otel.validation import build
from snakepit_otel.zero_copy import ZeroCopySettings
from snakepit_otel.zero_copy.broker import Broker, broker_path
from snakepit_otel.zero_copy.current import loose
from snakepit_otel.zero_copy.holdings import Holdings
from snakepit_otel.zero_copy.reports import PEER_LOST, REQUEST_END


class Snakepit:
    """An authority with its sessions and a pool of workers for one adapter; an async context manager.

        async with Snakepit(adapter=Classifier, workers=2) as pit:
            label = await pit.execute("classify", {"pixels": pixels}, session_id="alice")

    `adapter` is a class that workers can import, or its name (`package.module:Class`, `file.py:Class`).
    `authority_tools` are functions `f(context, ...)` that run here; `@authority_tool` says whether adapters
    may call them. `worker_environment` is added to the environment of the workers.
    `session_store`, `pool`, `server` and `zero_copy` are settings, as objects or as dicts; bad ones raise
    `ConfigurationError`. `workers` is short for `pool={"size": …}`.
    """

    def __init__(
        self,
        adapter: type | str,
        *,
        workers: int | None = None,
        authority_tools: Iterable[Callable[..., Any]] = (),
        session_store: SessionSettings | Mapping[str, Any] | None = None,
        pool: PoolSettings | Mapping[str, Any] | None = None,
        server: ServerSettings | Mapping[str, Any] | None = None,
        zero_copy: ZeroCopySettings | Mapping[str, Any] | None = None,
        worker_environment: Mapping[str, str] | None = None,
    ) -> None:
        self._adapter = spec_of(adapter)
        self._pool_settings = _settings(PoolSettings, pool, "pool.")
        if workers is not None:
            values = {**self._pool_settings.model_dump(exclude_unset=True), "size": workers}
            self._pool_settings = build(PoolSettings, values, "pool.")
        self._server_settings = _settings(ServerSettings, server, "server.")
        self._zero_copy_settings = _settings(ZeroCopySettings, zero_copy, "zero_copy.")
        self._worker_environment = dict(worker_environment or {})
        self.sessions = SessionStore(_settings(SessionSettings, session_store, "session_store."))
        self.tools = ToolRegistry((*STATE_TOOLS, *authority_tools))
        self._pool: WorkerPool | None = None
        self._gateway: Gateway | None = None
        self._running = AsyncExitStack()
        self._configured = self._controls = Controls.in_force()
        self.socket = ""
        """The address of the Unix socket, `unix:PATH`, while running."""
        self.address: str | None = None
        """The `HOST:PORT` listened on for callers, while running; None if there is none."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, start the workers, and start sweeping; all or nothing.

        Raises `ConfigurationError` for an address that will not do, `AdapterNotLoaded` or another
        `WorkerStartFailed` if no worker becomes ready.
        """
        self._configured = self._controls = Controls.in_force()
        async with AsyncExitStack() as running:
            directory = PrivateDirectory()
            running.callback(directory.close)
            running.callback(self._restore_telemetry)
            socket = self._server_settings.socket or directory.path / "authority.sock"
            memory = self._share_memory(running, Path(socket))
            pool = WorkerPool(
                self._adapter,
                f"unix:{socket}",
                str(directory.path),
                self._pool_settings,
                self._worker_environment,
                memory,
            )
            gateway = Gateway(self.sessions, self.tools, pool, memory.holdings)
            self.socket = await self._serve(running, gateway, f"unix:{socket}", admin=True)
            running.callback(Path(socket).unlink, missing_ok=True)
            self.address = None
            if self._server_settings.listen is not None:
                self.address = await self._serve(running, gateway, self._server_settings.listen, admin=False)
            running.push_async_callback(pool.stop)
            await pool.start()
            self.sessions.start()
            running.push_async_callback(self.sessions.stop)
            self._pool, self._gateway = pool, gateway
            self._running = running.pop_all()

    async def stop(self) -> None:
        """Stop taking calls, let the workers finish what they have, and stop them. Twice does no harm."""
        self._gateway = None
        await self._running.aclose()
        self._running = AsyncExitStack()

    @property
    def pool(self) -> WorkerPool:
        """The workers. Raises `PoolNotStarted` before `start`."""
        if self._pool is None:
            raise PoolNotStarted("there are no workers yet; use 'async with Snakepit(...)', or start it")
        return self._pool

    async def execute(
        self,
        tool: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        session_id: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Run a tool and return its result.

        With a `session_id` the request belongs to that session, which is created with the default TTL if it
        is not live. `timeout` is in seconds. A request runs at most once.

        Raises what the tool raised as `ToolError`, `InvalidArguments` and `ToolNotFound` as themselves,
        `WorkerExited` if the worker died with the request, `DeadlineExceeded`, `QueueTimeout`,
        `SessionQuotaExceeded`, `InvalidSession`, `ValueRefused`, `MessageTooLarge`, and for references the kinds
        of `ZeroCopyError`. Arrays and tables in the result are read-only, and valid for as long as they are held.
        """
        gateway, creator = self._started(), self._creator(tool, session_id)
        scope = gateway.holdings.open(session_id, tool)
        reason = REQUEST_END
        try:
            request = execute_request(tool, parameters, session_id, scope=scope)
            response = await gateway.execute(request, creator, timeout, scope)
            return result_of(response, request, scope.take)
        except WorkerExited:
            reason = PEER_LOST
            raise
        finally:
            scope.close(reason)

    async def stream(
        self,
        tool: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        session_id: str | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Run a tool and yield its chunks as they come; see `execute`.

        Leaving the loop early cancels the tool. Use `contextlib.aclosing` to have that happen at once.
        """
        gateway, creator = self._started(), self._creator(tool, session_id)
        scope = gateway.holdings.open(session_id, tool)
        reason = REQUEST_END

        async def decode(chunk: ToolChunk) -> Any:
            return decode_chunk(chunk.data, chunk.metadata, scope.take)

        try:
            request = execute_request(tool, parameters, session_id, stream=True, scope=scope)
            pushed = chunks(lambda take: gateway.stream(request, take, creator, timeout, scope), decode)
            async with aclosing(pushed) as stream:
                async for chunk in stream:
                    yield chunk
        except WorkerExited:
            reason = PEER_LOST
            raise
        finally:
            scope.close(reason)

    async def set_telemetry(
        self,
        *,
        level: Level | str | None = None,
        sampling: float | None = None,
        allow: Sequence[str] | None = None,
        deny: Sequence[str] | None = None,
    ) -> Controls:
        """Change what is recorded, in this process and in all workers, also those started later; say what is in force.

        `level` is `off`, `essential` (all metrics and events, and the spans of requests and calls) or `full`.
        `sampling` is the share of traces to keep, 0 to 1, of those that the configured sampler keeps. `allow`
        and `deny` are patterns, as in file names, for the names of lifecycle points, such as
        `snakepit.adapter.*`: only what is allowed, if anything is, and not denied has spans. What is not given
        stays as it is. Workers obey when this returns, but for one that is too busy to say so within five
        seconds. `stop` brings back what was configured.

        Raises `ConfigurationError` naming what cannot be.
        """
        self._started()
        changes = {"level": level, "sampling": sampling, "allow": allow, "deny": deny}
        wanted = self._controls.changed(**changes)
        if any(change is not None for change in changes.values()):
            refuse_if_off(self._configured, wanted)
            self._controls = wanted
            wanted.apply()
            # Also where nothing changes here: workers may have been started with something else.
            await self.pool.record(wanted)
        return wanted

    def _restore_telemetry(self) -> None:
        if self._controls != self._configured:
            self._configured.apply()

    def _started(self) -> Gateway:
        if self._gateway is None:
            raise PoolNotStarted("not running; use 'async with Snakepit(...)', or call start first")
        return self._gateway

    def _creator(self, tool: str, session_id: str | None) -> Creator | None:
        if session_id is None or not self.sessions.settings.strict_mode:
            return None
        return Creator(call_site(), tool)

    def _share_memory(self, running: AsyncExitStack, socket: Path) -> SharedMemory:
        settings, strict = self._zero_copy_settings, self.sessions.settings.strict_mode
        holdings = Holdings(settings, strict=strict)
        holdings.be_observed()
        # What is created before it is passed to anybody obeys whoever was started last.
        running.callback(_restore_loose, loose.settings, loose.strict)
        loose.settings, loose.strict = settings, strict
        if not holdings.shares:
            running.callback(holdings.close)
            running.callback(asyncio.get_running_loop().create_task(_sweep(holdings)).cancel)
            return SharedMemory(holdings, None)
        # Made here where it is not there yet, for both sockets.
        checked_socket_directory(socket)
        broker = Broker(holdings, broker_path(socket))
        try:
            broker.start()
        except OSError as error:
            raise ConfigurationError(f"no socket for shared memory at {broker.path}: {error}") from None
        running.callback(broker.close)
        return SharedMemory(holdings, broker.path)

    async def _serve(self, running: AsyncExitStack, gateway: Gateway, address: str, *, admin: bool) -> str:
        tls = self._server_settings.tls.files() if self._server_settings.tls else None
        trusted = self._server_settings.trust_trace_context
        if trusted is None or admin:
            # Our own workers call on the Unix socket, and are a part of every trace.
            trusted = only_known_callers(address, tls)
        server = rpc.aio_server(
            interceptors=[rpc.ServerInterceptor(trusted=trusted)],
            options=options(self._pool_settings.max_message_bytes),
        )
        add_BridgeServiceServicer_to_server(AuthorityService(gateway), server)
        add_BufferServiceServicer_to_server(
            BufferService(gateway.holdings, self._pool_settings.max_message_bytes), server
        )
        if admin:
            admin_service = AdminService(self.sessions, set_telemetry=self.set_telemetry)
            add_AdminServiceServicer_to_server(admin_service, server)
        bound = listen(server, address, tls=tls, insecure=self._server_settings.insecure)
        await server.start()
        running.push_async_callback(server.stop, self._pool_settings.shutdown_grace / 1000)
        return bound


async def _sweep(holdings: Holdings) -> None:
    """Do what a broker's thread does besides, where there is none."""
    while True:
        await asyncio.sleep(1)
        holdings.sweep()
        loose.sweep(time.monotonic())


def _restore_loose(settings: ZeroCopySettings, strict: bool) -> None:
    loose.settings, loose.strict = settings, strict


def _settings(model: Any, given: Any, where: str) -> Any:
    return given if isinstance(given, model) else build(model, dict(given or {}), where)
