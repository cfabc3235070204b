"""Log lines say in which request they were written."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import format_span_id, format_trace_id

from snakepit_otel.telemetry import Operation, names
from snakepit_otel.telemetry._log_correlation import CorrelatedFormatter, correlate_logs
from snakepit_otel.telemetry.spans import select
from snakepit_otel.telemetry.spans.fast import compat
from tests.hostile_text import HOSTILE, unsafe
from tests.telemetry.scripted import provided


@pytest.fixture(autouse=True)
def _factory() -> Iterator[None]:
    """Leave the process' record factory as it was."""
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


def line() -> str:
    """A line as it would be logged now."""
    record = logging.getLogger("test").makeRecord("test", logging.INFO, __file__, 1, "hello", (), None)
    fields = "trace_id=%(otelTraceID)s span_id=%(otelSpanID)s %(otelTraceSampled)s"
    return logging.Formatter(f"{fields} %(message)s").format(record)


@pytest.mark.parametrize("sampler", [None, ALWAYS_OFF])
def test_lines_have_the_ids_of_their_point(sampler: Any) -> None:
    """Inside a point a line has its trace and span, recorded or not; outside any it has `0`."""
    maker = compat.maker_for(provided(sampler=sampler))
    correlate_logs()
    assert line() == "trace_id=0 span_id=0 False hello"
    with patch.object(select, "span_maker", lambda: maker), Operation(names.REQUEST):
        context = trace.get_current_span().get_span_context()
        ids = f"trace_id={format_trace_id(context.trace_id)} span_id={format_span_id(context.span_id)}"
        assert line() == f"{ids} {sampler is None} hello"
    assert line() == "trace_id=0 span_id=0 False hello"


def test_asking_twice_is_asking_once() -> None:
    """The second time changes nothing."""
    correlate_logs()
    factory = logging.getLogRecordFactory()
    correlate_logs()
    assert logging.getLogRecordFactory() is factory


def test_opentelemetrys_own_instrumentation_is_not_doubled() -> None:
    """What another factory has said of a record stays."""
    make = logging.getLogRecordFactory()

    def contrib(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.otelTraceID, record.otelSpanID, record.otelTraceSampled = "theirs", "too", True
        return record

    logging.setLogRecordFactory(contrib)
    correlate_logs()
    assert line() == "trace_id=theirs span_id=too True hello"


def test_records_of_other_kinds_go_on() -> None:
    """An application's own factory still makes the records."""

    class Own(logging.LogRecord):
        """An application's own record."""

    logging.setLogRecordFactory(Own)
    correlate_logs()
    record = logging.getLogger("test").makeRecord("test", logging.INFO, __file__, 1, "hello", (), None)
    assert isinstance(record, Own)
    assert record.otelTraceID == "0"  # type: ignore[attr-defined]


def test_our_own_format_has_ids_where_there_are_any() -> None:
    """A line of a request ends with its ids; others, and those of other factories, are as they were."""
    formatter = CorrelatedFormatter("%(message)s")
    plain = logging.LogRecord("test", logging.INFO, __file__, 1, "hello", (), None)
    assert formatter.format(plain) == "hello"
    correlate_logs()
    maker = compat.maker_for(provided())
    with patch.object(select, "span_maker", lambda: maker), Operation(names.REQUEST):
        inside = logging.getLogger("test").makeRecord("test", logging.INFO, __file__, 1, "hello", (), None)
        context = trace.get_current_span().get_span_context()
    ids = f"trace_id={format_trace_id(context.trace_id)} span_id={format_span_id(context.span_id)}"
    assert formatter.format(inside) == f"hello {ids}"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_record_forges_no_other(name: str) -> None:
    """What a message or an exception has in it drives no terminal, and only the record itself begins at the left."""
    try:
        raise ValueError(HOSTILE[name])
    except ValueError:
        record = logging.getLogger("test").makeRecord(
            "test", logging.INFO, __file__, 1, "got %s", (HOSTILE[name],), sys.exc_info()
        )
    first, *rest = CorrelatedFormatter("%(levelname)s %(message)s").format(record).split("\n")
    assert first.startswith("INFO got ")
    assert all(line.startswith("    ") for line in rest)
    assert unsafe("\n".join((first, *rest))) <= {"\t"}
