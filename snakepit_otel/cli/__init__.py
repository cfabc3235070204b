"""The command line: serve, worker, call, sessions, demo."""

from snakepit_otel.cli.app import main

__all__ = ["main"]
