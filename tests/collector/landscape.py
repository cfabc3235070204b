"""A real collector, with a back end behind it, a Prometheus that scrapes it, and deployments that export to it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakepit_otel import Client
from snakepit_otel.errors import ToolError
from snakepit_otel.testing import OtlpSink
from tests.processes import ROOT, program
from tests.waiting import until

CONFIG = ROOT / "otel-collector.yaml"


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with ExitStack() as open_sockets:
        listening = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in listening:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in listening]


def get(port: int, path: str, **parameters: Any) -> str | None:
    """Return what a server on this machine answers, or None while it refuses or does not listen."""
    url = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except (OSError, urllib.error.HTTPError):
        return None


@dataclass
class Landscape:
    """Where everything is, and how to ask it."""

    sink: OtlpSink
    otlp: str
    otlp_http: str
    health_port: int
    own_port: int
    prometheus_port: int

    def query(self, promql: str) -> list[dict[str, Any]]:
        """Return the series of an instant query, each with `metric`, its labels, and `value`, time and text."""
        return self._ask("query", query=promql)["result"]

    def value(self, promql: str) -> float | None:
        """Return the one number that a query gives, or None if it gives nothing."""
        series = self.query(promql)
        assert len(series) <= 1, series
        return float(series[0]["value"][1]) if series else None

    def exemplars(self, promql: str) -> list[dict[str, Any]]:
        """Return the exemplars of the last hour and their labels."""
        now = time.time()
        found = self._ask("query_exemplars", query=promql, start=now - 3600, end=now + 60)
        return [exemplar for series in found for exemplar in series["exemplars"]]

    def own(self, name: str, **labels: str) -> float:
        """Return the sum of one of the collector's own metrics, over the series that have these labels."""
        total = 0.0
        for line in (get(self.own_port, "/metrics") or "").splitlines():
            if matched := re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line):
                found = dict(re.findall(r'(\w+)="([^"]*)"', matched[1] or ""))
                if labels.items() <= found.items():
                    total += float(matched[2])
        return total

    def _ask(self, endpoint: str, **parameters: Any) -> Any:
        answer = get(self.prometheus_port, f"/api/v1/{endpoint}", **parameters)
        assert answer is not None, f"Prometheus refuses {parameters}"
        return json.loads(answer)["data"]


@asynccontextmanager
async def landscape(
    otelcol: Path, folder: Path, *, percentage: float, prometheus: Path | None = None
) -> AsyncIterator[Landscape]:
    """Run the collector with otel-collector.yaml, and Prometheus if it is given, on free ports until the block ends."""
    grpc, http, metrics, health, own, prometheus_port = free_ports(6)
    async with AsyncExitStack() as running:
        sink = running.enter_context(OtlpSink())
        land = Landscape(sink, f"http://127.0.0.1:{grpc}", f"http://127.0.0.1:{http}", health, own, prometheus_port)
        environ = {
            "OTELCOL_OTLP_GRPC_ENDPOINT": f"127.0.0.1:{grpc}",
            "OTELCOL_OTLP_HTTP_ENDPOINT": f"127.0.0.1:{http}",
            "OTELCOL_PROMETHEUS_ENDPOINT": f"127.0.0.1:{metrics}",
            "OTELCOL_HEALTH_ENDPOINT": f"127.0.0.1:{health}",
            "OTELCOL_METRICS_PORT": str(own),
            "OTELCOL_BACKEND_ENDPOINT": sink.endpoint,
            "OTELCOL_TRACE_PERCENTAGE": str(percentage),
            # The deployments of these tests send at once, so nothing is worth a long wait.
            "OTELCOL_DECISION_WAIT_AFTER_ROOT": "1s",
            "OTELCOL_DECISION_WAIT": "3s",
            # Slow enough that nothing here is slow by accident; traces that are say so in their timestamps.
            "OTELCOL_SLOW_MS": "60000",
        }
        await running.enter_async_context(
            server(folder / "otelcol.log", health, "/", otelcol, "--config", CONFIG, environ=environ)
        )
        if prometheus is not None:
            config = folder / "prometheus.yml"
            config.write_text(scrape_config(metrics, own))
            await running.enter_async_context(
                server(
                    folder / "prometheus.log",
                    prometheus_port,
                    "/-/ready",
                    prometheus / "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{prometheus_port}",
                    "--enable-feature=exemplar-storage",
                    environ={},
                )
            )
        yield land


def scrape_config(metrics_port: int, own_port: int) -> str:
    """Return the scrape configuration of docs/collector.md, with these ports, and hurried."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "collector.md").read_text(), re.DOTALL)
    (text,) = (block for block in blocks if "scrape_configs" in block)
    for port, used in ((8889, metrics_port), (8888, own_port)):
        text = text.replace(f"localhost:{port}", f"127.0.0.1:{used}")
    return f"global: {{scrape_interval: 250ms}}\n{text}"


@asynccontextmanager
async def server(
    log: Path, port: int, path: str, *command: str | Path, environ: Mapping[str, str]
) -> AsyncIterator[None]:
    """Run a server until the end of the block; it has started when `path` answers."""
    with log.open("w") as file:
        process = await asyncio.create_subprocess_exec(
            *map(str, command), stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env={"PATH": os.defpath, **environ}
        )
    try:
        await until(lambda: get(port, path) is not None or process.returncode is not None)
        assert process.returncode is None, f"{command[0]} has ended:\n{log.read_text()}"
        yield
        assert process.returncode is None, f"{command[0]} has ended:\n{log.read_text()}"
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 30)
            finally:
                if process.returncode is None:
                    process.kill()


async def serve_some_requests(land: Landscape, folder: Path) -> None:
    """Run a deployment from start to stop: three good requests in two sessions, which is the quota, and a bad one."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": land.otlp,
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_RESOURCE_ATTRIBUTES": "service.namespace=web,process.command_args=secret",
    }
    arguments = ["serve", "tests.adapters_for_tests:Useful", "--workers", "1", "--socket", str(folder / "a.sock")]
    arguments += ["--max-sessions", "2", "--strict-mode"]
    async with program("-m", "snakepit_otel", *arguments, environ=environ) as server:
        await server.says("serving")
        async with Client(f"unix:{folder / 'a.sock'}") as client:
            await client.execute("add", {"amount": 1}, session_id="ordinary")
            await client.execute("add", {"amount": 1}, session_id="ordinary")
            await client.execute("echo", {"value": 1}, session_id="another")
            try:
                await client.execute("fail", {"message": "as it should"}, session_id="another")
            except ToolError:
                pass
            else:
                raise AssertionError("it did not fail")
        # Stopping sends what there is.
        os.kill(server.process.pid, signal.SIGTERM)
        assert await server.ends() == 0, "".join(server.lines)
