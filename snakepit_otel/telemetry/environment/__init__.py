"""Environment variables of OpenTelemetry and of ours: what they are, what they come to, and what is wrong with them."""

from snakepit_otel.telemetry.environment.applying import applied
from snakepit_otel.telemetry.environment.faults import Fault, reported, take_as_reported, warn
from snakepit_otel.telemetry.environment.reading import Environment, examine, value

__all__ = ["Environment", "Fault", "applied", "examine", "reported", "take_as_reported", "value", "warn"]
