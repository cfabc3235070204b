"""One session: its requests, its events and its end."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards.house import log_lines, traces, words
from dashboards.logql import EVENT_NAME, RECORDS, SEVERITY, Body, Value
from dashboards.page import Page, Row
from dashboards.promql import PRESENT, Matcher, one_of
from snakepit_otel.telemetry import names as n
from snakepit_otel.telemetry._definitions import Point

_VARIABLE = "session_id"
_WORDS = """\
Write a session's id at the top, and choose a time in which it lived. Ids come from the application, which gives them \
to its requests; from `snakepit-otel sessions list`; and from any trace that a point of a heat map leads to, where \
they are the attribute `session.id`. A link to this page can carry one: `?var-session_id=ID`.

Metrics have no session ids, on purpose: each id would be series of its own, kept for as long as metrics are. So this \
page has traces and log records only, and for as long as those are kept. The collector keeps all traces that failed or \
were slow, and a share of the rest (`OTELCOL_TRACE_PERCENTAGE`): what is missing here may have gone well.
"""
# With no id there is nothing to look for, and not all that has none.
_ITS_RECORDS = RECORDS.where(n.SESSION_ID, PRESENT).where(n.SESSION_ID, Matcher("=", f"${_VARIABLE}"))
# Events need have no text; what they are about is in their details.
_AS_LINE = (
    Value(EVENT_NAME),
    Value("snakepit_tool_name", " "),
    Value("exception_type", " "),
    Value("exception_message", ": "),
    " ",
    Body(),
)


def page() -> Page:
    return Page(
        uid="snakepit-session",
        title="Snakepit / One session",
        question="What happened to one session: what was asked in it, where did it run, what failed, what was logged?",
        instance=False,
        traces=True,
        logs=True,
        own_variables=[builders.TextBoxVariable(_VARIABLE).label("Session id").default_value("")],
        rows=[_help(), _requests(), _records()],
        since="now-6h",
    )


def _help() -> Row:
    return Row("How to use this page", [words("One session by its id", _WORDS, height=6)])


def _spans(*conditions: str, show: tuple[str, ...]) -> str:
    """Return the TraceQL for spans of the session, and with attributes to show."""
    its = ('resource.service.name =~ "$service_name"', f'span.{n.SESSION_ID} = "${_VARIABLE}"')
    return f"{{ {' && '.join((*its, *conditions))} }} | select({', '.join(f'span.{attribute}' for attribute in show)})"


def _at(*points: Point) -> str:
    return f'name =~ "{"|".join(point.span for point in points)}"'


def _requests() -> Row:
    outcome = (n.SNAKEPIT_TOOL_NAME, n.ERROR_TYPE)
    return Row(
        "Traces",
        [
            traces(
                "Requests",
                _spans(_at(n.REQUEST), show=outcome),
                "The session's requests, one row each, at most fifty; both ids lead to the trace. Good has no "
                "`error.type`, and durations like those of other sessions. Each trace links to the request before it.",
                spans=True,
                width=12,
            ),
            traces(
                "Failures",
                _spans("status = error", show=outcome),
                "Traces in which something of the session failed. Good is none. Open one: the innermost failed span is "
                "what broke, and the logs of the trace have the exception.",
                zero="none failed",
                width=12,
            ),
            traces(
                "Where it ran",
                _spans(
                    _at(n.POOL_DISPATCH, n.WORKER_TOOL_EXECUTION),
                    show=(n.SNAKEPIT_WORKER_ID, n.SNAKEPIT_AFFINITY_OUTCOME, n.SNAKEPIT_AFFINITY_REASON),
                ),
                "The workers that the session's requests were given to, and why. Good is one worker all along, by "
                "`hit`; after a `miss` or `broken` what the worker before had kept for the session is cold.",
                spans=True,
                width=12,
            ),
            traces(
                "Its life and state",
                _spans(
                    # Most requests ask for the session, and find that it is there.
                    f"({_at(n.SESSION_UPDATE, n.SESSION_DELETE)} || span.{n.SNAKEPIT_SESSION_CREATED} = true)",
                    show=(n.SNAKEPIT_SESSION_CREATED, n.ERROR_TYPE),
                ),
                "When the session was created (`snakepit.session.created`), when its state was written, and when it "
                "was deleted; reads are left out. Good is a creation and a deletion: a session that nobody deletes "
                "lives until its TTL has passed.",
                spans=True,
                width=12,
            ),
            traces(
                "Requests that found sessions accumulating",
                _spans(_at(n.REQUEST), f"span.{n.STRICT_MODE} = true", show=outcome),
                "Requests of this session in which strict mode warned, because the session that they created was one "
                "too many. Good is none; who made the others is in the warning, among the log records.",
                zero="none",
                height=6,
            ),
        ],
    )


def _records() -> Row:
    return Row(
        "Log records and events",
        [
            log_lines(
                "All of the session",
                _ITS_RECORDS.shown_as(*_AS_LINE),
                "Records with the session's id, oldest first: what its tools raised, hand-overs of references, what "
                "workers without OpenTelemetry say, and what applications log with an attribute `session.id`. Others "
                "are found by their trace: open one above, and its logs.",
                oldest_first=True,
                zero="no records with its id",
            ),
            log_lines(
                "Warnings and errors",
                _ITS_RECORDS.where(SEVERITY, one_of(["WARN", "ERROR"])).shown_as(*_AS_LINE),
                "Of these, what should not be: tools that raised, references made for nothing, bytes that were "
                "copied. Good is none.",
                oldest_first=True,
                zero="none",
                width=12,
            ),
            log_lines(
                "Warnings that sessions accumulate",
                RECORDS.of(n.EVENT_BRIDGE_SESSION_ACCUMULATION_WARNING),
                "Of the service, in the time shown: they are about all sessions, and name who made most. Look whether "
                "who made this one is among them.",
                oldest_first=True,
                zero="none",
                width=12,
            ),
        ],
    )
