"""Log lines of exports that fail: each kind of message once a minute, in one line, without secrets.

A receiver that refuses everything would otherwise fill the log, a batch at a time, with words of its choice.
"""

from __future__ import annotations

import logging
import threading
import time

from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable
from snakepit_otel.common.secrets import masked_text

_log = logging.getLogger("snakepit_otel.telemetry")
_INTERVAL = 60.0
_MOST_KINDS = 100
_EXPORTERS = (
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk.metrics._internal.export",
)


class _OnceInAWhile(logging.Filter):
    """Lets a message pass that is the first of its kind for a minute, as one line without secrets."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str, int], float] = {}
        self._kept_back: dict[tuple[str, str, int], int] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        kind = (record.name, str(record.msg), record.levelno)
        now = time.monotonic()
        with self._lock:
            if len(self._last) > _MOST_KINDS:
                self._last.clear()
            if now - self._last.get(kind, -_INTERVAL) < _INTERVAL:
                self._kept_back[kind] = self._kept_back.get(kind, 0) + 1
                return False
            self._last[kind] = now
            before = self._kept_back.pop(kind, 0)
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's own mistake
            text = str(record.msg)
        record.msg = printable(masked_text(text), MAX_MESSAGE_CHARACTERS) + (
            f" ({before} more like this before)" if before else ""
        )
        record.args = None
        # Their tracebacks end in our call, and repeat the message as it came.
        record.exc_info = record.exc_text = None
        return True


_once_in_a_while = _OnceInAWhile()


def be_quiet() -> None:
    """Have the exporters' own messages be so, too."""
    for name in _EXPORTERS:
        logging.getLogger(name).addFilter(_once_in_a_while)


def warn(message: str, *arguments: object) -> None:
    """Log a warning."""
    record = _log.makeRecord(_log.name, logging.WARNING, __file__, 0, message, arguments, None)
    if _log.isEnabledFor(logging.WARNING) and _once_in_a_while.filter(record):
        _log.handle(record)
