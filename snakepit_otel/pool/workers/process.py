"""Worker that is a process on this machine, with a channel to it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from snakepit_otel import telemetry
from snakepit_otel.adapters._leftover_processes import RUN_ID, LeftoverProcesses
from snakepit_otel.adapters._worker_hooks import WORKER_SLOT
from snakepit_otel.bridge.authority.jobs import CallFailed, Job, TakeChunk
from snakepit_otel.bridge.authority.worker_channel import WorkerChannel
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.common.printable import printable, printable_error
from snakepit_otel.errors import SnakepitError, ToolError, WorkerStartFailed
from snakepit_otel.middleware._loading import Spec
from snakepit_otel.pool.context import PoolContext
from snakepit_otel.pool.workers import start_report
from snakepit_otel.pool.workers.base import Worker, WorkerState
from snakepit_otel.pool.workers.fork_server import ForkServer, Launch
from snakepit_otel.pool.workers.os_process import ChildProcess, describe_exit
from snakepit_otel.pool.workers.program import WORKER_PROGRAM, Program, interpreter
from snakepit_otel.pool.workers.recycling import resident_bytes
from snakepit_otel.telemetry import Level, names

_log = logging.getLogger("snakepit_otel.pool")
STOP_TIMEOUT_S = 2.1  # for a worker without requests to deliver its telemetry and exit, besides its stop hook
_CONNECT_TIMEOUT_S = 1.0  # it takes a millisecond; afterwards the worker counts as ready nevertheless
_FAILED_START_EXIT_S = 3.0
_SOCKET_TIMEOUT_S, _SOCKET_POLL_S = 1.0, 0.01


@dataclass(frozen=True)
class WorkerSpec:
    """Configuration that a worker process receives at its start."""

    worker_id: str
    pool: str
    adapter: str
    listen: str
    authority: str
    profile: str
    threads: int
    max_message_bytes: int
    shutdown_grace: float
    parent: int
    token: str
    slot: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)  # what the pool's settings give it
    stop_hook_timeout: float = 0.0
    fd_server: str | None = None  # the path of its socket
    zero_copy: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False
    middleware: Sequence[Spec] = ()
    local_transport: str = "local"
    program: Program | None = None  # None: the worker imports the adapter from its own path


def _labels(worker: ProcessWorker, *_: Any) -> dict[str, str]:
    return {names.SNAKEPIT_POOL_NAME: worker.pool}


def _details(worker: ProcessWorker, *_: Any) -> dict[str, str]:
    return {names.SNAKEPIT_WORKER_ID: worker.id}


class ProcessWorker(Worker):
    """A worker process. `environ` is added to the environment of this process."""

    def __init__(
        self,
        spec: WorkerSpec,
        run_id: str,
        environ: Mapping[str, str],
        context: PoolContext | None = None,
        controls: Controls | None = None,
        fork_server: ForkServer | None = None,
    ) -> None:
        super().__init__(spec.worker_id, spec.pool, slot=spec.slot)
        self.spec = spec
        self.exit_status: int | None = None
        self._run_id = run_id
        self._environ = environ
        self._context = context
        self._controls = controls
        self._fork_server = fork_server  # None: the process is spawned
        self._variables: dict[str, str] = {}
        self._is_forked = False
        self._initial_level = Level.FULL
        self._ledger: telemetry.SharedLedger | None = None
        self._socket = Path(spec.listen.removeprefix("unix:"))
        self._socket_inode: tuple[int, int] | None = None
        self._process: ChildProcess | None = None
        self._channel: WorkerChannel | None = None

    @property
    def pid(self) -> int:
        """The process id; 0 before there is one."""
        return self._process.pid if self._process else 0

    @property
    def transport(self) -> str:
        """See `Worker`."""
        return self._channel.transport if self._channel else ""

    @property
    def is_reachable(self) -> bool:
        """Whether the worker's socket is in its place; otherwise only the current connection works."""
        return self._socket_inode is not None and self._read_inode() == self._socket_inode

    def _read_inode(self) -> tuple[int, int] | None:
        try:
            status = self._socket.lstat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    @telemetry.observed(names.WORKER_START, labels=_labels, details=_details)
    async def start(self, timeout: float) -> None:
        """Start the process and wait until it serves. Raises `WorkerStartFailed`, and the adapter's errors."""
        deadline = time.monotonic() + timeout
        try:
            async with asyncio.timeout(timeout):
                process = self._process = await self._start_process()
        except TimeoutError:
            raise self._too_late(timeout) from None
        if self._context is not None:
            self._context.pid_file.add(process.pid, self.id)
        try:
            await self._become_ready(process, timeout, deadline)
        except BaseException:
            await self._kill()
            raise

    async def _start_process(self) -> ChildProcess:
        """Fork or spawn the process. Raises `OSError`."""
        ledger = self._ledger = _ledger(self.id)
        self._variables = {
            # gRPC's own fork handlers, on by default in part, crash or hang the children of adapters that fork, and
            # can block the worker. It reads this when it is imported, in a worker before any code of this package.
            "GRPC_ENABLE_FORK_SUPPORT": "0",
            **os.environ,
            **self._environ,
            RUN_ID: self._run_id,
        }
        command = [*interpreter(), WORKER_PROGRAM, self._run_id]
        if self._fork_server is not None and self.spec.program is not None:
            launch = Launch(
                command,
                self.id,
                self._variables,
                of_worker=self._environ,
                ledger=ledger.descriptor if ledger is not None else None,
                local_transport=self.spec.local_transport,
            )
            process = await self._fork_server.fork(launch)
            if process is not None:
                self._is_forked = True
                return process
        self._is_forked = False
        more = {WORKER_SLOT: str(self.slot), telemetry.LEDGER_FILE: ledger.path if ledger is not None else ""}
        descriptors = () if ledger is None else (ledger.descriptor,)
        return ChildProcess.spawn([*command, self.id], {**self._variables, **more}, descriptors)

    def _too_late(self, timeout: float) -> WorkerStartFailed:
        return WorkerStartFailed(f"worker {self.id} was not ready within {timeout:g} s and was killed")

    async def _become_ready(self, process: ChildProcess, timeout: float, deadline: float) -> None:
        message = {
            **asdict(self.spec),
            "start_deadline": deadline,
            "started_by": dict(telemetry.outgoing()),
            "reported": telemetry.environment.reported(),
        }
        if self._is_forked:
            message["variables"] = {**self._variables, WORKER_SLOT: str(self.slot)}
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                line = await process.exchange(message)
        except TimeoutError:
            raise self._too_late(timeout) from None
        if line is None:
            description = await self.exited(_FAILED_START_EXIT_S)
            if description is None:
                raise WorkerStartFailed(
                    f"worker {self.id} closed its control socket before it was ready, went on, and was killed"
                )
            raise WorkerStartFailed(f"worker {self.id} {description} before it was ready; see its own output")
        try:
            report = start_report.read(line)
        except start_report.NoReport as error:
            raise WorkerStartFailed(
                f"worker {self.id} was killed, as what it wrote to its control socket at its start is no report; "
                f"the adapter's code may have done that: {error}"
            ) from None
        if isinstance(report, SnakepitError):
            # The process exits by itself, after it has delivered its telemetry.
            await self.exited(_FAILED_START_EXIT_S)
            if isinstance(report, ToolError):
                raise WorkerStartFailed(f"worker {self.id} could not start: {report}\n{report.traceback}".rstrip())
            raise report
        self.tools, self.descriptions, self._initial_level = report.tools, report.descriptions, report.level
        if report.has_stop_hook:
            self.stop_hook_time = self.spec.stop_hook_timeout
        self._socket_inode = self._read_inode()
        await self._authority_listens()
        channel = WorkerChannel(self.spec.listen, self.id, self.spec.max_message_bytes)
        # At once, since the socket may be removed before the first request.
        await channel.ready(_CONNECT_TIMEOUT_S)
        self._channel = channel
        if self._controls is not None:
            await self.configure(self._controls)

    async def _authority_listens(self) -> None:
        """Return once the socket for call-backs is there, or has been missing for long.

        It is for a moment where the directory was removed, and made again for this worker.
        """
        give_up = time.monotonic() + _SOCKET_TIMEOUT_S
        while not self._has_authority_socket() and time.monotonic() < give_up:
            await asyncio.sleep(_SOCKET_POLL_S)

    def _has_authority_socket(self) -> bool:
        return Path(self.spec.authority.removeprefix("unix:")).exists()

    def execute(self, job: Job, timeout: float | None) -> Awaitable[Any]:
        """See `Worker`."""
        return self._connected.execute(job, timeout)

    def stream(self, job: Job, take: TakeChunk, timeout: float | None) -> Awaitable[None]:
        """See `Worker`."""
        return self._connected.stream(job, take, timeout)

    async def ping(self, timeout: float) -> None:
        """See `Worker`."""
        await self._connected.ping(timeout)

    async def await_request_end(self, request_id: str, timeout: float) -> bool:
        """See `Worker`."""
        try:
            await self._connected.await_request_end(request_id, timeout)
        except CallFailed:
            return self.state is WorkerState.GONE
        return True

    async def configure(self, controls: Controls) -> None:
        """See `Worker`."""
        self._controls = controls
        if self._channel is not None:
            await self._channel.configure(self._initial_level, controls)

    @property
    def _connected(self) -> WorkerChannel:
        assert self._channel is not None
        return self._channel

    def admit(self) -> None:
        """Share buffers with the process."""
        if self._context is not None:
            self._context.buffer_store.add_worker(self.pid, self.id)

    def revoke(self) -> None:
        """Withdraw the worker's fencing token and buffers, and its entry in the file of workers."""
        if self._context is not None:
            self._context.fencing_tokens.revoke(self.id)
            self._context.buffer_store.remove_worker(self.pid)
            self._context.pid_file.remove(self.pid)

    def read_memory(self) -> None:
        """Update `memory` from the process's resident set."""
        self.memory = resident_bytes(self.pid)

    async def wait_exit(self) -> str:
        """See `Worker`."""
        assert self._process is not None
        self.exit_status = await self._process.wait()
        return describe_exit(self.exit_status)

    @telemetry.observed(names.WORKER_STOP, labels=_labels, details=_details)
    async def stop(self) -> None:
        """Signal the process, whose grace is over, to deliver its telemetry and exit; kill it after a timeout."""
        if self._process is None or self.state is WorkerState.GONE:
            return
        self.state, self.stop_requested = WorkerState.STOPPING, True
        self._process.signal(signal.SIGTERM)
        if self.active:
            # The second signal means now; another one, since two of a kind may arrive as one.
            self._process.signal(signal.SIGINT)
        if await self.exited(STOP_TIMEOUT_S + self.stop_hook_time) is None:
            await self._kill()

    def kill(self) -> None:
        """Kill the process."""
        self.stop_requested = True
        if self._process is not None:
            self._process.signal(signal.SIGKILL)

    async def _kill(self) -> None:
        if self._process is not None:
            self._process.signal(signal.SIGKILL)
            await self._process.wait()
        self.state = WorkerState.GONE

    async def close(self) -> None:
        """Record the telemetry that was lost, close the channel, and end the processes that tools have left."""
        self._record_lost_telemetry()
        await asyncio.gather(self._disconnect(), self._end_leftover_processes())

    async def _disconnect(self) -> None:
        # Closing before the calls have failed by themselves would cancel them, as if their callers had done so.
        await self._idle.wait()
        if self._channel is not None:
            await self._channel.close()
        if self.is_reachable:
            with suppress(OSError):
                self._socket.unlink()

    async def _end_leftover_processes(self) -> None:
        if not self.pid:
            return  # never started; and 0 is the group of processes from outside of a container
        leftovers = LeftoverProcesses.by_leader(self.pid)
        leftovers.terminate(f"worker {self.id}")
        await leftovers.end()

    def _record_lost_telemetry(self) -> None:
        """Count what the worker had recorded and did not deliver; once."""
        ledger, self._ledger = self._ledger, None
        remaining = ledger.read() if ledger is not None else None
        if ledger is None or remaining is None:
            return
        ledger.close()
        for signal_name, account in remaining.accounts.items():
            for reason, count in account.lost().items():
                telemetry.record(
                    names.METRIC_WORKER_TELEMETRY_LOST,
                    count,
                    {
                        names.SNAKEPIT_POOL_NAME: self.pool,
                        names.SNAKEPIT_TELEMETRY_SIGNAL: signal_name,
                        names.SNAKEPIT_TELEMETRY_LOSS_REASON: reason,
                    },
                )


def _ledger(worker_id: str) -> telemetry.SharedLedger | None:
    try:
        return telemetry.SharedLedger()
    except OSError as error:
        _log.warning(
            "telemetry that worker %s loses when it dies is not counted: %s",
            printable(worker_id),
            printable_error(error),
        )
        return None
