"""Helpers for users' tests: a fake clock, sequential ids, telemetry in memory, one tool without a server."""

from snakepit_otel.testing._capture import Capture
from snakepit_otel.testing._clock import FakeClock
from snakepit_otel.testing._harness import run_tool
from snakepit_otel.testing._ids import SequentialIds
from snakepit_otel.testing._leaks import Leak, LeakError, no_leaks
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
    "Span",
    "no_leaks",
    "run_tool",
    "started_worker",
    "tree",
]
