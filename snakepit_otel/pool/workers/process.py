"""One worker of the pool: from its start to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from grpc import aio

from snakepit_otel import rpc, telemetry
from snakepit_otel.adapters._leftover_processes import RUN_ID, LeftoverProcesses
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.proto import snakepit_supervision_pb2 as supervision_pb
from snakepit_otel.bridge.proto.snakepit_supervision_pb2_grpc import SupervisionServiceStub
from snakepit_otel.bridge.wire import methods
from snakepit_otel.bridge.wire.raw_messages import worker_stub
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.common.printable import printable, printable_error
from snakepit_otel.errors import SnakepitError, ToolError, WorkerStartFailed
from snakepit_otel.middleware._loading import Spec
from snakepit_otel.pool.workers import start_report
from snakepit_otel.pool.workers.in_flight import InFlight
from snakepit_otel.pool.workers.os_process import Process, describe_exit
from snakepit_otel.pool.workers.program import WORKER_PROGRAM, Program, interpreter
from snakepit_otel.pool.workers.recycling import ExitReason
from snakepit_otel.pool.workers.telemetry_controls import WorkerTelemetryControls
from snakepit_otel.rpc.addresses import options
from snakepit_otel.rpc.transports.grpc import GrpcConnection
from snakepit_otel.telemetry import names

_log = logging.getLogger("snakepit_otel.pool")
TIME_TO_LEAVE = 2.1
"""Seconds that a worker without requests has to send its telemetry and be gone."""
_TIME_TO_CONNECT = 1.0
"""Seconds after which a worker that serves is taken for ready without a connection; it takes a millisecond."""
_TIME_TO_EXIT = 3.0
"""Seconds that a worker whose start has failed has to end by itself."""
_TIME_FOR_LAST_ANSWERS = 0.05
"""Seconds after a worker's end in which what it had sent may still be read."""

_UNRECORDED = (("traceparent", f"00-{1:032x}-{1:016x}-00"),)
"""Has the worker take heartbeats for a part of a trace that is not recorded: a trace each would be noise."""


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker process is told at its start."""

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
    fd_server: str | None = None
    """The path of the authority's socket for memory."""
    zero_copy: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False
    middleware: Sequence[Spec] = ()
    program: Program | None = None
    """Without one, the adapter is found where the worker is."""


class State(StrEnum):
    """What a worker is doing."""

    STARTING = "starting"
    SPARE = "spare"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    GONE = "gone"


class Suspicion(StrEnum):
    """AffinityReason a worker is given requests only where there is no other."""

    CONNECTION = "connection"
    HEARTBEAT = "heartbeat"
    SOCKET = "socket"


def _labels(worker: Worker, *_: Any) -> dict[str, str]:
    return {names.SNAKEPIT_POOL_NAME: worker.spec.pool}


def _details(worker: Worker, *_: Any) -> dict[str, str]:
    return {names.SNAKEPIT_WORKER_ID: worker.id}


