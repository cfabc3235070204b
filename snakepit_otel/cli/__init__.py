"""The command line: serve, worker, call, sessions, demo, doctor."""

from snakepit_otel.cli.app import main

__all__ = ["main"]
