"""docs/elixir-upstream-worker.md says what is there: its names, its commands, its code."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from semconv.generate import Registry
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._definitions import Point
from snakepit_otel.testing import OtlpSink
from tests.instrumentation.conftest import Snakepit
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "elixir-upstream-worker.md").read_text()
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")][2:]
COMMANDS = re.findall(r"^\$ (.+)$", PAGE, re.MULTILINE)
(HOOKS,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    """Somewhere for telemetry to go."""
    with OtlpSink() as listening:
        yield listening


def test_names_are_the_registrys() -> None:
    """Each metric, span and event that the page names is one of the registry's, and each alert there is."""
    registry = Registry.load()
    metrics = {group["metric_name"] for group in registry.metrics}
    spans = {value.span for value in vars(names).values() if isinstance(value, Point)}
    assert len(ROWS) > 8
    for _, span, metric in ROWS:
        told = {name for name in quoted(span) if "BridgeService/" not in name and not name.endswith(".*")}
        events = {name for name in told if name.startswith("snakepit.")}
        assert events <= {group["name"] for group in registry.events}
        assert told - events - {"tool.execution"} <= spans
        assert quoted(metric) - {".size"} <= metrics
    prose = quoted(re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))
    assert {name for name in prose if name.startswith("snakepit.telemetry.")} <= metrics
    alerts = set(re.findall(r"alert: (\w+)", (ROOT / "dashboards/prometheus/snakepit-alerts.yaml").read_text()))
    assert {name for name in prose if re.fullmatch(r"Snakepit\w+", name)} <= alerts


def test_the_one_liner_prints_the_directory() -> None:
    """What is to be put on PYTHONPATH is printed by the command that the page gives."""
    (command,) = [shlex.split(command) for command in COMMANDS if " -c " in command]
    printed = subprocess.run([sys.executable, *command[1:]], check=True, capture_output=True, text=True).stdout
    assert (Path(printed.strip()) / "sitecustomize.py").is_file()


def variables() -> dict[str, str]:
    """Return what the page has one export."""
    exported = [shlex.split(command)[1:] for command in COMMANDS if command.startswith("export ")]
    return dict(assignment.split("=", 1) for assignments in exported for assignment in assignments)


def what_elixir_inherits() -> str:
    """Return the PYTHONPATH of what the page has one start."""
    instrument = Path(sys.executable).with_name("opentelemetry-instrument")
    return subprocess.run(
        [instrument, "printenv", "PYTHONPATH"], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize("threaded", [False, True], ids=["server", "threaded"])
async def test_hooks_of_the_page_run_in_a_worker(
    threaded: bool, snakepit: Snakepit, tmp_path: Path, sink: OtlpSink
) -> None:
    """With the page's environment and its hooks in the adapter's module, requests have what the hooks say of them."""
    adapter = "ThreadSafe" if threaded else "Plain"
    (tmp_path / "hooked.py").write_text(f"{HOOKS}\nfrom tests.instrumentation.adapters import {adapter}\n")
    environ = {
        **variables(),
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "PYTHONPATH": f"{what_elixir_inherits()}{os.pathsep}{tmp_path}",
    }
    async with snakepit(f"hooked.{adapter}", threaded=threaded, environ=environ) as elixir:
        assert (await elixir.execute("echo", {"a": 1}, metadata={"tenant": "acme"})).value == {"a": 1}
        (handled,) = await sink.wait_for(lambda sink: [one for one in sink.spans if one.name == "handle request"])
    assert handled.service == "shop"
    assert handled.attributes["tenant"] == "acme"
    assert int(handled.attributes["answer.size"]) > 0
