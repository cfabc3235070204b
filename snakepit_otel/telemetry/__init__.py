"""Names, lifecycle decorators, events, propagation and set-up of telemetry."""

# First, since what the other modules import of OpenTelemetry reads variables, and must not raise for any.
import snakepit_otel.telemetry.environment.imports  # isort: split  # noqa: F401 - for what it imports
from snakepit_otel.telemetry import environment
from snakepit_otel.telemetry.attributes import AttributeSet, Details, interned
from snakepit_otel.telemetry.controls import Level
from snakepit_otel.telemetry.correlation import correlate_logs, log_to_stderr
from snakepit_otel.telemetry.current import within
from snakepit_otel.telemetry.events import emit
from snakepit_otel.telemetry.export.ledger import Ledger, SharedLedger
from snakepit_otel.telemetry.instruments import observe, record
from snakepit_otel.telemetry.labels import Labels
from snakepit_otel.telemetry.lifecycle import observed
from snakepit_otel.telemetry.links import Trail, links_to
from snakepit_otel.telemetry.observation import Observation, error_type
from snakepit_otel.telemetry.propagation import current_trace, incoming, outgoing
from snakepit_otel.telemetry.setup import LEDGER_FILE, Telemetry, setup
from snakepit_otel.telemetry.steps import Stepped, request, step

__all__ = [
    "LEDGER_FILE",
    "AttributeSet",
    "Details",
    "Labels",
    "Ledger",
    "Level",
    "Observation",
    "SharedLedger",
    "Stepped",
    "Telemetry",
    "Trail",
    "correlate_logs",
    "current_trace",
    "emit",
    "environment",
    "error_type",
    "incoming",
    "interned",
    "links_to",
    "log_to_stderr",
    "observe",
    "observed",
    "outgoing",
    "record",
    "request",
    "setup",
    "step",
    "within",
]
