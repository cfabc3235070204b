"""For users' tests: a clock that moves when told to, ids that count, telemetry in memory, one tool without a server."""

from snakepit_otel.testing.capture import Capture
from snakepit_otel.testing.clock import FakeClock
from snakepit_otel.testing.harness import run_tool
from snakepit_otel.testing.ids import SequentialIds
from snakepit_otel.testing.sink import OtlpSink
from snakepit_otel.testing.spans import Span, tree

__all__ = ["Capture", "FakeClock", "OtlpSink", "SequentialIds", "Span", "run_tool", "tree"]
