"""Server for tests: an authority with its workers in a process of its own, and a client for every event loop."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from pathlib import Path
from typing import Any, Final, Self, Unpack

from snakepit_otel.bridge.client.client import Client
from snakepit_otel.bridge.proto import snakepit_admin_pb2 as admin_pb
from snakepit_otel.bridge.wire import methods
from snakepit_otel.bridge.wire.authority_services import ADMIN
from snakepit_otel.bridge.wire.status import Status
from snakepit_otel.bridge.wire.tool_calls import RequestOptions
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.rpc import RpcError, transport_of
from snakepit_otel.testing._server_options import plain_options

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 15.0
_CALL_SECONDS: Final = 10.0
_SETTLE_SECONDS: Final = 1.0
_STEP_SECONDS: Final = 0.01
_PAGE: Final = 1_000
_MAX_NAMED: Final = 20


class ServerNotStarted(AssertionError):
    """The server of the tests did not start; the message has its error, and the end of its log."""


class SnakepitServer:
    """A running server. Its methods can be called from anywhere, event loop or not; they block for milliseconds."""

    def __init__(
        self,
        adapter: type | str | None = None,
        settings: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the server and wait until it serves; `settings` are arguments of `Snakepit`.

        Its sessions are in strict mode unless the settings say otherwise. Raises `ServerNotStarted` and
        `ConfigurationError`.
        """
        options = plain_options(adapter, settings or {})
        store = options.setdefault("session_store", {})
        if isinstance(store, dict):
            store.setdefault("strict_mode", True)
        self._log, name = tempfile.mkstemp(prefix="snakepit-server-", suffix=".log")
        Path(name).unlink()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "snakepit_otel.testing._server_program"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(environment or {})},
            # So that an interrupt at the terminal is for the tests alone, which then end the server.
            start_new_session=True,
        )
        self._clients: dict[asyncio.AbstractEventLoop, Client] = {}
        # The loop has weak references to them only.
        self._closing: dict[Client, AsyncGenerator[None, None]] = {}
        try:
            self.address = self._started(options)
        except BaseException:
            self._kill()
            raise
        self._connection = transport_of(self.address).connect_blocking(self.address, (ADMIN,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The id of the authority's process."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What the authority and its workers have written to standard error."""
        return os.pread(self._log, os.fstat(self._log).st_size, 0).decode(errors="replace")

    def stop(self) -> None:
        """End the server and its workers; killed after 15 seconds."""
        self._connection.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._kill()

    def client(self) -> Client:
        """Return the client of the running event loop, which is closed with the loop; all tests on a loop share it."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = Client(self.address)
            self._close_with(loop, client)
        return client

    def forget_client(self) -> None:
        """Have the next `client` of the running event loop be a new one."""
        self._clients.pop(asyncio.get_running_loop(), None)

    def execute(self, tool: str, parameters: Mapping[str, Any] | None = None, **options: Unpack[RequestOptions]) -> Any:
        """Run a tool, for tests that are no coroutines; see `Client.execute`."""

        async def call() -> Any:
            async with Client(self.address) as client:
                return await client.execute(tool, parameters, **options)

        return asyncio.run(call())

    def stream(
        self, tool: str, parameters: Mapping[str, Any] | None = None, **options: Unpack[RequestOptions]
    ) -> list[Any]:
        """Return all chunks of a tool, for tests that are no coroutines; see `Client.stream`."""

        async def call() -> list[Any]:
            async with Client(self.address) as client:
                return [chunk async for chunk in client.stream(tool, parameters, **options)]

        return asyncio.run(call())

    def status(self) -> Status:
        """Return how sessions, pools and workers are."""
        return Status.of_message(self._call("GetStatus", admin_pb.GetStatusRequest()))

    def kill_worker(self, pool: str | None = None) -> int:
        """Kill a worker by SIGKILL, the one with most requests, and return its process id. Raises `LookupError`."""
        workers = [
            worker
            for one in self.status().pools
            if pool in (None, one.name)
            for worker in one.workers
            if worker.pid and worker.state == "ready"
        ]
        if not workers:
            raise LookupError("no worker is ready" if pool is None else f"no worker of pool {pool!r} is ready")
        busiest = max(workers, key=lambda worker: worker.active)
        os.kill(busiest.pid, signal.SIGKILL)
        return busiest.pid

    def session_ids(self) -> set[str]:
        """Return the ids of all live sessions."""
        return {session.id for session in self._sessions()}

    def delete_sessions(self, ids: Collection[str]) -> None:
        """Delete sessions; it is no error if there is none of an id."""
        for session_id in ids:
            self._call("DeleteSession", admin_pb.DeleteSessionRequest(session_id=session_id))

    def assert_no_sessions_left(self, besides: Collection[str] = ()) -> None:
        """Raise `AssertionError` naming the live sessions, `besides` aside, that do not end within a second.

        The error also has the lines that made the live sessions, where strict mode is on.
        """
        ends = time.monotonic() + _SETTLE_SECONDS
        while (left := [one for one in self._sessions() if one.id not in besides]) and time.monotonic() < ends:
            time.sleep(_STEP_SECONDS)
        if not left:
            return
        shown = [
            f"\n  {one.id!r}" + (f" of {one.owner!r}" if one.owner else "") + f", idle for {one.idle_seconds:.1f} s"
            for one in left[:_MAX_NAMED]
        ]
        more = f"\n  and {len(left) - _MAX_NAMED} more" if len(left) > _MAX_NAMED else ""
        raise AssertionError(f"{len(left)} sessions are left:{''.join(shown)}{more}{self._made_at()}")

    def _made_at(self) -> str:
        """Return the lines that made the live sessions, those of most sessions first."""
        request = admin_pb.GroupSessionsRequest(by="site", limit=_MAX_NAMED)
        try:
            answer = self._connection.call(f"{methods.ADMIN}/GroupSessions", request, _CALL_SECONDS, observed=False)
        except RpcError:
            return ""  # the sessions that are left are what the error is of
        sites = [f"\n  {group.count} at {group.name}" for group in answer.groups if group.name]
        return f"\nmade, of all that are live:{''.join(sites)}" if sites else ""

    def _sessions(self) -> list[admin_pb.SessionInfo]:
        found: list[admin_pb.SessionInfo] = []
        after = ""
        while True:
            page = self._call("ListSessions", admin_pb.ListSessionsRequest(after=after, limit=_PAGE)).sessions
            if not page:
                return found
            found += page
            after = page[-1].id

    def _call(self, method: str, request: Any) -> Any:
        try:
            return self._connection.call(f"{methods.ADMIN}/{method}", request, _CALL_SECONDS, observed=False)
        except RpcError as error:
            raise AssertionError(f"the server of the tests does not answer ({error}); its log:\n{self.log}") from None

    def _started(self, options: dict[str, Any]) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"path": sys.path, "options": options}).encode() + b"\n")
            self._process.stdin.flush()
            ready, _, _ = select.select([self._process.stdout], [], [], _START_SECONDS)
            line = self._process.stdout.readline() if ready else b""
            answer = json.loads(line or b'{"error": "it has ended, or does not answer"}')
        except (OSError, ValueError) as error:
            answer = {"error": str(error)}
        if "error" in answer:
            raise ServerNotStarted(f"the server of the tests did not start: {answer['error']}\nits log:\n{self.log}")
        return str(answer["address"])

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        os.close(self._log)

    def _close_with(self, loop: asyncio.AbstractEventLoop, client: Client) -> None:
        """Have the client closed when the loop ends: it then closes all asynchronous generators that have begun."""

        async def closing() -> AsyncGenerator[None, None]:
            try:
                yield
            finally:
                if self._clients.get(loop) is client:
                    del self._clients[loop]
                del self._closing[client]
                await client.close()

        generator = closing()
        step = generator.__anext__()
        try:
            step.send(None)
        except StopIteration:
            self._closing[client] = generator


class FixtureClient:
    """The client of whichever event loop runs: a `Client`, made on first use."""

    def __init__(self, server: SnakepitServer) -> None:
        self._server = server
        self.address = server.address

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the loop's client; the next use makes another."""
        client = self._server.client()
        self._server.forget_client()
        await client.close()

    def __getattr__(self, name: str) -> Any:
        try:
            client = self._server.client()
        except RuntimeError:
            raise ConfigurationError(
                f"snakepit_client.{name} needs a running asyncio event loop: use it in a coroutine, or "
                "snakepit_server.execute in a plain test"
            ) from None
        return getattr(client, name)
