"""Attributes that the resource detector finds by the command line of a process."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource

from snakepit_otel._version import VERSION
from snakepit_otel.telemetry import _resource_detector as resource_detector
from snakepit_otel.telemetry import names
from snakepit_otel.telemetry._resource_detector import SnakepitResourceDetector
from tests.telemetry.auto_instrumented import to_its_end

pytest.importorskip("opentelemetry.distro")
AUTHORITY = {"service.name": "snakepit-authority", "service.version": VERSION, "snakepit.role": "authority"}
WORKER = {"service.name": "snakepit-worker", "service.version": VERSION, "snakepit.role": "worker"}
NAMED = {"service.name": "snakepit-otel", "service.version": VERSION}
UPSTREAM = {"service.name": "snakepit-worker", "snakepit.role": "worker"}
SAYS = """\
from opentelemetry import trace
about = trace.get_tracer_provider().resource.attributes
print(*(about.get(name, "-") for name in ("service.name", "snakepit.role")), len(about["service.instance.id"]))
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["/bin/snakepit-otel", "serve", "a:A"], AUTHORITY),
        (["-m", "snakepit_otel", "serve", "a:A"], AUTHORITY),
        (["-Xdev", "-W", "error", "-Im", "snakepit_otel", "serve"], AUTHORITY),
        (["--check-hash-based-pycs", "always", "-msnakepit_otel", "serve"], AUTHORITY),
        (["/bin/snakepit-otel", "worker", "--adapter", "a.A"], WORKER),
        (["-m", "snakepit_otel.pool.workers.worker_main", "run", "default-1.1"], WORKER),
        (["-O", "-P", "/lib/snakepit_otel/pool/workers/worker_main.py", "run", "default-1.1"], WORKER),
        (["worker_main.py", "run", "default-1.1"], {}),
        (["/bin/snakepit-otel", "call", "serve"], NAMED),
        (["/bin/snakepit-otel"], NAMED),
        (["-u", "/deps/snakepit/priv/python/grpc_server.py", "--port", "0"], UPSTREAM),
        (["grpc_server_threaded.py"], UPSTREAM),
        (["-c", "import snakepit_otel", "serve"], {}),
        (["app.py", "snakepit-otel", "serve"], {}),
        (["-m", "app", "grpc_server.py"], {}),
        (["-"], {}),
        (["-m"], {}),
        ([], {}),
    ],
)
def test_the_command_line_tells(monkeypatch: pytest.MonkeyPatch, words: list[str], expected: dict[str, str]) -> None:
    """Programs of ours and upstream's are known however they are started; of others nothing is said."""
    monkeypatch.setattr(sys, "orig_argv", ["python", *words])
    assert dict(SnakepitResourceDetector().detect().attributes) == expected


def test_it_never_raises(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where there is no command line at all, it says nothing of the process, and that it does not know."""
    monkeypatch.delattr(sys, "orig_argv")
    with caplog.at_level(logging.WARNING):
        assert SnakepitResourceDetector().detect() == Resource.get_empty()
    assert "detecting the role of this process failed" in caplog.text


def test_its_names_are_the_registrys() -> None:
    """It cannot import them, and has none of its own."""
    for name in ("SERVICE_NAME", "SERVICE_VERSION", "SNAKEPIT_ROLE"):
        assert getattr(resource_detector, name) == getattr(names, name)


def test_it_is_found_by_its_name() -> None:
    """The SDK finds it as the entry point `snakepit`."""
    (found,) = {entry.value for entry in entry_points(group="opentelemetry_resource_detector", name="snakepit")}
    assert found == "snakepit_otel.telemetry._resource_detector:SnakepitResourceDetector"


@pytest.mark.parametrize(
    ("file", "detectors", "environ", "expected"),
    [
        ("grpc_server.py", "snakepit", {}, "snakepit-worker worker 36"),
        ("grpc_server.py", "snakepit,otel", {"OTEL_SERVICE_NAME": "shop"}, "shop worker 36"),
        ("grpc_server.py", "snakepit", {"OTEL_RESOURCE_ATTRIBUTES": "snakepit.role=own"}, "snakepit-worker own 36"),
        ("grpc_server.py", "otel,snakepit", {"OTEL_SERVICE_NAME": "shop"}, "snakepit-worker worker 36"),
        ("other.py", "snakepit", {}, "unknown_service:python - 36"),
        ("grpc_server.py", "", {}, "unknown_service:python - 36"),
    ],
)
async def test_the_distro_asks_it(
    tmp_path: Path, file: str, detectors: str, environ: dict[str, str], expected: str
) -> None:
    """A real process under `opentelemetry-instrument`: what the environment says wins, but over one named after it."""
    (tmp_path / file).write_text(SAYS)
    exporters = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    asked = {"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": detectors, **exporters, **environ}
    code, output, complaints = await to_its_end(str(tmp_path / file), **asked)
    assert (code, output.strip(), complaints) == (0, expected, "")
