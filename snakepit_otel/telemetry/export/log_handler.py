"""A handler of `logging` that exports log records, and never raises into the code that logs."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from opentelemetry.sdk import _logs

from snakepit_otel.common.secrets import masked_text, masked_value
from snakepit_otel.telemetry.export.ledger import ENCODE, ENDED, Account


class LogHandler(_logs.LoggingHandler):
    """The SDK's handler, which raises errors; this one passes them to `logging.Handler.handleError`.

    A record that cannot be formatted counts as unencodable.
    """

    def __init__(self, provider: _logs.LoggerProvider, account: Account) -> None:
        with warnings.catch_warnings():
            # Deprecated in favour of the handler of a contrib package, which raises the same errors.
            warnings.simplefilter("ignore", DeprecationWarning)
            super().__init__(logger_provider=provider)
        self._account = account

    def _translate(self, record: logging.LogRecord) -> Any:
        exported = super()._translate(record)
        if isinstance(exported.body, str):
            exported.body = masked_text(exported.body)
        exported.attributes = {key: masked_value(key, value) for key, value in (exported.attributes or {}).items()}
        return exported

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            super().emit(record)
        except Exception as error:  # noqa: BLE001 - a user's object raises it as it is formatted
            self._account.counts[ENDED] += 1
            self._account.counts[ENCODE] += 1
            if not isinstance(error, RecursionError):  # reporting one needs room on the stack, too
                self.handleError(record)
