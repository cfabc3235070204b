"""`snakepit-otel doctor`: finds out what is wrong, says so by evidence, and says what to do."""

from snakepit_otel.cli.doctor.command import doctor

__all__ = ["doctor"]
