"""The whole thing: an authority and its workers."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, Self

from snakepit_otel import telemetry
from snakepit_otel._version import VERSION
from snakepit_otel.adapters import _child_signals as child_signals
from snakepit_otel.adapters._adapter_loading import spec_of
from snakepit_otel.bridge.authority.admin_service import AdminService
from snakepit_otel.bridge.authority.dispatcher import Dispatcher
from snakepit_otel.bridge.authority.fencing import FencingTokens
from snakepit_otel.bridge.authority.lease_service import LeaseService
from snakepit_otel.bridge.authority.listeners import Listener
from snakepit_otel.bridge.authority.middleware_dispatcher import dispatcher_with
from snakepit_otel.bridge.authority.service import AuthorityService, authority_limits
from snakepit_otel.bridge.authority.settings import AuthoritySettings
from snakepit_otel.bridge.authority.socket_watcher import SocketWatcher, WatchedSocket
from snakepit_otel.bridge.authority.state_tools import STATE_TOOLS
from snakepit_otel.bridge.authority.tool_registry import ToolRegistry
from snakepit_otel.bridge.proto.snakepit_admin_pb2_grpc import add_AdminServiceServicer_to_server
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import add_BridgeServiceServicer_to_server
from snakepit_otel.bridge.proto.snakepit_buffers_pb2_grpc import add_BufferServiceServicer_to_server
from snakepit_otel.bridge.proto.snakepit_leases_pb2_grpc import add_LeaseServiceServicer_to_server
from snakepit_otel.bridge.wire.buffer_copies import BufferService
from snakepit_otel.bridge.wire.chunk_stream import chunks
from snakepit_otel.bridge.wire.codec import decode_chunk
from snakepit_otel.bridge.wire.method_guards import GuardedServer
from snakepit_otel.bridge.wire.raw_messages import Chunk
from snakepit_otel.bridge.wire.restart_report import Replacement, RestartReport
from snakepit_otel.bridge.wire.status import SessionsStatus, Status
from snakepit_otel.bridge.wire.telemetry_controls import Controls, refuse_if_off
from snakepit_otel.bridge.wire.tool_calls import execute_request, result_of
from snakepit_otel.common.call_site import call_site
from snakepit_otel.common.deadline import checked_timeout
from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.common.validation import build
from snakepit_otel.errors import AlreadyStarted, ConfigurationError, PoolNotStarted
from snakepit_otel.middleware import Middleware
from snakepit_otel.middleware._settings import MiddlewareSettings, middleware_of
from snakepit_otel.pool import (
    PoolContext,
    PoolSettings,
    WorkerPidFile,
    WorkerPool,
    WorkerPools,
    kill_orphans,
    status_of,
)
from snakepit_otel.pool.context import authority_socket
from snakepit_otel.rpc.addresses import is_wide, only_known_callers
from snakepit_otel.sessions import Creator, SessionBackend, SessionSettings, SessionStore
from snakepit_otel.sessions.backends.factory import BackendFactory
from snakepit_otel.settings import DEFAULT_POOL, ServerSettings, further_pools
from snakepit_otel.system.private_directory import PrivateDirectory
from snakepit_otel.system.socket_files import SocketFile, checked_socket_directory
from snakepit_otel.telemetry import Level, names
from snakepit_otel.zero_copy import ZeroCopySettings
from snakepit_otel.zero_copy._buffer_store import BufferStore
from snakepit_otel.zero_copy._current_scope import loose
from snakepit_otel.zero_copy._fd_server import FdServer, fd_server_path
from snakepit_otel.zero_copy._limits import Limits

_log = logging.getLogger("snakepit_otel.authority")
_LAST_WORDS = 0.5
"""Seconds that callers have to hear the answers of the last requests."""
_TIME_FOR_A_SUCCESSOR = 15.0
"""Seconds for which the socket of callers has been gone when it is made again: whoever removes it may be about to start
another authority there."""


class Snakepit:
    """An authority with its sessions and its workers; an async context manager.

        async with Snakepit(adapter=Classifier, workers=2) as pit:
            label = await pit.execute("classify", {"pixels": pixels}, session_id="alice")

    `adapter` is a class that workers can import, or its name (`package.module:Class`, `file.py:Class`).
    `authority_tools` are functions `f(context, ...)` that run here; `@authority_tool` says whether adapters
    may call them. `authority` (how these run), `session_store`, `pool`, `server` and `zero_copy` are settings, as
    objects or as dicts; bad ones raise `ConfigurationError`. `workers` is short for
    `pool={"size": …}`. `pools` are further pools by name, each with an `adapter` of its own; without a top-level
    `adapter`, they are all there are. `session_backend` keeps the sessions, in place of the backend of the settings:
    a `SessionBackend`, or a class that is called with the `Limits`.
    `middleware` are the authority's, in order; as settings, they may be the workers'
    as well.
    """

    def __init__(
        self,
        adapter: type | str | None = None,
        *,
        workers: int | None = None,
        authority_tools: Iterable[Callable[..., Any]] = (),
        authority: AuthoritySettings | Mapping[str, Any] | None = None,
        session_store: SessionSettings | Mapping[str, Any] | None = None,
        pool: PoolSettings | Mapping[str, Any] | None = None,
        pools: Mapping[str, PoolSettings | Mapping[str, Any]] | None = None,
        server: ServerSettings | Mapping[str, Any] | None = None,
        zero_copy: ZeroCopySettings | Mapping[str, Any] | None = None,
        session_backend: SessionBackend | BackendFactory | None = None,
        middleware: Sequence[Middleware | str] | MiddlewareSettings | Mapping[str, Any] = (),
    ) -> None:
        self._pool_settings: dict[str, tuple[str, PoolSettings]] = {}
        if adapter is not None:
            settings = _settings(PoolSettings, pool, "pool.")
            if workers is not None:
                settings = build(PoolSettings, {**settings.model_dump(exclude_unset=True), "size": workers}, "pool.")
            if settings.adapter is not None:
                raise ConfigurationError("pool.adapter is for further pools; here, `adapter` says it")
            self._pool_settings[DEFAULT_POOL] = (spec_of(adapter), settings)
        elif pool or workers is not None:
            raise ConfigurationError("pool and workers are for the top-level adapter, and there is none")
        for name, settings in further_pools(_with_adapters_named(pools or {})).items():
            self._pool_settings[name] = (settings.adapter or "", settings)
        if not self._pool_settings:
            raise ConfigurationError("say which adapter to run: Snakepit(adapter=...), or pools with one each")
        self._server_settings = _settings(ServerSettings, server, "server.")
        self._zero_copy_settings = _settings(ZeroCopySettings, zero_copy, "zero_copy.")
        self.sessions = SessionStore(
            _settings(SessionSettings, session_store, "session_store."), backend=session_backend
        )
        running = _settings(AuthoritySettings, authority, "authority.")
        self.tools = ToolRegistry((*STATE_TOOLS, *authority_tools), running)
        self._middleware, self._worker_middleware = middleware_of(middleware)
        self._pools: WorkerPools | None = None
        self._dispatcher: Dispatcher | None = None
        self._run_id = ""
        self._since = 0.0
        self._running = AsyncExitStack()
        self._is_started = False
        self._transition = asyncio.Lock()
        """Held while it starts or stops."""
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
        """Listen, start the workers, and start sweeping; all or nothing. After `stop`, it can be started again.

        Raises `ConfigurationError` for an address that will not do, `AdapterNotLoaded` or another
        `WorkerStartFailed` if no worker becomes ready, `AlreadyStarted` if it is running.
        """
        async with self._transition:
            if self._is_started:
                raise AlreadyStarted(
                    "this Snakepit is running already; use it as it is, stop it first, or make another one"
                )
            await self._start()
            self._is_started = True

    async def _start(self) -> None:
        # Once here, and not by each of the workers, who inherit them.
        telemetry.environment.warn(telemetry.environment.Environment().faults, once=True)
        child_signals.watch()
        self._configured = self._controls = Controls.in_force()
        async with AsyncExitStack() as running:
            # Before anything listens, and closed after it.
            running.push_async_callback(self.sessions.stop)
            await self.sessions.start()
            directory = PrivateDirectory(_bury)
            running.callback(directory.close)
            running.callback(self._restore_telemetry)
            socket = self._server_settings.socket or authority_socket(directory.path)
            buffer_store, fd_server = self._share_memory(running, Path(socket))
            pid_file = WorkerPidFile(directory.path)
            context = PoolContext(
                directory, buffer_store, fd_server, FencingTokens(), pid_file, self._worker_middleware
            )
            pools = WorkerPools(
                {
                    name: WorkerPool(name, adapter, settings, context)
                    for name, (adapter, settings) in self._pool_settings.items()
                }
            )
            dispatcher = dispatcher_with(
                self._middleware,
                self.sessions,
                self.tools,
                pools,
                buffer_store,
                context.fencing_tokens,
                budget=self._server_settings.limits.budget(),
                authority_tool_bytes=self._server_settings.limits.authority_tool_bytes,
            )
            kept = await self._listen_locally(running, dispatcher, directory, fd_server)
            self.tools.threads.open()
            running.callback(self.tools.threads.close)
            self.address = None
            if self._server_settings.listen is not None:
                self.address = await self._serve(running, dispatcher, self._server_settings.listen, admin=False)
            running.push_async_callback(pools.stop)
            await pools.start()
            self._since = time.monotonic()
            self._pools, self._dispatcher = pools, dispatcher
            keeper = SocketWatcher(kept, context.ensure)
            running.push_async_callback(keeper.stop)
            keeper.start()
            self._running = running.pop_all()

    async def stop(self) -> None:
        """Take no more requests, let those there are end within `shutdown_grace`, and stop.

        Workers are given another 2.1 seconds, to send their telemetry. Does nothing before `start` and after `stop`;
        called while either runs, it waits for that first.
        """
        async with self._transition:
            if not self._is_started:
                return
            self._is_started = False
            await self.drain()
            running, self._running = self._running, AsyncExitStack()
            await running.aclose()

    async def drain(self) -> None:
        """Take no more requests, and return when those there are have ended, or have had `shutdown_grace`."""
        if self._dispatcher is not None and self._pools is not None:
            self._dispatcher = None
            await asyncio.gather(self._pools.drain(), self.tools.threads.drain(self.longest_grace))

    @property
    def longest_grace(self) -> float:
        """Seconds that requests have to end when it stops."""
        return max(settings.shutdown_grace for _, settings in self._pool_settings.values()) / 1000

    @property
    def pools(self) -> WorkerPools:
        """The pools by name. Raises `PoolNotStarted` before `start`."""
        if self._pools is None:
            raise PoolNotStarted("there are no workers yet; use 'async with Snakepit(...)', or start it")
        return self._pools

    @property
    def pool(self) -> WorkerPool:
        """The first pool: that of the top-level adapter, where there is one. Raises `PoolNotStarted`."""
        return next(iter(self.pools.values()))

    async def execute(
        self,
        tool: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        pool: str | None = None,
        idempotent: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> Any:
        """Run a tool and return its result.

        With a `session_id` the request belongs to that session, which is created with the default TTL if it
        is not live. `timeout` is in seconds, for all of it: waiting, running and calling back. It goes to the `pool` of
        that name, else to the first whose adapter has the tool. A request runs at most once; one that is
        `idempotent` is run again if it loses its worker, up to `max_retries` times within its time. `metadata` are for
        middleware, and for the tool as `context.request_metadata`.

        Raises what the tool raised as `ToolError`, `InvalidArguments` and `ToolNotFound` as themselves,
        `WorkerExited` if the worker died with the request, `DeadlineExceeded`; `PoolSaturated`, `QueueTimeout`,
        `WorkerBusy`, `SessionWorkerUnavailable`, `CircuitOpen` and `PoolNotFound` if it did not run;
        `SessionQuotaExceeded`, `InvalidSession`, `ValueRefused`, `MessageTooLarge`, and for references the kinds
        of `ZeroCopyError`. Arrays and tables in the result are read-only, and valid for as long as they are held.
        """
        dispatcher, creator = self._started(), self._creator(tool, session_id)
        timeout = checked_timeout(timeout)
        with dispatcher.buffer_store.request(session_id, tool) as scope:
            request = execute_request(
                tool, parameters, session_id, scope=scope, pool=pool, idempotent=idempotent, metadata=metadata
            )
            response = await dispatcher.execute(request, creator, timeout, scope)
            return result_of(response, request, scope.take)

    async def stream(
        self,
        tool: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        pool: str | None = None,
        idempotent: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Run a tool and yield its chunks as they come; see `execute`.

        Leaving the loop early cancels the tool. Use `contextlib.aclosing` to have that happen at once. An `idempotent`
        one is run again only if it loses its worker before its first chunk.
        """
        dispatcher, creator = self._started(), self._creator(tool, session_id)
        timeout = checked_timeout(timeout)
        with dispatcher.buffer_store.request(session_id, tool) as scope:

            async def decode(chunk: Chunk) -> Any:
                return decode_chunk(chunk.data, chunk.metadata, scope.take)

            request = execute_request(
                tool,
                parameters,
                session_id,
                stream=True,
                scope=scope,
                pool=pool,
                idempotent=idempotent,
                metadata=metadata,
            )
            pushed = chunks(lambda take: dispatcher.stream(request, take, creator, timeout, scope), decode)
            async with aclosing(pushed) as stream:
                async for chunk in stream:
                    yield chunk

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
            await self.pools.record(wanted)
        return wanted

    async def restart_workers(
        self, pool: str | None = None, progress: Callable[[Replacement], None] = lambda _: None
    ) -> RestartReport:
        """Replace all workers of a pool, or of all pools: one after the other, each once its successor is ready.

        No request fails of it that ends within `shutdown_grace`. `progress` hears of each worker. A worker whose
        successor does not become ready goes on; the report says so. Raises `PoolNotFound`, `PoolNotStarted`.
        """
        self._started()
        return await self.pools.restart(pool, progress)

    async def status(self) -> Status:
        """Return how sessions, pools and workers are. Raises `PoolNotStarted` before `start`."""
        stats, pools = await self.sessions.stats(), self.pools
        return Status(
            version=VERSION,
            run_id=self._run_id,
            pid=os.getpid(),
            uptime_seconds=time.monotonic() - self._since,
            stopping=self._dispatcher is None,
            telemetry_level=self._controls.level,
            sessions=SessionsStatus(**stats._asdict(), max_sessions=self.sessions.settings.max_sessions),
            pools=tuple(status_of(pool) for pool in pools.values()),
        )

    def _restore_telemetry(self) -> None:
        if self._controls != self._configured:
            self._configured.apply()

    def _started(self) -> Dispatcher:
        if self._dispatcher is None:
            raise PoolNotStarted("not running; use 'async with Snakepit(...)', or call start first")
        return self._dispatcher

    def _creator(self, tool: str, session_id: str | None) -> Creator | None:
        if session_id is None or not self.sessions.settings.strict_mode:
            return None
        return Creator(call_site(), tool)

    def _share_memory(self, running: AsyncExitStack, socket: Path) -> tuple[BufferStore, FdServer | None]:
        settings, strict = self._zero_copy_settings.limits, self.sessions.settings.strict_mode
        buffer_store = BufferStore(settings, strict=strict)
        buffer_store.be_observed()
        # What is created before it is passed to anybody obeys whoever was started last.
        running.callback(_restore_loose, loose.settings, loose.strict)
        loose.settings, loose.strict = settings, strict
        if not buffer_store.shares:
            running.callback(buffer_store.close)
            running.callback(asyncio.get_running_loop().create_task(_sweep(buffer_store)).cancel)
            return buffer_store, None
        # Made here where it is not there yet, for both sockets.
        checked_socket_directory(socket)
        fd_server = FdServer(buffer_store, fd_server_path(socket))
        try:
            fd_server.start()
        except ConfigurationError as error:
            raise ConfigurationError(f"no socket for shared memory at {fd_server.path}: {error}") from None
        running.callback(fd_server.close)
        return buffer_store, fd_server

    async def _listen_locally(
        self, running: AsyncExitStack, dispatcher: Dispatcher, directory: PrivateDirectory, fd_server: FdServer | None
    ) -> list[WatchedSocket]:
        """Listen for workers and, where callers have a socket of their own, for them; see `WatchedSocket`."""
        local = await running.enter_async_context(AsyncExitStack())

        async def listen(path: Path) -> SocketFile:
            await self._serve(local, dispatcher, f"unix:{path}", admin=True)
            made = SocketFile.of(path)
            local.callback(made.remove)
            return made

        async def for_workers() -> SocketFile:
            self._run_id = directory.path.name
            made = await listen(authority_socket(directory.path))
            if self._server_settings.socket is None:
                self.socket = f"unix:{made.path}"
                _make_again(fd_server, made.path)
            return made

        async def for_callers() -> SocketFile:
            made = await listen(Path(self._server_settings.socket or ""))
            self.socket = f"unix:{made.path}"
            _make_again(fd_server, made.path)
            return made

        kept = [WatchedSocket(await for_workers(), for_workers)]
        if self._server_settings.socket is not None:
            kept.append(WatchedSocket(await for_callers(), for_callers, patience=_TIME_FOR_A_SUCCESSOR))
        return kept

    async def _serve(self, running: AsyncExitStack, dispatcher: Dispatcher, address: str, *, admin: bool) -> str:
        tls = self._server_settings.tls.files() if self._server_settings.tls else None
        trusted = self._server_settings.trust_trace_context
        if trusted is None or admin:
            # Our own workers call on the Unix socket, and are a part of every trace.
            trusted = only_known_callers(address, tls)
        largest = max(settings.max_message_bytes for _, settings in self._pool_settings.values())
        listener = Listener(
            address, self._server_settings.limits, dispatcher.budget, largest=largest, tls=tls, trusted=trusted
        )
        guarded = GuardedServer(listener.server, authority_limits(largest, self.sessions.settings.max_session_bytes))
        add_BridgeServiceServicer_to_server(AuthorityService(dispatcher, dispatcher.fencing_tokens), guarded)
        add_BufferServiceServicer_to_server(
            BufferService(dispatcher.buffer_store, largest, budget=dispatcher.budget), guarded
        )
        leases = LeaseService(self.sessions, trusted=trusted, budget=dispatcher.budget, lasting=dispatcher.lasting)
        add_LeaseServiceServicer_to_server(leases, guarded)
        if admin:
            admin_service = AdminService(
                self.sessions,
                set_telemetry=self.set_telemetry,
                status=self.status,
                restart=self.restart_workers,
            )
            add_AdminServiceServicer_to_server(admin_service, guarded)
        bound = await listener.start(insecure=self._server_settings.insecure)
        if not only_known_callers(bound, tls):
            _note_who_may_call(bound, encrypted=tls is not None)
        # By then requests have had their time, and are answered.
        running.push_async_callback(listener.stop, _LAST_WORDS)
        running.callback(leases.close)
        return bound


