"""Programs under `opentelemetry-instrument`, and a receiver that keeps whose each thing is."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakepit_otel import Client
from snakepit_otel.testing import OtlpSink
from snakepit_otel.testing._sink import _attributes
from tests.processes import Program, program

ADAPTER = "tests.telemetry.auto_instrumented_adapter:Telling"
_INSTRUMENT = str(Path(sys.executable).with_name("opentelemetry-instrument"))
_SET_BY_THE_SDK = "telemetry."


@dataclass(frozen=True)
class Told:
    """One span, metric or log record as it was sent, its scope's name, and what is said of its process."""

    of: dict[str, Any]
    scope: str
    it: Any


class KeepingSink(OtlpSink):
    """Keeps, beside what the others keep, everything as it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, list[Told]] = {"spans": [], "metrics": [], "logs": []}

    @property
    def processes(self) -> list[dict[str, Any]]:
        """The resources there are, each once."""
        found = {
            tuple(sorted((key, value) for key, value in told.of.items() if not key.startswith(_SET_BY_THE_SDK)))
            for signal_told in self.told.values()
            for told in signal_told
        }
        return [dict(pairs) for pairs in found]

    def _take_spans(self, request: Any) -> None:
        super()._take_spans(request)
        self._keep("spans", request.resource_spans, "scope_spans", "spans")

    def _take_metrics(self, request: Any) -> None:
        super()._take_metrics(request)
        self._keep("metrics", request.resource_metrics, "scope_metrics", "metrics")

    def _take_logs(self, request: Any) -> None:
        super()._take_logs(request)
        self._keep("logs", request.resource_logs, "scope_logs", "log_records")

    def _keep(self, kind: str, resources: Any, scopes: str, items: str) -> None:
        self.told[kind] += [
            Told(_attributes(resource.resource.attributes), scope.scope.name, item)
            for resource in resources
            for scope in getattr(resource, scopes)
            for item in getattr(scope, items)
        ]


def instrumented(*arguments: str, **environ: str) -> AbstractAsyncContextManager[Program]:
    """Run `opentelemetry-instrument python ARGUMENTS`."""
    return program(_INSTRUMENT, sys.executable, *arguments, environ=environ)


async def to_its_end(*arguments: str, **environ: str) -> tuple[int, str, str]:
    """Run `opentelemetry-instrument python ARGUMENTS`; return its exit status, output and complaints."""
    async with instrumented(*arguments, **environ) as started:
        output, complaints = await started.process.communicate()
    assert started.process.returncode is not None
    return started.process.returncode, output.decode(), complaints.decode()


@dataclass
class Serving:
    """An authority that serves, and how to reach it."""

    program: Program
    client: Client
    address: str

    async def stop(self) -> None:
        """Stop in good order; all it has to say has arrived then."""
        os.kill(self.program.process.pid, signal.SIGTERM)
        assert await self.program.ends() == 0


@asynccontextmanager
async def serving(
    short_path: Path, endpoint: str, *, workers: int = 2, plain: bool = False, **environ: str
) -> AsyncIterator[Serving]:
    """`snakepit-otel serve` with workers, under `opentelemetry-instrument` unless it is to be `plain`."""
    arguments = ["-m", "snakepit_otel", "serve", ADAPTER, "--workers", str(workers)]
    arguments += ["--socket", str(short_path / "a.sock")]
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_METRIC_EXPORT_INTERVAL": "600000", **environ}
    address = f"unix:{short_path / 'a.sock'}"
    run = program(*arguments, environ=environ) if plain else instrumented(*arguments, **environ)
    async with run as server:
        await server.says("serving")
        async with Client(address) as client:
            yield Serving(server, client, address)
