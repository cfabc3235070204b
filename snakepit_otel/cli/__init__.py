"""The command line: serve, worker, call, sessions, dashboards, demo, doctor."""

from snakepit_otel.cli.app import main

__all__ = ["main"]
