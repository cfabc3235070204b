"""Levels of the log of `serve` and its workers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from snakepit_otel import Client
from snakepit_otel.cli.serve_log import configure_log
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.settings._loading import load
from tests.processes import program


@pytest.mark.parametrize(
    ("given", "variables", "expected"),
    [
        (None, {}, "log level info (--log-level, SNAKEPIT_LOG_LEVEL or log.level)"),
        (None, {"SNAKEPIT_LOG_LEVEL": "Debug"}, "log level debug (set by SNAKEPIT_LOG_LEVEL)"),
        (None, {"SNAKEPIT_LOG_LEVEL": "loud"}, "log level info (--log-level, SNAKEPIT_LOG_LEVEL or log.level)"),
        ("error", {"SNAKEPIT_LOG_LEVEL": "debug"}, "log level error (set by --log-level)"),
        (
            None,
            {"SNAKEPIT_OTEL_LOG__LEVEL": "none", "SNAKEPIT_LOG_LEVEL": "debug"},
            "log level none (set by SNAKEPIT_OTEL_LOG__LEVEL)",
        ),
        (
            None,
            {"SNAKEPIT_LOG_LEVELS": "a=debug"},
            "log level info (--log-level, SNAKEPIT_LOG_LEVEL or log.level); a=debug",
        ),
    ],
)
def test_the_place_that_sets_the_level(given: str | None, variables: Mapping[str, str], expected: str) -> None:
    """The command line wins, then our variable for the setting, then the one for all processes."""
    environ = dict(variables)
    assert configure_log(load(None, {"log": {"level": given}} if given else {}, environ), environ) == expected


def test_levels_from_a_file(tmp_path: Path) -> None:
    """The file's levels reach workers by their environment, unless the environment has levels itself."""
    file = tmp_path / "snakepit.toml"
    file.write_text('[log]\nlevel = "WARNING"\nlevels = {shop = "debug"}\n')
    environ: dict[str, str] = {}
    assert configure_log(load(file, {}, environ), environ) == f"log level warning (set by {file}:2); shop=debug"
    assert environ == {"SNAKEPIT_LOG_LEVEL": "warning", "SNAKEPIT_LOG_LEVELS": "shop=debug"}
    environ = {"SNAKEPIT_LOG_LEVEL": "error", "SNAKEPIT_LOG_LEVELS": "shop=info"}
    assert configure_log(load(file, {}, environ), environ) == "log level error (set by SNAKEPIT_LOG_LEVEL); shop=info"
    file.write_text('log.level = "loud"')
    with pytest.raises(ConfigurationError, match=r"log.level: is none of debug, info, .* \(got 'loud'\)"):
        load(file, {}, {})


@pytest.mark.parametrize("level", [None, "debug"])
async def test_lines_of_tools_and_libraries(short_path: Path, level: str | None) -> None:
    """By default, what tools log as information is there; with debug their and our details, and never a library's."""
    options = () if level is None else ("--log-level", level)
    where = short_path / "a.sock"
    environ = {
        "SNAKEPIT_LOG_LEVEL": "",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:hunter2@localhost:1",
        "OTEL_TRACES_EXPORTER": "none",
        "SNAKEPIT_OTEL_LOG__LEVELS": json.dumps({"shop.details": "error"}),
    }
    module = "tests.telemetry.logging_code"
    arguments = (f"{module}:Logging", "--authority-tools", module, "--workers", "1", "--socket", str(where), *options)
    async with program("-m", "snakepit_otel", "serve", *arguments, environ=environ) as server:
        await server.says("serving")
        first = "".join(server.lines)
        assert f"log level {level or 'info'} ({'set by --log-level' if level else '--log-level, '}" in first
        assert "exporting metrics, logs over grpc to http://" in first
        assert "hunter2" not in first
        async with Client(f"unix:{where}") as client:
            await client.execute("speak", timeout=60)
            await client.execute("speak_here", timeout=60)
        server.process.terminate()
        assert server.process.stderr is not None
        rest = first + (await server.process.stderr.read()).decode()
    assert "default-1.1 INFO shop: the worker informs" in rest
    assert " INFO shop: the authority informs" in rest
    for debugged in ("default-1.1 DEBUG shop: the worker debugs", " DEBUG shop: the authority debugs"):
        assert (debugged in rest) == (level == "debug")
    for never in (
        "fetches",
        "worker details",
        "authority details",
        "DEBUG asyncio",
        "DEBUG grpc",
        "DEBUG opentelemetry",
    ):
        assert never not in rest
