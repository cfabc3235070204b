"""Trace and span ids in the log lines of Python's own `logging`."""

from __future__ import annotations

import logging
import os
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import format_span_id, format_trace_id

from snakepit_otel.common.printable import printable_lines
from snakepit_otel.common.secrets import learn, masked_text
from snakepit_otel.telemetry import environment

_NOWHERE = ("0", "0", False)


def log_to_stderr(default: int, line: str = "%(asctime)s %(levelname)s %(name)s: %(message)s") -> None:
    """Send Python's log to standard error, each line of a request with its trace and span.

    The level is that of SNAKEPIT_LOG_LEVEL or, without one, `default`; `none` silences all of it. Where logging is
    configured already, that stays as it is.
    """
    correlate_logs()
    learn(os.environ)
    said, _ = environment.examine("SNAKEPIT_LOG_LEVEL")  # the set-up warns of it, when there is a log
    level = default if said is None else said
    handler = logging.StreamHandler()
    handler.setFormatter(CorrelatedFormatter(line))
    logging.basicConfig(level=level, handlers=[handler])
    logging.disable(logging.CRITICAL if level > logging.CRITICAL else logging.NOTSET)


class CorrelatedFormatter(logging.Formatter):
    """Adds `trace_id=… span_id=…` to what is logged within a span, and indents lines after the first.

    So a new record is what begins at the left, whatever a tool, or what it was sent, has written into a message or an
    exception; and none of it drives the terminal. Secrets are masked.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return printable_lines(masked_text(super().format(record)), indent="    ")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name for it
        """See `logging.Formatter`."""
        line = super().formatMessage(record)
        trace_id = getattr(record, "otelTraceID", "0")
        if trace_id == "0":
            return line
        return f"{line} trace_id={trace_id} span_id={getattr(record, 'otelSpanID', '0')}"


def correlate_logs() -> None:
    """Give every log record `otelTraceID`, `otelSpanID` and `otelTraceSampled`, from now on.

    The names are those of OpenTelemetry's logging instrumentation; where it does so already, this does nothing.
    """
    make = logging.getLogRecordFactory()
    if getattr(make, "correlates", False):
        return

    def correlated(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        if not hasattr(record, "otelTraceID"):
            record.otelTraceID, record.otelSpanID, record.otelTraceSampled = _where()
        return record

    correlated.correlates = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(correlated)


def _where() -> tuple[str, str, bool]:
    try:
        context = trace.get_current_span().get_span_context()
    except Exception:  # noqa: BLE001 - spans may be anybody's, and what logs must not fail for them
        return _NOWHERE
    if not context.is_valid:
        return _NOWHERE
    return format_trace_id(context.trace_id), format_span_id(context.span_id), context.trace_flags.sampled
