"""Recording rules: how much of the error budget is spent, over which time."""

from __future__ import annotations

from dashboards import objectives
from dashboards.promql import ABSENT, RULES, Matcher, none_of, occurrences_of
from dashboards.rules import Group, Recording
from snakepit_otel.telemetry import names as n

# Requests a second that callers did nothing wrong with.
REQUESTS = "service:snakepit_requests:rate5m"
# Of these, those that were not answered.
ERRORS = "service:snakepit_request_errors:rate5m"
ANSWERED = "service:snakepit_requests_answered:rate5m"
# Answered later than was promised.
LATE = "service:snakepit_requests_late:rate5m"
WINDOWS = ("5m", "30m", "1h", "6h", "3d")
BUDGET_LEFT = f"service:snakepit_error_budget:remaining{objectives.BUDGET_DAYS}d"


def error_ratio(window: str) -> str:
    return f"service:snakepit_request_errors:ratio_rate{window}"


def late_ratio(window: str) -> str:
    return f"service:snakepit_requests_late:ratio_rate{window}"


def _mean_ratio(part: str, whole: str, window: str) -> str:
    """Return the ratio over a longer time: of all requests in it, not the mean of ratios."""
    if window == "5m":
        return f"{part} / ({whole} > 0)"
    return f"sum_over_time({part}[{window}]) / (sum_over_time({whole}[{window}]) > 0)"


def _a_second(in_five_minutes: str) -> str:
    """Return how many a second, of what was counted in five minutes.

    Not `rate`, which does not know the first ones of a series: a new kind of error begins one, so errors that are over
    before the next export would not have been.
    """
    return f"{in_five_minutes} / 300"


def groups() -> list[Group]:
    """Return the recording rules, in the order in which they need each other."""
    request = n.METRIC_REQUEST_DURATION
    callers_own = {n.ERROR_TYPE: none_of(objectives.CALLERS_OWN)}
    requests = _a_second(RULES.occurrences(request, where=callers_own, window="5m"))
    failing = {n.ERROR_TYPE: Matcher("!~", "|".join(("", *objectives.CALLERS_OWN)))}
    failed = _a_second(RULES.occurrences(request, where=failing, window="5m"))
    answered = _a_second(RULES.occurrences(request, where={n.ERROR_TYPE: ABSENT}, window="5m"))
    # Prometheus writes the boundary as 1 or as 1.0, by the way that it came.
    in_time = {n.ERROR_TYPE: ABSENT, "le": Matcher("=~", rf"{objectives.IN_TIME_SECONDS}(\\.0)?")}
    buckets = occurrences_of(RULES.series(request, "_bucket", in_time), "5m")
    fast = _a_second(f"sum by ({', '.join(RULES.by)}) ({buckets})")
    flows = [
        Recording(REQUESTS, requests),
        # Zero where nothing failed, so that ratios of longer times have something to add up.
        Recording(ERRORS, f"{failed} or {REQUESTS} * 0"),
        Recording(ANSWERED, answered),
        Recording(LATE, f"{ANSWERED} - {fast}"),
    ]
    ratios = [
        *(Recording(error_ratio(window), _mean_ratio(ERRORS, REQUESTS, window)) for window in WINDOWS),
        *(Recording(late_ratio(window), _mean_ratio(LATE, ANSWERED, window)) for window in WINDOWS),
    ]
    days = f"{objectives.BUDGET_DAYS}d"
    spent = _mean_ratio(ERRORS, REQUESTS, days)
    left = Recording(BUDGET_LEFT, f"1 - ({spent}) / {1 - objectives.AVAILABILITY:.6g}")
    return [
        Group("snakepit-requests", flows),
        Group("snakepit-ratios", ratios),
        # Reads thirty days, so less often.
        Group("snakepit-budget", [left], interval="5m"),
    ]
