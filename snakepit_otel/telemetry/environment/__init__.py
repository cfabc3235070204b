"""Environment variables of OpenTelemetry and of ours: their definitions, values and faults."""

from snakepit_otel.telemetry.environment.faults import Fault, mark_reported, reported, warn
from snakepit_otel.telemetry.environment.sdk_variables import applied
from snakepit_otel.telemetry.environment.values import Environment, examine, value

__all__ = ["Environment", "Fault", "applied", "examine", "mark_reported", "reported", "value", "warn"]
