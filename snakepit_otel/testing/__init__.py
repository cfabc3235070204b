"""Helpers for users' tests: a tool without a server, a server, clocks, ids, leaks, telemetry in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snakepit_otel.common.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from snakepit_otel.testing._capture import Capture
    from snakepit_otel.testing._clock import FakeClock
    from snakepit_otel.testing._harness import run_tool
    from snakepit_otel.testing._ids import SequentialIds
    from snakepit_otel.testing._leaks import Leak, LeakError, no_leaks
    from snakepit_otel.testing._server import ServerNotStarted, SnakepitServer
    from snakepit_otel.testing._sink import OtlpSink
    from snakepit_otel.testing._spans import Span, tree
    from snakepit_otel.testing._started_worker import started_worker

__all__ = [
    "Capture",
    "FakeClock",
    "Leak",
    "LeakError",
    "OtlpSink",
    "SequentialIds",
    "ServerNotStarted",
    "SnakepitServer",
    "Span",
    "no_leaks",
    "run_tool",
    "started_worker",
    "tree",
]

# Loaded on first use, since pytest imports this package for its fixtures in every project.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Capture": "_capture",
        "FakeClock": "_clock",
        "Leak": "_leaks",
        "LeakError": "_leaks",
        "OtlpSink": "_sink",
        "SequentialIds": "_ids",
        "ServerNotStarted": "_server",
        "SnakepitServer": "_server",
        "Span": "_spans",
        "no_leaks": "_leaks",
        "run_tool": "_harness",
        "started_worker": "_started_worker",
        "tree": "_spans",
    },
)
