"""`snakepit-otel doctor`: check an installation, and name a remedy for each fault."""

from snakepit_otel.cli.doctor.command import doctor

__all__ = ["doctor"]
