"""An adapter that tells how its worker is observed."""

from __future__ import annotations

import logging
from typing import Any

from opentelemetry import _logs, metrics, trace

from snakepit_otel import BaseAdapter, tool
from snakepit_otel.telemetry import _metric_cells
from snakepit_otel.telemetry.spans import select

_log = logging.getLogger("telling")


class Telling(BaseAdapter):
    """Says what it is asked."""

    @tool
    def add(self, amount: int) -> int:
        """Add to the session's total and return it."""
        total: int = self.session_context.state.change("total", lambda total: total + amount, default=0)
        return total

    @tool
    def complain(self, words: str) -> None:
        """Log a warning."""
        _log.warning(words)

    @tool
    def observed(self) -> dict[str, Any]:
        """Return by what means."""
        provider: Any = trace.get_tracer_provider()
        processors = provider._active_span_processor._span_processors
        return {
            "providers": [
                type(made).__module__.split(".")[1]
                for made in (provider, metrics.get_meter_provider(), _logs.get_logger_provider())
            ],
            "processors": [type(processor).__name__ for processor in processors],
            "maker": type(select.span_maker()).__name__,
            "encoded": getattr(select.span_maker(), "take", None) is not None,
            "cells": _metric_cells.live,
        }

    @tool
    def double(self, x: int) -> Any:
        """Have the authority double it."""
        return self.session_context.call_elixir_tool("double", x=x)
