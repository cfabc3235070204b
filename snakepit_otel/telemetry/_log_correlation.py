"""Trace and span ids in the log lines of Python's own `logging`."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import format_span_id, format_trace_id

from snakepit_otel.common.printable import printable_lines
from snakepit_otel.common.secrets import learn, masked_text
from snakepit_otel.telemetry import environment
from snakepit_otel.telemetry._log_levels import set_levels

_NO_SPAN = ("0", "0", False)


def log_to_stderr(
    default: int, line: str = "%(asctime)s %(levelname)s %(name)s: %(message)s", *, own_default: int | None = None
) -> None:
    """Log to standard error, with the trace and span ids of the current span.

    The level is SNAKEPIT_LOG_LEVEL, or else `default`, and `own_default` for the loggers of this package; `none`
    disables logging. SNAKEPIT_LOG_LEVELS has levels of single loggers. Libraries log warnings at least. A second
    call sets the levels anew. A configuration of logging that is another's stays.
    """
    correlate_logs()
    learn(os.environ)
    configured, _ = environment.examine("SNAKEPIT_LOG_LEVEL")  # `setup` logs an invalid one
    each, _ = environment.examine("SNAKEPIT_LOG_LEVELS")
    level = default if configured is None else configured
    ours = level if configured is not None or own_default is None else own_default
    root = logging.getLogger()
    handler = logging.StreamHandler()
    handler.setFormatter(CorrelatedFormatter(line))
    # Adds nothing where there are handlers, but for one that OpenTelemetry's distribution has added before.
    logging.basicConfig(handlers=[handler])
    if any(isinstance(handler.formatter, CorrelatedFormatter) for handler in root.handlers):
        set_levels(level, ours, each or {})
    else:
        logging.disable(logging.CRITICAL if level > logging.CRITICAL else logging.NOTSET)


class CorrelatedFormatter(logging.Formatter):
    """Adds `trace_id=… span_id=…` to records within a span, and indents lines after the first.

    So only a new record begins at the left, whatever text of a tool or a peer a message or an exception contains; and
    no such text drives the terminal. Secrets are masked.
    """

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(masked_text(super().format(record)), indent="    ")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name for it
        line = super().formatMessage(record)
        trace_id = getattr(record, "otelTraceID", "0")
        if trace_id == "0":
            return line
        return f"{line} trace_id={trace_id} span_id={getattr(record, 'otelSpanID', '0')}"


def correlate_logs() -> None:
    """Add `otelTraceID`, `otelSpanID` and `otelTraceSampled` to every log record from now on.

    The names are those of OpenTelemetry's logging instrumentation, whose attributes stay.
    """
    make = logging.getLogRecordFactory()
    if getattr(make, "correlates", False):
        return

    def correlated(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        if not hasattr(record, "otelTraceID"):
            record.otelTraceID, record.otelSpanID, record.otelTraceSampled = _current_ids()
        return record

    correlated.correlates = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(correlated)


def _current_ids() -> tuple[str, str, bool]:
    # Another package's span must not make logging fail.
    with suppress(Exception):
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            return format_trace_id(context.trace_id), format_span_id(context.span_id), context.trace_flags.sampled
    return _NO_SPAN
