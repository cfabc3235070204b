"""`snakepit-otel new`: begin something of your own from what runs at once."""

from snakepit_otel.cli.new.command import app

__all__ = ["app"]
