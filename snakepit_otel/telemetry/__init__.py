"""Names, lifecycle decorators, events, propagation and set-up of telemetry."""

from snakepit_otel.telemetry.events import emit
from snakepit_otel.telemetry.instruments import observe, record
from snakepit_otel.telemetry.labels import Labels
from snakepit_otel.telemetry.lifecycle import observed
from snakepit_otel.telemetry.observation import Observation, error_type
from snakepit_otel.telemetry.propagation import current_trace, incoming, outgoing
from snakepit_otel.telemetry.setup import Telemetry, setup

__all__ = [
    "Labels",
    "Observation",
    "Telemetry",
    "current_trace",
    "emit",
    "error_type",
    "incoming",
    "observe",
    "observed",
    "outgoing",
    "record",
    "setup",
]
