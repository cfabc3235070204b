"""The receivers of telemetry: a collector, Prometheus with the hurried rules, and places for logs and traces."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dashboards.build import ALERTS, RULES
from dashboards.logql import LogQuery
from snakepit_otel.testing import OtlpSink
from tests.collector.landscape import CONFIG, free_ports, server
from tests.dashboards.proof.intake import LogIntake
from tests.dashboards.proof.pace import EXPIRY_SECONDS, GIVING_UP_SECONDS, HURRY, QUEUE_SIZE, SCRAPE_SECONDS
from tests.dashboards.proof.selection import Line, select
from tests.processes import ROOT

COMPOSE = ROOT / "dashboards" / "compose"


@dataclass(frozen=True)
class Programs:
    """Where what is run has been built."""

    otelcol: Path
    prometheus: Path
    """The folder."""


@dataclass
class Stack:
    """Where everything is, and how to ask it."""

    otlp: str
    """The collector, for OTLP over gRPC."""
    otlp_for_logs: str
    """The same, for logs that go to the back end."""
    prometheus: str
    intake: LogIntake
    """Where the collector sends what is for Loki."""
    sink: OtlpSink
    """The back end for traces, and for logs that do not go to Loki."""
    has_back_end: ExitStack
    """Closed, that back end is gone."""
    rules: Path
    """The folder where Prometheus looks for rules."""

    async def begin_to_judge(self) -> None:
        """Have Prometheus follow the rules from now on, in a hurry."""
        for rules in (RULES, ALERTS):
            (self.rules / rules.name).write_text(HURRY.rules(rules.read_text()))
        request = urllib.request.Request(f"{self.prometheus}/-/reload", method="POST")
        with await asyncio.to_thread(urllib.request.urlopen, request, timeout=60):
            pass
        assert {group["file"] for group in self._prometheus("rules")["groups"]} == {
            str(self.rules / rules.name) for rules in (RULES, ALERTS)
        }

    @property
    def prometheus_otlp(self) -> str:
        """Where Prometheus itself takes metrics over OTLP."""
        return f"{self.prometheus}/api/v1/otlp/v1/metrics"

    def query(self, promql: str, at: float | None = None) -> list[dict[str, Any]]:
        """Return the series of an instant query."""
        moment = {} if at is None else {"time": at}
        return _vector(self._prometheus("query", query=promql, **moment))

    def over_time(self, promql: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """Return the series of a query along a time."""
        found: list[dict[str, Any]] = self._prometheus("query_range", query=promql, start=start, end=end, step=step)[
            "result"
        ]
        return found

    def exemplars(self, promql: str, start: float, end: float) -> list[dict[str, Any]]:
        """Return the exemplars of all series in a query."""
        series = self._prometheus("query_exemplars", query=promql, start=start, end=end)
        return [exemplar for one in series for exemplar in one["exemplars"]]

    def series(self, selector: str, start: float, end: float) -> list[dict[str, str]]:
        """Return the labels of the series that there have been."""
        found: list[dict[str, str]] = self._prometheus("series", **{"match[]": selector}, start=start, end=end)
        return found

    def lines(self, query: LogQuery, start: float, end: float) -> list[Line]:
        """Return the lines that a query selects, the newest first, of what the collector has sent."""
        return select(query, self.intake.records, start, end)

    def _prometheus(self, endpoint: str, **parameters: Any) -> Any:
        return _asked(f"{self.prometheus}/api/v1/{endpoint}", **parameters)


def _vector(data: Any) -> list[dict[str, Any]]:
    if data["resultType"] == "scalar":
        return [{"metric": {}, "value": data["result"]}]
    return list(data["result"])


def _asked(url: str, **parameters: Any) -> Any:
    """Return what a server answers to a query; fail with what it says of one that it refuses."""
    try:
        with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(parameters)}", timeout=60) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{error.read().decode()}: {parameters}") from None


@asynccontextmanager
async def stack(programs: Programs, folder: Path) -> AsyncIterator[Stack]:
    """Run all of it on free ports until the block ends."""
    grpc, http, by_itself, metrics, health, own, prometheus = free_ports(7)
    async with AsyncExitStack() as running:
        has_back_end = running.enter_context(ExitStack())
        sink = has_back_end.enter_context(OtlpSink())
        intake = running.enter_context(LogIntake())
        made = Stack(
            f"http://127.0.0.1:{grpc}",
            f"http://127.0.0.1:{by_itself}",
            f"http://127.0.0.1:{prometheus}",
            intake,
            sink,
            has_back_end,
            folder,
        )
        await running.enter_async_context(
            server(
                folder / "otelcol.log",
                health,
                "/",
                programs.otelcol,
                *("--config", CONFIG, "--config", COMPOSE / "collector.yaml"),
                *("--config", _written(folder / "otelcol.yaml", _impatience(by_itself))),
                environ={
                    "OTELCOL_OTLP_GRPC_ENDPOINT": f"127.0.0.1:{grpc}",
                    "OTELCOL_OTLP_HTTP_ENDPOINT": f"127.0.0.1:{http}",
                    "OTELCOL_PROMETHEUS_ENDPOINT": f"127.0.0.1:{metrics}",
                    "OTELCOL_HEALTH_ENDPOINT": f"127.0.0.1:{health}",
                    "OTELCOL_METRICS_PORT": str(own),
                    "OTELCOL_BACKEND_ENDPOINT": sink.endpoint,
                    "OTELCOL_LOKI_ENDPOINT": intake.endpoint,
                    "OTELCOL_METRIC_EXPIRATION": f"{EXPIRY_SECONDS}s",
                    "OTELCOL_DECISION_WAIT_AFTER_ROOT": "1s",
                    "OTELCOL_DECISION_WAIT": "3s",
                },
            )
        )
        await running.enter_async_context(
            server(
                folder / "prometheus.log",
                prometheus,
                "/-/ready",
                programs.prometheus / "prometheus",
                f"--config.file={_written(folder / 'prometheus.yaml', _prometheus_config(metrics, own))}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{prometheus}",
                "--web.enable-otlp-receiver",
                "--web.enable-lifecycle",
                "--enable-feature=exemplar-storage",
                # As much of a hurry as the rules: five minutes by default.
                f"--query.lookback-delta={EXPIRY_SECONDS}s",
                environ={},
            )
        )
        yield made


def _written(file: Path, config: dict[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(config))
    return file


def _impatience(by_itself: int) -> dict[str, Any]:
    """Return what has the collector give up soon on a back end that is away, and send it some logs.

    These come by an address of their own: where the queue for logs is full, whoever sends more is refused, which is to
    be nobody who is well.
    """
    retry = {"initial_interval": "200ms", "max_interval": "1s", "max_elapsed_time": f"{GIVING_UP_SECONDS}s"}
    queue = {"queue_size": QUEUE_SIZE, "batch": {"min_size": QUEUE_SIZE // 4, "max_size": QUEUE_SIZE // 2}}
    return {
        "exporters": {"otlp_grpc": {"retry_on_failure": retry, "sending_queue": queue}},
        "receivers": {"otlp/by_itself": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{by_itself}"}}}},
        "service": {
            "pipelines": {
                "logs/by_itself": {
                    "receivers": ["otlp/by_itself"],
                    "processors": ["memory_limiter"],
                    "exporters": ["otlp_grpc"],
                }
            }
        },
    }


def _prometheus_config(metrics: int, own: int) -> dict[str, Any]:
    """Return dashboards/compose/prometheus.yaml with these ports, hurried, and with the hurried rules."""
    text = (COMPOSE / "prometheus.yaml").read_text()
    for port, used in ((8889, metrics), (8888, own)):
        text = text.replace(f"collector:{port}", f"127.0.0.1:{used}")
    config: dict[str, Any] = yaml.safe_load(text)
    every = f"{int(SCRAPE_SECONDS * 1000)}ms"
    config["global"] |= {"scrape_interval": every, "scrape_timeout": every}
    config["rule_files"] = [RULES.name, ALERTS.name]
    return config


def numbers(series: dict[str, Any]) -> Iterator[float]:
    """Yield the values of a series that are numbers."""
    for _, value in [series["value"]] if "value" in series else series.get("values", []):
        if (number := float(value)) == number:
            yield number
