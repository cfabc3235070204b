"""Stands in for Snakepit's Python package of this name, for adapters that import it; made by snakepit_otel."""

from .logging_config import configure_logging, get_logger
from .session_context import SessionContext
from .zero_copy import ZeroCopyRef

__snakepit_otel__ = True  # the real package's modules have no such mark
__version__ = "2.0.0+snakepit.otel"
__author__ = "snakepit_otel"

__all__ = ["SessionContext", "ZeroCopyRef", "__version__", "configure_logging", "get_logger"]
