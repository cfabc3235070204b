"""The one line that a worker reports at its start: that it serves, or why not.

The adapter's code has run in the worker by then, and whatever it has written to the control socket comes first.
"""

from __future__ import annotations

from typing import NamedTuple

import orjson

from snakepit_otel.adapters._tool import checked_name
from snakepit_otel.bridge.wire.errors import from_wire
from snakepit_otel.common.printable import printable
from snakepit_otel.errors import SnakepitError, ToolRefused
from snakepit_otel.telemetry import Level

_SHOWN = 100
"""Bytes of a line that is no report which an error has."""


class StartReport(NamedTuple):
    """What a worker that is ready has: its tools, and how much it records."""

    tools: list[str]
    level: Level


class NoReport(Exception):
    """A line that no worker of ours reports; its message says why, in one line."""


def read(line: bytes) -> StartReport | SnakepitError:
    """Return what a worker reports: that it is ready, or the error that kept it from that. Raises `NoReport`."""
    try:
        report = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise _no_report(line, "it is not JSON") from None
    if not isinstance(report, dict):
        raise _no_report(line, "it is no object")
    if "failed" in report:
        if not isinstance(report["failed"], str):
            raise _no_report(line, "'failed' is no text")
        return from_wire(report["failed"])
    tools, level = report.get("tools"), report.get("level")
    if not isinstance(tools, list) or not isinstance(level, str):
        raise _no_report(line, "'tools' is no list, or 'level' no text")
    try:
        return StartReport([checked_name(tool) for tool in tools], Level(level))
    except (ToolRefused, ValueError) as error:
        raise _no_report(line, printable(error)) from None


def _no_report(line: bytes, why: str) -> NoReport:
    shown = printable(line[:_SHOWN].decode(errors="backslashreplace"))
    more = f"… ({len(line)} bytes)" if len(line) > _SHOWN else ""
    return NoReport(f"{shown}{more}: {why}")