class Worker:
    """A worker process and the channel to it.

    `environ` is added to our environment; `spawned` hears of the process; `controls` say what it is to record.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        run_id: str,
        environ: Mapping[str, str],
        spawned: Callable[[int, str], None],
        controls: Controls | None = None,
    ) -> None:
        self.spec = spec
        self.id = spec.worker_id
        self.state = State.STARTING
        self.suspicion: Suspicion | None = None
        self.exit_reason: ExitReason | None = None
        """AffinityReason it is about to end; None if nothing is known of that."""
        self.stop_requested = False
        """Whether its end is our doing."""
        self.has_successor = False
        """Whether another worker has been started in its place."""
        self.is_restart = False
        """Whether it was started in the place of one that had ended unasked."""
        self.active = 0
        """Requests it has and has not ended, those that nobody waits for any more included."""
        self.abandoned_requests = 0
        """Those of them that nobody waits for any more."""
        self.served = 0
        """Requests that it was given."""
        self.answered = 0
        """Requests that it gave an answer to."""
        self.started = time.monotonic()
        self.last_heartbeat: float | None = None
        """When it last answered a heartbeat, on the monotonic clock."""
        self.missed_heartbeats = 0
        """Heartbeats in a row that it did not answer in time."""
        self.memory: int | None = None
        """Its resident bytes when they were last read."""
        self.removed = asyncio.Event()
        """Set once it is gone and the pool counts on it no more."""
        self.in_flight = InFlight()
        self._idle = asyncio.Event()
        self._idle.set()
        self.tools: list[str] = []
        self._run_id = run_id
        self._environ = environ
        self._spawned = spawned
        self._ledger: telemetry.SharedLedger | None = None
        self._socket = Path(spec.listen.removeprefix("unix:"))
        self._listens: tuple[int, int] | None = None
        """Its socket, as the kernel knows it."""
        self._process: Process | None = None
        self._channel: aio.Channel | None = None
        self.stub: Any = None
        self._supervision: Any = None
        self._controls = controls
        self._recording: WorkerTelemetryControls | None = None
        self.peer = rpc.Peer(spec.listen)

    @property
    def pid(self) -> int:
        """The process id; 0 before there is one."""
        return self._process.pid if self._process else 0

    @property
    def suspect(self) -> bool:
        """Whether it is given requests only where there is no other."""
        return self.suspicion is not None

    @telemetry.observed(names.WORKER_START, labels=_labels, details=_details)
    async def start(self, timeout: float) -> None:
        """Start the process and wait until it serves; raise `WorkerStartFailed` if it does not."""
        ledger = self._ledger = _ledger(self.id)
        process = self._process = Process(
            [*interpreter(), WORKER_PROGRAM, self._run_id, self.id],
            {
                # gRPC's own fork handlers, on by default in part, crash or hang the children of adapters that fork, and
                # can hold up the worker. It reads this when it is imported, in a worker before any code of ours runs.
                "GRPC_ENABLE_FORK_SUPPORT": "0",
                **os.environ,
                **self._environ,
                RUN_ID: self._run_id,
                telemetry.LEDGER_FILE: ledger.path if ledger is not None else "",
            },
            () if ledger is None else (ledger.descriptor,),
        )
        self._spawned(process.pid, self.id)
        try:
            await self._become_ready(process, timeout)
        except BaseException:
            await self._kill()
            raise

    async def _become_ready(self, process: Process, timeout: float) -> None:
        message = {
            **asdict(self.spec),
            "started_by": dict(telemetry.outgoing()),
            "reported": telemetry.environment.reported(),
        }
        try:
            async with asyncio.timeout(timeout):
                line = await process.exchange(message)
        except TimeoutError:
            raise WorkerStartFailed(f"worker {self.id} was not ready within {timeout:g} s and was killed") from None
        if line is None:
            status = await self.exited(_TIME_TO_EXIT)
            if status is None:
                raise WorkerStartFailed(
                    f"worker {self.id} closed its control socket before it was ready, went on, and was killed"
                )
            raise WorkerStartFailed(
                f"worker {self.id} {describe_exit(status)} before it was ready; its own output says more"
            )
        try:
            report = start_report.read(line)
        except start_report.NoReport as error:
            raise WorkerStartFailed(
                f"worker {self.id} was killed, as what it wrote to its control socket at its start is no report; "
                f"the adapter's code may have done that: {error}"
            ) from None
        if isinstance(report, SnakepitError):
            # It ends by itself, and sends its telemetry first.
            await self.exited(_TIME_TO_EXIT)
            raise _start_failure(self.id, report)
        self._listens = self._found()
        self.tools = report.tools
        self._channel = rpc.aio_channel(self.spec.listen, options=options(self.spec.max_message_bytes))
        # Now, since by the first request somebody may have removed the socket.
        with suppress(TimeoutError):
            async with asyncio.timeout(_TIME_TO_CONNECT):
                await self._channel.channel_ready()
        self.stub = worker_stub(self._channel)
        self._supervision = SupervisionServiceStub(self._channel)
        self._recording = WorkerTelemetryControls(
            GrpcConnection(self._channel, [SupervisionServiceStub]), self.id, report.level
        )
        if self._controls is not None:
            await self._recording.apply(self._controls)

    @property
    def is_reachable(self) -> bool:
        """Whether its socket is there; if not, it answers for as long as the connection lasts that there is."""
        return self._listens is not None and self._found() == self._listens

    def _found(self) -> tuple[int, int] | None:
        try:
            status = self._socket.lstat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    async def record(self, controls: Controls) -> None:
        """Have the worker record so: now, or before it is ready if it is only starting."""
        self._controls = controls
        if self._recording is not None:
            await self._recording.apply(controls)

    def acquire(self) -> None:
        """Count a request that the worker is given."""
        self.active += 1
        self.served += 1
        self._idle.clear()

    def release(self) -> None:
        """Count a request as ended."""
        self.active -= 1
        self._note_if_idle()

    def abandon(self) -> None:
        """Count a request, which goes on, as one that nobody waits for any more."""
        self.abandoned_requests += 1
        self._note_if_idle()

    def end_abandoned(self) -> None:
        """Take that back; the request is about to be let go."""
        self.abandoned_requests -= 1

    def _note_if_idle(self) -> None:
        if self.active == self.abandoned_requests:
            self._idle.set()

    async def ping(self, timeout: float) -> None:
        """Ask whether the worker's event loop turns. Raises `grpc.aio.AioRpcError`."""
        await self.stub.Ping(pb.PingRequest(message="heartbeat"), timeout=timeout, metadata=_UNRECORDED)
        self.last_heartbeat = time.monotonic()

    async def end_of(self, request_id: str, timeout: float) -> bool:
        """Wait until nothing of a request runs in the worker any more; False if that is not so in time."""
        request = supervision_pb.AwaitEndRequest(request_id=request_id)
        try:
            await rpc.call(self._supervision, methods.AWAIT_END, request, timeout, peer=self.peer)
        except (aio.AioRpcError, aio.UsageError):  # the second where its channel is closed already
            return self.state is State.GONE
        return True

    async def wait(self) -> int:
        """Return the exit status once the process is gone."""
        assert self._process is not None
        status = await self._process.wait()
        self.state = State.GONE
        asyncio.get_running_loop().call_later(_TIME_FOR_LAST_ANSWERS, self.in_flight.end_all)
        return status

    async def exited(self, within: float) -> int | None:
        """Return the exit status if the process is gone within so many seconds, else None."""
        assert self._process is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                return await self._process.wait()
        return None

    async def idle(self, within: float) -> bool:
        """Wait until nobody waits for the worker's answers, or for so many seconds; say whether nobody does."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._idle.wait()
        return self._idle.is_set()

    @telemetry.observed(names.WORKER_STOP, labels=_labels, details=_details)
    async def stop(self) -> None:
        """Ask the worker, which has had its time, to send its telemetry and go; see that it does."""
        if self._process is None or self.state is State.GONE:
            return
        self.state, self.stop_requested = State.STOPPING, True
        self._process.signal(signal.SIGTERM)
        if self.active:
            # The second signal means now; another one, since two of a kind may arrive as one.
            self._process.signal(signal.SIGINT)
        if await self.exited(TIME_TO_LEAVE) is None:
            await self._kill()

    def kill(self) -> None:
        """End the process at once."""
        self.stop_requested = True
        if self._process is not None:
            self._process.signal(signal.SIGKILL)

    async def disconnect(self) -> None:
        """Close the channel and remove the socket, once every call in flight has failed by itself.

        Closing earlier would cancel them, which callers could not tell from being cancelled themselves.
        """
        await self._idle.wait()
        if self._recording is not None:
            await self._recording.close()
        if self._channel is not None:
            await self._channel.close()
            self._channel = None
        if self.is_reachable:
            with suppress(OSError):
                self._socket.unlink()

    async def end_leftover_processes(self) -> None:
        """End the processes that its tools have started, and that it, which is gone, has not ended."""
        if not self.pid:
            return  # it was never started; and 0 is the group of processes from outside of a container
        left = LeftoverProcesses.by_leader(self.pid)
        left.terminate(f"worker {self.id}")
        await left.end()

    def record_lost_telemetry(self) -> None:
        """Count what the worker, which is gone, had recorded and did not deliver; once."""
        ledger, self._ledger = self._ledger, None
        left = ledger.read() if ledger is not None else None
        if ledger is None or left is None:
            return
        ledger.close()
        for signal_name, account in left.accounts.items():
            for reason, count in account.lost().items():
                telemetry.record(
                    names.METRIC_WORKER_TELEMETRY_LOST,
                    count,
                    {
                        names.SNAKEPIT_POOL_NAME: self.spec.pool,
                        names.SNAKEPIT_TELEMETRY_SIGNAL: signal_name,
                        names.SNAKEPIT_TELEMETRY_LOSS_REASON: reason,
                    },
                )

    async def _kill(self) -> None:
        if self._process is not None:
            self._process.signal(signal.SIGKILL)
            await self._process.wait()
        self.state = State.GONE


def _ledger(worker_id: str) -> telemetry.SharedLedger | None:
    try:
        return telemetry.SharedLedger()
    except OSError as error:
        _log.warning(
            "what worker %s fails to deliver of its telemetry is not counted if it dies: %s",
            printable(worker_id),
            printable_error(error),
        )
        return None


def _start_failure(worker_id: str, error: SnakepitError) -> SnakepitError:
    if isinstance(error, ToolError):
        return WorkerStartFailed(f"worker {worker_id} could not start: {error}\n{error.traceback}".rstrip())
    return error
