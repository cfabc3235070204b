"""A deployment: a program that sends telemetry under a service name of its own; most are `snakepit-otel serve`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from snakepit_otel import Client
from snakepit_otel.bridge.wire.status import PoolStatus, WorkerStatus
from tests.dashboards.proof.pace import EXPORT_SECONDS
from tests.processes import ROOT
from tests.waiting import until

NAMESPACE = "proof"
_TIME_TO_START = 60.0
_TIME_TO_STOP = 30.0


class Sending:
    """A Python program, `python -m ARGUMENTS`, that says "serving" when it does; what it says is in `log`."""

    def __init__(self, name: str, folder: Path, arguments: list[str], environ: Mapping[str, str], otlp: str) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._arguments = arguments
        self._environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "SNAKEPIT_"))},
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
            "OTEL_SERVICE_NAME": name,
            "OTEL_RESOURCE_ATTRIBUTES": f"service.namespace={NAMESPACE}",
            "OTEL_METRIC_EXPORT_INTERVAL": str(int(EXPORT_SECONDS * 1000)),
            "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true",
            **environ,
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and return when it serves."""
        said = len(self.log.read_text()) if self.log.exists() else 0
        with self.log.open("a") as file:
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *self._arguments),
                cwd=ROOT,
                env=self._environ,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        await until(lambda: "serving" in self.log.read_text()[said:] or process.returncode is not None, _TIME_TO_START)
        assert process.returncode is None, f"{self.name} has ended:\n{self.log.read_text()}"

    async def kill(self) -> None:
        """End it in an instant."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """Have it end as it should, or else end it; nothing where it has ended."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _TIME_TO_STOP)
        finally:
            if self._process.returncode is None:
                await self.kill()


class Deployment(Sending):
    """An authority and its workers, and a client of it.

    `folder` must have a short path, for the socket. `settings` are those of docs/configuration.md, by group.
    """

    def __init__(
        self, name: str, folder: Path, settings: Mapping[str, Any], environ: Mapping[str, str], otlp: str
    ) -> None:
        self._socket = folder / f"{name}.sock"
        home = folder / name
        home.mkdir(mode=0o700)
        environ = {
            "XDG_RUNTIME_DIR": str(home),
            **{
                f"SNAKEPIT_OTEL_{group.upper()}": value if isinstance(value, str) else json.dumps(value)
                for group, value in settings.items()
            },
            **environ,
        }
        super().__init__(name, folder, ["snakepit_otel", "serve", "--socket", str(self._socket)], environ, otlp)
        self._client: Client | None = None

    async def start(self) -> None:
        """Start it, and return when it serves."""
        await super().start()
        self._client = Client(f"unix:{self._socket}")

    async def kill(self) -> None:
        """End the authority in an instant."""
        await super().kill()
        await self._disconnect()

    async def stop(self) -> None:
        """Have it end as it should, or else end it; nothing where it has ended."""
        await super().stop()
        await self._disconnect()

    async def _disconnect(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    @property
    def client(self) -> Client:
        """A connection to it, while it runs."""
        assert self._client is not None, f"{self.name} does not run"
        return self._client

    async def pool(self, name: str = "default") -> PoolStatus:
        """Return how a pool is."""
        (pool,) = (pool for pool in (await self.client.status()).pools if pool.name == name)
        return pool

    async def workers(self, pool: str = "default") -> list[WorkerStatus]:
        """Return the workers of a pool that have a process."""
        return [worker for worker in (await self.pool(pool)).workers if worker.pid]
