"""The collector by itself: what it accepts, and what it says when it cannot start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.collector.test_configuration import KINDS, used
from tests.processes import ROOT

pytestmark = [pytest.mark.collector, pytest.mark.timeout(1800)]


def collector(otelcol: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the collector to its end."""
    return subprocess.run(
        [otelcol, *arguments], cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=60
    )


def test_configuration_is_accepted(otelcol: Path) -> None:
    """`validate` has nothing to say of the file as it is shipped."""
    done = collector(
        otelcol, "validate", "--config", "otel-collector.yaml", OTELCOL_BACKEND_ENDPOINT="http://127.0.0.1:4417"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_missing_back_end_is_an_error(otelcol: Path) -> None:
    """Without a place for traces and logs to go, nothing starts, and it says which setting lacks a value."""
    done = collector(otelcol, "validate", "--config", "otel-collector.yaml")
    assert done.returncode == 1
    assert 'exporters::otlp_grpc: requires a non-empty "endpoint"' in done.stderr


def test_collector_is_made_of_what_the_configuration_uses(otelcol: Path) -> None:
    """The names in the configuration, and in what is laid over it, are all that the built collector has."""
    listed = yaml.safe_load(collector(otelcol, "components").stdout)
    for kind in KINDS:
        assert {entry["name"] for entry in listed[kind]} == used(kind)