def _make_again(fd_server: FdServer | None, socket: Path) -> None:
    if fd_server is not None:
        fd_server.look(fd_server_path(socket))


def _note_who_may_call(address: str, *, encrypted: bool) -> None:
    if is_wide(address):
        _log.warning(
            "%s is open to anybody who reaches it, from other machines, too: they may run tools and use any session "
            "whose id they know%s (insecure)",
            printable(address),
            printable("" if encrypted else ", and what is sent can be read on the way"),
        )
    else:
        _log.info(
            "%s is open to anybody on this machine, whatever user they are; the Unix socket is open to this user alone",
            printable(address),
        )


async def _sweep(buffer_store: BufferStore) -> None:
    """Do what a file-descriptor server's thread does besides, where there is none."""
    while True:
        await asyncio.sleep(1)
        buffer_store.sweep()
        loose.sweep(time.monotonic())


def _restore_loose(settings: Limits, strict: bool) -> None:
    loose.settings, loose.strict = settings, strict


def _settings(model: Any, given: Any, where: str) -> Any:
    return given if isinstance(given, model) else build(model, dict(given or {}), where)


def _with_adapters_named(
    pools: Mapping[str, PoolSettings | Mapping[str, Any]],
) -> dict[str, PoolSettings | Mapping[str, Any]]:
    """Put names in the place of classes."""
    return {
        name: {**pool, "adapter": spec_of(pool["adapter"])}
        if isinstance(pool, Mapping) and isinstance(pool.get("adapter"), type)
        else pool
        for name, pool in pools.items()
    }


def _bury(directory: Path) -> None:
    """Kill what has outlived the authority whose directory this is."""
    for orphan in kill_orphans(directory):
        text = (
            f"worker {orphan.worker_id} (pid {orphan.pid}) had outlived its authority {directory.name}; it was killed"
        )
        _log.warning("%s", printable(text, MAX_MESSAGE_CHARACTERS))
        telemetry.emit(
            names.EVENT_WORKER_ORPHAN_KILLED,
            {
                names.SNAKEPIT_POOL_NAME: orphan.worker_id.rpartition("-")[0],
                names.SNAKEPIT_WORKER_ID: orphan.worker_id,
            },
            {"count": 1},
            body=text,
        )
