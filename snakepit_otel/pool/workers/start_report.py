"""Report of a worker at its start, one line: its tools, or its error; adapter code may have written another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from snakepit_otel.adapters._tool import checked_name
from snakepit_otel.adapters._tool_description import MAX_TOOLS, ToolDescription, checked_description
from snakepit_otel.bridge.wire.errors import from_wire
from snakepit_otel.common.printable import printable
from snakepit_otel.errors import SnakepitError, ToolRefused
from snakepit_otel.telemetry import Level

_QUOTED_BYTES = 100


class StartReport(NamedTuple):
    """Tools and telemetry level of a worker that is ready, and whether its adapter has `on_worker_stop`."""

    tools: list[str]
    level: Level
    descriptions: Sequence[ToolDescription] = ()
    has_stop_hook: bool = False


class NoReport(Exception):
    """A line that is no start report; the message is one line."""


def read(line: bytes) -> StartReport | SnakepitError:
    """Return the report of a ready worker, or the error of one that failed. Raises `NoReport`."""
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
    tools, level, descriptions = report.get("tools"), report.get("level"), report.get("descriptions", [])
    if not isinstance(tools, list) or not isinstance(level, str) or not isinstance(descriptions, list):
        raise _no_report(line, "'tools' or 'descriptions' is no list, or 'level' no text")
    try:
        return StartReport(
            [checked_name(tool) for tool in tools],
            Level(level),
            [checked_description(one) for one in descriptions[: MAX_TOOLS + 1]],
            report.get("stop_hook") is True,
        )
    except (ToolRefused, ValueError) as error:
        raise _no_report(line, printable(error)) from None


def _no_report(line: bytes, reason: str) -> NoReport:
    shown = printable(line[:_QUOTED_BYTES].decode(errors="backslashreplace"))
    more = f"… ({len(line)} bytes)" if len(line) > _QUOTED_BYTES else ""
    return NoReport(f"{shown}{more}: {reason}")
