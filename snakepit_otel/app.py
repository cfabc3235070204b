"""Snakepit: an authority with its sessions and workers, composed of the rooms below."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self, Unpack

from snakepit_otel import telemetry
from snakepit_otel._version import VERSION
from snakepit_otel.adapters import _child_signals as child_signals
from snakepit_otel.bridge.authority.admin_service import AdminService
from snakepit_otel.bridge.authority.fencing import FencingTokens
from snakepit_otel.bridge.authority.hand_over import HandOver
from snakepit_otel.bridge.authority.local_caller import LocalCaller
from snakepit_otel.bridge.authority.memory import AuthorityMemory
from snakepit_otel.bridge.authority.middleware_dispatcher import dispatcher_with
from snakepit_otel.bridge.authority.predecessor import Offer, Predecessor
from snakepit_otel.bridge.authority.server import AuthorityServer
from snakepit_otel.bridge.authority.settings import AuthoritySettings, ServerSettings
from snakepit_otel.bridge.authority.socket_watcher import SocketWatcher
from snakepit_otel.bridge.authority.state_tools import STATE_TOOLS
from snakepit_otel.bridge.authority.tool_registry import ToolRegistry
from snakepit_otel.bridge.wire.request_listing import RequestList
from snakepit_otel.bridge.wire.restart_report import Replacement, RestartReport
from snakepit_otel.bridge.wire.status import SessionsStatus, Status
from snakepit_otel.bridge.wire.telemetry_controls import Controls, TelemetryChanges, refuse_if_off
from snakepit_otel.bridge.wire.tool_listing import ListedTool
from snakepit_otel.errors import AlreadyStarted, PoolNotStarted, SessionStoreUnavailable
from snakepit_otel.middleware import Middleware
from snakepit_otel.middleware._settings import MiddlewareSettings, middleware_of
from snakepit_otel.pool.context import PoolContext, authority_socket
from snakepit_otel.pool.pool import WorkerPool
from snakepit_otel.pool.router import WorkerPools
from snakepit_otel.pool.settings import PoolSettings
from snakepit_otel.pool.status import status_of
from snakepit_otel.pool.workers.fork_server import ForkServer
from snakepit_otel.pool.workers.orphans import WorkerPidFile, report_orphans
from snakepit_otel.sessions import SessionBackend, SessionSettings, SessionStore
from snakepit_otel.sessions._live_record import LiveRecord
from snakepit_otel.sessions.backends.factory import BackendFactory
from snakepit_otel.settings._pools import pool_settings, settings_of
from snakepit_otel.system.private_directory import PrivateDirectory
from snakepit_otel.zero_copy import ZeroCopySettings


class Snakepit(LocalCaller):
    """An authority with its sessions and its workers; an async context manager.

        async with Snakepit(adapter=Classifier, workers=2) as pit:
            label = await pit.execute("classify", {"pixels": pixels}, session_id="alice")

    `adapter` is a class that workers can import, or its name (`package.module:Class`, `file.py:Class`).
    `authority_tools` are functions `f(context, ...)` that run here; `@authority_tool` decides whether adapters
    may call them. `authority` (how these run), `session_store`, `pool`, `server` and `zero_copy` are settings, as
    objects or as dicts; bad ones raise `ConfigurationError`. `workers` is short for
    `pool={"size": …}`. `pools` are further pools by name, each with an `adapter` of its own; without a top-level
    `adapter`, they are all there are. `session_backend` keeps the sessions, in place of the backend of the settings:
    a `SessionBackend`, or a class that is called with the `Limits`. `middleware` are the authority's, in order; as
    settings, they may be the workers' as well.
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
        self._pool_settings = pool_settings(adapter, workers, pool, pools)
        self._server_settings = settings_of(ServerSettings, server, "server.")
        self._zero_copy_settings = settings_of(ZeroCopySettings, zero_copy, "zero_copy.")
        self.sessions = SessionStore(
            settings_of(SessionSettings, session_store, "session_store."), backend=session_backend
        )
        tool_settings = settings_of(AuthoritySettings, authority, "authority.")
        self.tools = ToolRegistry((*STATE_TOOLS, *authority_tools), tool_settings)
        self._middleware, self._worker_middleware = middleware_of(middleware)
        self._pools: WorkerPools | None = None
        self._server: AuthorityServer | None = None
        self._directory: PrivateDirectory | None = None
        self._since = 0.0
        self._running = AsyncExitStack()
        self._is_started = False
        self._memory: AuthorityMemory | None = None
        self._transition = asyncio.Lock()  # held while it starts or stops
        self._configured = self._controls = Controls.in_force()
        self._hand_over: HandOver | None = None
        self.predecessor: Offer | None = None  # the server whose addresses this one has taken
        self.address: str | None = None  # `HOST:PORT` of callers on TCP, while running
        self.on_handed_over: Callable[[int], None] | None = None
        """Called with the pid of a server that has taken the addresses, upon which this one is to be stopped; without
        it, none can."""

    @property
    def socket(self) -> str:
        """The address of the Unix socket of callers, `unix:PATH`, while running."""
        return "" if self._server is None else self._server.socket

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, *, take_over: bool = False) -> None:
        """Listen, start the workers, and start sweeping; all or nothing. After `stop`, it can be started again.

        With `take_over`, a server that listens at `server.socket` goes on until the workers are ready; then this one
        takes its addresses, and has it stop. That server must be one with `on_handed_over`.

        Raises `ConfigurationError` for an address that cannot be used, `AdapterNotLoaded` or another
        `WorkerStartFailed` if no worker becomes ready, `AlreadyStarted` if it is running, `HandOverRefused` if the
        other server keeps its addresses.
        """
        async with self._transition:
            if self._is_started:
                raise AlreadyStarted("this Snakepit is running already; stop it first, or make another one")
            await self._start(take_over=take_over)
            self._is_started = True

    async def _start(self, *, take_over: bool) -> None:
        # Once here, and not by each of the workers, who inherit them.
        telemetry.environment.warn(telemetry.environment.Environment().faults, once=True)
        child_signals.watch()
        self._configured = self._controls = Controls.in_force().model_copy(
            update={"strict_mode": self.sessions.strict_mode}
        )
        async with AsyncExitStack() as running:
            # Before anything listens, and closed after it.
            running.push_async_callback(self.sessions.stop)
            await self.sessions.start()
            directory = PrivateDirectory(report_orphans)
            running.callback(directory.close)
            running.push_async_callback(self._restore_telemetry)
            predecessor = None
            if take_over and self._server_settings.socket is not None:
                predecessor = Predecessor.at(self._server_settings.socket)
            if predecessor is not None:
                running.push_async_callback(predecessor.close)
            memory = AuthorityMemory(
                self._zero_copy_settings.limits,
                authority_socket(directory.path),
                strict=self.sessions.strict_mode,
            )
            running.callback(memory.close)
            context = PoolContext(
                directory,
                memory.store,
                memory.fd_server,
                FencingTokens(),
                WorkerPidFile(directory.path),
                await running.enter_async_context(ForkServer()),
                self._worker_middleware,
                self._server_settings.local_transport,
            )
            pools = WorkerPools.of(self._pool_settings, context)
            limits = self._server_settings.limits
            dispatcher = dispatcher_with(
                self._middleware,
                self.sessions,
                self.tools,
                pools,
                memory.store,
                context.fencing_tokens,
                budget=limits.budget(),
                authority_tool_bytes=limits.authority_tool_bytes,
            )
            admin = AdminService(
                self.sessions,
                set_telemetry=self.set_telemetry,
                set_strict_mode=self.set_strict_mode,
                status=self.status,
                restart=self.restart_workers,
                tools=self.list_tools,
                requests=dispatcher.live_requests,
                hand_over=self._hand_over_to,
            )
            largest = max(settings.max_message_bytes for _, settings in self._pool_settings.values())
            server = AuthorityServer(self._server_settings, dispatcher, self.sessions, admin, max_message_bytes=largest)
            await running.enter_async_context(server)
            self._server, self._directory, self._memory = server, directory, memory
            self._hand_over = HandOver(server, memory, self.on_handed_over)
            running.callback(self._hand_over.withdraw)
            sockets = [await server.listen_for_workers(lambda: authority_socket(directory.path), memory.follow)]
            self.tools.threads.open()
            running.callback(self.tools.threads.close)
            running.callback(self.tools.outcomes.log.close)
            self.address = None
            if predecessor is None:
                await server.listen_for_callers(memory)
            running.push_async_callback(pools.stop)
            await pools.start()
            self._since = time.monotonic()
            self._pools, self._dispatcher = pools, dispatcher
            if predecessor is not None:
                self.predecessor = await server.take_over(predecessor, memory)
            self.address = server.address
            if server.callers_socket is not None:
                sockets.append(server.callers_socket)
            record = self._live_record(directory.path.name, report=predecessor is None)
            running.push_async_callback(self._close_record, record)
            watcher = SocketWatcher(sockets, context.ensure, lambda: self._update_record(record))
            running.push_async_callback(watcher.stop)
            watcher.start()
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
            if self._server is not None and self._is_handed_over:
                await self._server.leave(self.longest_grace)
            await asyncio.gather(self._pools.drain(), self.tools.threads.drain(self.longest_grace))

    @property
    def longest_grace(self) -> float:
        """Seconds that requests have to end when it stops."""
        return max(settings.shutdown_grace for _, settings in self._pool_settings.values()) / 1000

    @property
    def stop_hook_time(self) -> float:
        """Seconds that adapters' `on_worker_stop` may take when it stops; 0 where there is none."""
        pools = () if self._pools is None else self._pools.values()
        return max((worker.stop_hook_time for pool in pools for worker in pool.workers), default=0.0)

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

    async def set_telemetry(self, **changes: Unpack[TelemetryChanges]) -> Controls:
        """Change what this process and all workers record, also those started later; see `TelemetryChanges`.

        Returns the controls when they are in force, but in a worker that was too busy to confirm them within five
        seconds. `stop` brings back what was configured. Raises `ConfigurationError` naming what cannot be.
        """
        self._started()
        controls = self._controls.changed(**changes)
        if any(change is not None for change in changes.values()):
            refuse_if_off(self._configured, controls)
            self._controls = controls
            controls.apply()
            # Also where nothing changes here: workers may have been started with something else.
            await self.pools.configure(controls)
        return controls

    async def set_strict_mode(self, strict_mode: bool) -> None:
        """Switch strict mode on or off, here and in all workers; sessions live on.

        Of sessions that were made while it was off, reports have the owner and no call site. `stop` brings back what
        was configured. Raises `PoolNotStarted`.
        """
        self._started()
        await self.sessions.set_strict_mode(strict_mode)
        if self._memory is not None:
            self._memory.set_strict(strict_mode)
        self._controls = self._controls.model_copy(update={"strict_mode": strict_mode})
        await self.pools.configure(self._controls)

    async def restart_workers(
        self, pool: str | None = None, progress: Callable[[Replacement], None] = lambda _: None
    ) -> RestartReport:
        """Replace all workers of a pool, or of all pools: one after the other, each once its successor is ready.

        Requests that end within `shutdown_grace` do not fail. `progress` is called for each worker. A worker whose
        successor does not become ready stays, and the report has that. Raises `PoolNotFound`, `PoolNotStarted`.
        """
        self._started()
        return await self.pools.restart(pool, progress)

    def list_tools(self) -> list[ListedTool]:
        """Return the tools that callers may call, those of the authority first. Raises `PoolNotStarted`."""
        return [*self.tools.listed(), *self.pools.tools()]

    def list_requests(self, limit: int = 1_000) -> RequestList:
        """Return the oldest requests that wait or run, at most `limit`. Raises `PoolNotStarted`."""
        return self._started().live_requests.list(limit)

    def cancel_request(self, request_id: str) -> bool:
        """Cancel the request of this id, or the only one whose id begins so; return whether there is one.

        It is as if its caller had gone; the caller gets `RequestCancelled`. Raises `PoolNotStarted`, and
        `ConfigurationError` for a beginning that is too short, or that several ids share.
        """
        return self._started().live_requests.cancel(request_id)

    async def status(self) -> Status:
        """Return how sessions, pools and workers are. Raises `PoolNotStarted` before `start`."""
        pools, is_away = self.pools, False
        try:
            stats = await self.sessions.stats()
        except SessionStoreUnavailable:
            stats, is_away = self.sessions.stats_snapshot(), True
        return Status(
            version=VERSION,
            run_id="" if self._directory is None else self._directory.path.name,
            pid=os.getpid(),
            uptime_seconds=time.monotonic() - self._since,
            stopping=self._dispatcher is None,
            telemetry_level=self._controls.level,
            strict_mode=self.sessions.strict_mode,
            sessions=SessionsStatus(
                **stats._asdict(),
                max_sessions=self.sessions.settings.max_sessions,
                max_sessions_per_owner=self.sessions.settings.max_sessions_per_owner,
                store=self.sessions.name,
                store_is_away=is_away,
            ),
            pools=tuple(status_of(pool) for pool in pools.values()),
            tools=(*self.tools.statuses(), *pools.tool_statuses()),
            listeners=() if self._server is None else self._server.listeners(),
        )

    async def _hand_over_to(self, pid: int, listening: bool) -> tuple[str, int]:
        """Offer the addresses to a process, or stop for it; return the address on TCP, and how many sessions end."""
        self._started()
        assert self._hand_over is not None
        if listening:
            self._hand_over.complete(pid)
        else:
            self._hand_over.offer(pid)
        return self.address or "", 0 if self.sessions.is_lasting else (await self.sessions.stats()).live

    def _live_record(self, run_id: str, *, report: bool) -> LiveRecord | None:
        """Begin the record of live sessions, where they end with this process and it has a place of its own."""
        if self._server_settings.socket is None or self.sessions.is_lasting:
            return None
        socket = Path(self._server_settings.socket)
        record = LiveRecord(socket, run_id, lambda: self.sessions.stats_snapshot().live)
        record.begin(report=report)
        return record

    @property
    def _is_handed_over(self) -> bool:
        return self._hand_over is not None and self._hand_over.is_taken

    def _update_record(self, record: LiveRecord | None) -> None:
        # The successor's is in the same place.
        if record is not None and not self._is_handed_over:
            record.update()

    async def _close_record(self, record: LiveRecord | None) -> None:
        if record is not None and not self._is_handed_over:
            await self.sessions.sweep()  # what has expired is not lost
            record.close()

    async def _restore_telemetry(self) -> None:
        if self._controls != self._configured:
            self._configured.apply()
            await self.sessions.set_strict_mode(self._configured.strict_mode)
