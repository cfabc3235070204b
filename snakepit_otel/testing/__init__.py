"""For users' tests: a clock that moves when told to, telemetry in memory, one tool without a server."""

from snakepit_otel.testing.capture import Capture
from snakepit_otel.testing.clock import FakeClock
from snakepit_otel.testing.harness import run_tool
from snakepit_otel.testing.sink import OtlpSink
from snakepit_otel.testing.spans import Span, tree

__all__ = ["Capture", "FakeClock", "OtlpSink", "Span", "run_tool", "tree"]
