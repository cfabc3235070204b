"""A handler of `logging` that exports what is logged, and never raises into the code that logs."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler

from snakepit_otel.common.secrets import masked_text, masked_value
from snakepit_otel.telemetry.export.ledger import ENCODE, ENDED, Account


class LogHandler(LoggingHandler):
    """The SDK's handler, which lets errors out; this one treats them as `logging.Handler.handleError` does.

    A record that cannot be formatted is counted as one that cannot be encoded.
    """

    def __init__(self, provider: LoggerProvider, account: Account) -> None:
        with warnings.catch_warnings():
            # Deprecated for the handler of a contrib package, which lets the same errors out.
            warnings.simplefilter("ignore", DeprecationWarning)
            super().__init__(logger_provider=provider)
        self._account = account

    def _translate(self, record: logging.LogRecord) -> Any:
        """Return the record as it is exported: without secrets."""
        made = super()._translate(record)
        if isinstance(made.body, str):
            made.body = masked_text(made.body)
        made.attributes = {key: masked_value(key, value) for key, value in (made.attributes or {}).items()}
        return made

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            super().emit(record)
        except Exception as error:  # noqa: BLE001 - it may be anything, since users' objects make texts of themselves
            self._account.figures[ENDED] += 1
            self._account.figures[ENCODE] += 1
            if not isinstance(error, RecursionError):  # to report which takes room on the stack, too
                self.handleError(record)
