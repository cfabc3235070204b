"""Log lines that cannot be formatted: they fail nothing, where they are exported as where they are not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider

from snakepit_otel.telemetry.export.export_queue import BatchSettings
from snakepit_otel.telemetry.export.exporters import ExportResult
from snakepit_otel.telemetry.export.ledger import Account, Ledger
from snakepit_otel.telemetry.export.log_handler import LogHandler
from snakepit_otel.telemetry.export.logs import LogPipeline
from tests.telemetry.scripted import RESOURCE


class Taking:
    """Takes every encoded request."""

    takes_bytes = True

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    def export_bytes(self, request: bytes) -> ExportResult:
        self.requests.append(request)
        return ExportResult(True)

    def abort(self) -> None:
        """Nothing is ever under way."""


class Half:
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text yet")

    __repr__ = __str__


class Endless:
    """Has a text that takes all the stack there is."""

    def __str__(self) -> str:
        return str(self)


class Chatty:
    """Logs while its text is made."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def __str__(self) -> str:
        self._logger.info("inside")
        return "chatty"


class Failing(Exception):
    """An exception without a text."""

    __str__ = Half.__str__


Exported = tuple[logging.Logger, Account, Taking, LogPipeline]


@pytest.fixture
def exported() -> Iterator[Exported]:
    """A logger whose records are exported, and nothing else."""
    account, taking = Ledger()["logs"], Taking()
    pipeline = LogPipeline(taking, account, BatchSettings(delay=3_600))  # type: ignore[arg-type]
    provider = LoggerProvider(RESOURCE, shutdown_on_exit=False)
    provider.add_log_record_processor(pipeline)
    logger = logging.Logger("test.exported")  # noqa: LOG001 - one that nobody else handles
    logger.addHandler(LogHandler(provider, account))
    yield logger, account, taking, pipeline
    pipeline.shutdown()


BROKEN: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("%d items", ("three",), {}),
    ("%s and %s", ("one",), {}),
    ("no place", ("for this",), {}),
    ("%(name)s", ({"other": 1},), {}),
    ("state is %s", (Half(),), {}),
    ("state is %r", (Half(),), {}),
    ("deep: %s", (Endless(),), {}),
    ("%q", (1,), {}),
]


@pytest.mark.parametrize("raising", [True, False])
@pytest.mark.parametrize(("message", "arguments", "options"), BROKEN)
def test_what_logging_swallows_is_swallowed(
    message: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    raising: bool,
    exported: Exported,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A record that cannot be formatted is counted as lost, and shown as `logging` shows such records."""
    logger, account, _, pipeline = exported
    monkeypatch.setattr(logging, "raiseExceptions", raising)
    logger.warning(message, *arguments, **options)
    logger.warning("behind")
    assert pipeline.force_flush()
    assert (account.ended, account.delivered, account.dropped["encode"]) == (2, 1, 1)
    deep = any(isinstance(argument, Endless) for argument in arguments)
    assert ("--- Logging error ---" in capsys.readouterr().err) is (raising and not deep)


def test_a_message_that_is_no_text(exported: Exported) -> None:
    """Whatever is logged in place of a text, or goes with it, raises nothing and costs nothing else."""
    logger, account, taking, pipeline = exported
    strange = (Half(), Endless(), None, b"bytes", {"a": {1, 2}}, {1: 2}, [Half()], [1, "a", None], object, lambda: 1)
    for value in (*strange, 10**400, float("nan"), float("inf"), "\ud800", logger):
        logger.info(value)
        logger.info("with", extra={"extra": value})
    logger.info("key", extra={"": 1, "\ud800": 2})
    try:
        raise Failing
    except Failing:
        logger.exception("failed")
    logger.info("text of %s", Chatty(logger))
    logger.info("behind")
    assert pipeline.force_flush()
    assert account.ended == account.delivered + account.dropped["encode"]
    assert b"behind" in taking.requests[-1]
    assert all(any(word in request for request in taking.requests) for word in (b"bytes", b"inside", b"chatty"))


def test_a_handler_error_of_ones_own_is_called(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """`handleError` is what decides, as for every handler."""
    logger = exported[0]
    seen: list[logging.LogRecord] = []
    monkeypatch.setattr(logger.handlers[0], "handleError", seen.append)
    logger.warning("%d", "x")
    assert [record.msg for record in seen] == ["%d"]
