"""Logging as adapters set it up: the worker has done so, by the same variable."""

from __future__ import annotations

import logging

from snakepit_otel.compatibility import environment

__snakepit_otel__ = True


def configure_logging(force: bool = False) -> None:
    """Log to standard error as SNAKEPIT_LOG_LEVEL says, where nothing logs yet; anew with `force`."""
    if force:
        root = logging.getLogger()
        for handler in list(root.handlers):
            root.removeHandler(handler)
    environment.configure_logging()


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, below `snakepit`."""
    if name.startswith("snakepit."):
        return logging.getLogger(name)
    if name.startswith("snakepit_bridge."):
        return logging.getLogger("snakepit.bridge." + name.removeprefix("snakepit_bridge."))
    return logging.getLogger(f"snakepit.{name}")
