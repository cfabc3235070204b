"""`snakepit-otel new`: start a project from a template that runs."""

from snakepit_otel.cli.new.command import app

__all__ = ["app"]
