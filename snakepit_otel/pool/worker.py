"""One worker of the pool: from its start to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from grpc import aio

from snakepit_otel import telemetry
from snakepit_otel.bridge import rpc
from snakepit_otel.bridge.addresses import options
from snakepit_otel.bridge.failures import from_wire
from snakepit_otel.bridge.proto.snakepit_bridge_pb2_grpc import BridgeServiceStub
from snakepit_otel.bridge.recording import Controls
from snakepit_otel.errors import SnakepitError, ToolError, WorkerStartFailed
from snakepit_otel.pool.process import Process, describe_exit
from snakepit_otel.pool.recording import WorkerRecording
from snakepit_otel.telemetry import names

_KILL_AFTER = 3.5
"""Seconds beyond its grace for a worker to send its telemetry and be gone."""


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker process is told at its start."""

    worker_id: str
    pool: str
    adapter: str
    listen: str
    authority: str
    threads: int
    max_message_bytes: int
    shutdown_grace: float
    parent: int
    broker: str | None = None
    """The path of the authority's socket for memory."""
    zero_copy: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False


class State(StrEnum):
    """What a worker is doing."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    GONE = "gone"


def _labels(worker: Worker, *_: Any) -> dict[str, str]:
    return {names.SNAKEPIT_POOL_NAME: worker.spec.pool}


def _details(worker: Worker, *_: Any) -> dict[str, str]:
    return {names.SNAKEPIT_WORKER_ID: worker.id}


class Worker:
    """A worker process and the channel to it."""

    def __init__(self, spec: WorkerSpec, environ: Mapping[str, str] | None = None) -> None:
        self.spec = spec
        self.id = spec.worker_id
        self.state = State.STARTING
        self.active = 0
        """Requests it has and has not answered."""
        self._idle = asyncio.Event()
        self._idle.set()
        self.tools: list[str] = []
        self._environ = environ
        self._ledger = Path(f"{spec.listen.removeprefix('unix:')}.ledger")
        self._process: Process | None = None
        self._channel: aio.Channel | None = None
        self.stub: Any = None
        self._controls: Controls | None = None
        self._recording: WorkerRecording | None = None
        self.peer = rpc.Peer(spec.listen)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid if self._process else 0

    @telemetry.observed(names.WORKER_START, labels=_labels, details=_details)
    async def start(self, timeout: float) -> None:
        """Start the process and wait until it serves; raise `WorkerStartFailed` if it does not."""
        process = self._process = Process(
            "snakepit_otel.pool.worker_main",
            {**_environment(self._environ), telemetry.LEDGER_FILE: str(self._ledger)},
        )
        try:
            async with asyncio.timeout(timeout):
                report = await process.exchange({**asdict(self.spec), "started_by": dict(telemetry.outgoing())})
        except TimeoutError:
            await self._kill()
            raise WorkerStartFailed(f"worker {self.id} was not ready within {timeout:g} s and was killed") from None
        except BaseException:
            await self._kill()
            raise
        if report is None or "failed" in report:
            self.state = State.GONE
            status = await process.wait()
            if report is None:
                raise WorkerStartFailed(
                    f"worker {self.id} {describe_exit(status)} before it was ready; its own output says more"
                )
            raise _start_failure(self.id, from_wire(report["failed"]))
        self.tools = list(report["tools"])
        self._channel = rpc.aio_channel(self.spec.listen, options=options(self.spec.max_message_bytes))
        self.stub = BridgeServiceStub(self._channel)
        self._recording = WorkerRecording(self.stub, self.id, telemetry.Level(report["level"]))
        if self._controls is not None:
            await self._recording.apply(self._controls)
        self.state = State.READY

    async def record(self, controls: Controls) -> None:
        """Have the worker record so: now, or before it is ready if it is only starting."""
        self._controls = controls
        if self._recording is not None:
            await self._recording.apply(controls)

    @contextmanager
    def serving(self) -> Iterator[Any]:
        """Count a request for as long as the block runs; gives the stub to make it with."""
        self.active += 1
        self._idle.clear()
        try:
            yield self.stub
        finally:
            self.active -= 1
            if not self.active:
                self._idle.set()

    async def wait(self) -> int:
        """Return the exit status once the process is gone."""
        assert self._process is not None
        status = await self._process.wait()
        self.state = State.GONE
        return status

    async def exited(self, within: float) -> int | None:
        """Return the exit status if the process is gone within so many seconds, else None."""
        assert self._process is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                return await self._process.wait()
        return None

    @telemetry.observed(names.WORKER_STOP, labels=_labels, details=_details)
    async def stop(self) -> None:
        """Let the worker finish what it has within its grace, then see that it is gone."""
        if self._process is None:
            return
        self.state = State.STOPPING
        self._process.signal(signal.SIGTERM)
        if await self.exited(self.spec.shutdown_grace + _KILL_AFTER) is None:
            await self._kill()
        self.state = State.GONE
        await self.disconnect()

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
        with suppress(FileNotFoundError):
            os.unlink(self.spec.listen.removeprefix("unix:"))  # noqa: PTH108 - no pathlib in coroutines

    def account_for_telemetry(self) -> None:
        """Count what the worker, which is gone, had recorded and did not deliver; once."""
        left = telemetry.Ledger.read(self._ledger)
        if left is None:
            return
        self._ledger.unlink(missing_ok=True)
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


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    """The worker's environment: ours, and the directory of the script we run on its import path."""
    # gRPC's own fork handlers, on by default in part, crash or hang the children of adapters that fork, and can
    # hold up the worker. It reads this when it is imported, which in a worker is before any code of ours runs.
    environ = {"GRPC_ENABLE_FORK_SUPPORT": "0", **os.environ, **(extra or {})}
    script_directory = sys.path[0] if sys.path else ""
    if script_directory and Path(script_directory).is_dir():
        known = environ.get("PYTHONPATH", "")
        environ["PYTHONPATH"] = f"{script_directory}{os.pathsep}{known}" if known else script_directory
    return environ


def _start_failure(worker_id: str, error: SnakepitError) -> SnakepitError:
    if isinstance(error, ToolError):
        return WorkerStartFailed(f"worker {worker_id} could not start: {error}\n{error.traceback}".rstrip())
    return error
