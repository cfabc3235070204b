"""Queries for log records give the LogQL that they say, and ask for what there is."""

from __future__ import annotations

import pytest

from dashboards.build import pages
from dashboards.check import log_faults
from dashboards.logql import EVENT_NAME, RECORDS, SEVERITY, Body, LogQuery, Value
from dashboards.promql import PRESENT, Matcher, one_of
from snakepit_otel.telemetry import names as n

OF_WEB = LogQuery({"service_name": Matcher("=", "web")})


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (OF_WEB, '{service_name="web"}'),
        (RECORDS, '{service_namespace=~"$service_namespace",service_name=~"$service_name"}'),
        (
            OF_WEB.of(n.EVENT_ADAPTER_EXCEPTION),
            '{service_name="web"} | event_name="snakepit.adapter.exception"',
        ),
        (
            OF_WEB.where(n.SESSION_ID, PRESENT).where(SEVERITY, one_of(["WARN", "ERROR"])),
            '{service_name="web"} | session_id!="" | severity_text=~"WARN|ERROR"',
        ),
        (
            OF_WEB.shown_as(Value(EVENT_NAME), Value("exception_type", ": "), " ", Body()),
            '{service_name="web"} | line_format `{{.event_name}}{{with .exception_type}}: {{.}}{{end}} {{__line__}}`',
        ),
    ],
)
def test_a_query_is_written_as_logql(query: LogQuery, text: str) -> None:
    """Each form as it is said."""
    assert query.text == text


def test_variables_are_filled_in_where_values_are() -> None:
    """In matchers of streams and of records, and nowhere else."""
    query = OF_WEB.where(n.SESSION_ID, "web").shown_as("web")
    filled = query.filled_in(lambda text: text.replace("web", "shop"))
    assert filled.text == '{service_name="shop"} | session_id="shop" | line_format `web`'


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        (LogQuery({"session_id": PRESENT}), "no stream is found by session_id"),
        (OF_WEB.where("snakepit.no.such", "x"), "no log record has snakepit_no_such"),
        (OF_WEB.shown_as(Value("no_such")), "no log record has no_such"),
        (OF_WEB.where(EVENT_NAME, "snakepit.no.such"), "the registry has no event snakepit.no.such"),
    ],
)
def test_what_there_is_not_is_a_fault(query: LogQuery, fault: str) -> None:
    """Labels that no record has, streams that are not found by them, and events that nobody emits."""
    assert [one.what for one in log_faults("here", query)] == [fault]


def test_every_page_with_logs_has_queries_for_them() -> None:
    """A page chooses where its logs are if, and only if, it asks for some."""
    for page in pages():
        assert bool(list(page.log_queries())) == page.logs, page.uid
