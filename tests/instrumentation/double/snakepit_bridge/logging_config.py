"""Logging to standard error, at the level that SNAKEPIT_LOG_LEVEL names."""

from __future__ import annotations

import logging
import os
import sys

_SILENT = "none"
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    _SILENT: logging.CRITICAL + 1,
}
_PREFIXES = {"snakepit.": "snakepit.", "snakepit_bridge.": "snakepit.bridge."}


class _Correlated(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.correlation_id = getattr(record, "correlation_id", "") or "-"
        return True


def configure_logging(force: bool = False) -> None:
    """Set up the root logger; without `force`, only if nobody has."""
    name = os.environ.get("SNAKEPIT_LOG_LEVEL", "error").lower()
    logging.disable(logging.CRITICAL if name == _SILENT else logging.NOTSET)
    layout = "%(asctime)s - [%(threadName)s] - %(name)s - %(levelname)s - [corr=%(correlation_id)s] %(message)s"
    logging.basicConfig(level=_LEVELS.get(name, logging.ERROR), format=layout, stream=sys.stderr, force=force)
    root = logging.getLogger()
    if not any(isinstance(one, _Correlated) for one in root.filters):
        root.addFilter(_Correlated())
    for noisy in ("grpc", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, all of them below `snakepit`."""
    for prefix, ours in _PREFIXES.items():
        if name.startswith(prefix):
            return logging.getLogger(ours + name.removeprefix(prefix))
    return logging.getLogger(f"snakepit.{name}")
