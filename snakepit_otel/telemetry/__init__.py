"""Names, lifecycle decorators, events, propagation and set-up of telemetry."""

# First, since what the other modules import of OpenTelemetry reads variables, and must not raise for any.
import snakepit_otel.telemetry.environment.imports  # isort: split  # noqa: F401 - for what it imports
from snakepit_otel.telemetry import environment
from snakepit_otel.telemetry._attributes import AttributeSet, Details, interned
from snakepit_otel.telemetry._context import within
from snakepit_otel.telemetry._controls import Level
from snakepit_otel.telemetry._decorators import observed
from snakepit_otel.telemetry._events import emit, event_attributes
from snakepit_otel.telemetry._foreign_events import ForeignEventRecorder
from snakepit_otel.telemetry._instruments import observe, record
from snakepit_otel.telemetry._labels import Labels
from snakepit_otel.telemetry._links import Trail, links_to
from snakepit_otel.telemetry._log_correlation import correlate_logs, log_to_stderr
from snakepit_otel.telemetry._operation import Operation, error_type
from snakepit_otel.telemetry._propagation import current_trace, incoming, outgoing
from snakepit_otel.telemetry._request_attributes import set_request_attribute
from snakepit_otel.telemetry._request_steps import Stepped, request, step
from snakepit_otel.telemetry._setup import LEDGER_FILE, Telemetry, setup
from snakepit_otel.telemetry.export.ledger import Ledger, SharedLedger

__all__ = [
    "LEDGER_FILE",
    "AttributeSet",
    "Details",
    "ForeignEventRecorder",
    "Labels",
    "Ledger",
    "Level",
    "Operation",
    "SharedLedger",
    "Stepped",
    "Telemetry",
    "Trail",
    "correlate_logs",
    "current_trace",
    "emit",
    "environment",
    "error_type",
    "event_attributes",
    "incoming",
    "interned",
    "links_to",
    "log_to_stderr",
    "observe",
    "observed",
    "outgoing",
    "record",
    "request",
    "set_request_attribute",
    "setup",
    "step",
    "within",
]
