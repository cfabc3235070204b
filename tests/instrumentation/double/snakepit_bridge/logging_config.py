"""Logging to standard error at the level of SNAKEPIT_LOG_LEVEL."""

import logging
import os
import sys


def configure_logging(force: bool = False) -> None:
    """Set up the root logger; without `force`, only if it is not set up."""
    name = os.environ.get("SNAKEPIT_LOG_LEVEL", "error").upper()
    logging.disable(logging.CRITICAL if name == "NONE" else logging.NOTSET)
    level = logging.getLevelNamesMapping().get(name, logging.ERROR)
    layout = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
    logging.basicConfig(level=level, format=layout, stream=sys.stderr, force=force)


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, below `snakepit`."""
    return logging.getLogger(f"snakepit.{name}")
