"""Sessions: leaks, and the use of the quota."""

from __future__ import annotations

from dashboards import objectives
from dashboards.colours import BAD, any_is, at_least
from dashboards.house import Query, each, heatmap, log_lines, stat, timeseries
from dashboards.logql import RECORDS
from dashboards.page import Page, Row
from dashboards.promql import PANELS as Q
from dashboards.promql import RANGE, RATE, share
from semconv.prometheus_names import label_name
from snakepit_otel.telemetry import names as n

_LIVE = Q.total(n.METRIC_SESSION_COUNT)
_LIMIT = Q.total(n.METRIC_SESSION_LIMIT)
_CREATED = Q.rate(n.METRIC_SESSION_CREATED)
_ENDED = Q.rate(n.METRIC_SESSION_ENDED)
_REASON = label_name(n.REASON)
_STRICT = label_name(n.STRICT_MODE)


def page() -> Page:
    return Page(
        uid="snakepit-sessions",
        title="Snakepit / Sessions",
        question="Do sessions leak, and how near is the quota? Who made those that accumulate?",
        logs=True,
        rows=[_now(), _level(), _accumulation(), _ends()],
    )


def _now() -> Row:
    before = f"sum({Q.per_store(n.METRIC_SESSION_COUNT, offset=RANGE)})"
    by_store = share(Q.per_store(n.METRIC_SESSION_COUNT), Q.per_store(n.METRIC_SESSION_LIMIT))
    return Row(
        "Now",
        [
            stat(
                "Live sessions",
                Query(_LIVE),
                "Sessions that exist. Good is a level: as many end as are created.",
                decimals=0,
                width=6,
            ),
            stat(
                "Of the quota",
                Query(f"max({by_store})"),
                "Live sessions as a share of `max_sessions`; of several stores, the nearest. At 100 % creating is "
                "refused, or the least recently used are evicted. Empty where no quota is set.",
                unit="percentunit",
                steps=at_least(objectives.QUOTA_NEAR, 1),
                zero="no quota",
                width=6,
            ),
            stat(
                "More than before",
                Query(f"{_LIVE} - ({before} or {_LIVE} * 0)"),
                "Live sessions now, less those at the beginning of the time shown. Good is about none over a time "
                "that is long against the TTL; if it is more the longer the time, sessions leak.",
                decimals=0,
                width=6,
            ),
            stat(
                "Refused",
                Query(
                    Q.occurrences(n.METRIC_SESSION_REJECTED, [n.SNAKEPIT_SESSION_QUOTA]),
                    f"quota of {each(n.SNAKEPIT_SESSION_QUOTA)}",
                    instant=True,
                ),
                "Sessions refused at the quota of the store or at that of their owner, in the time shown. Good is "
                "none: end sessions sooner, shorten the TTL, or raise `max_sessions` or `max_sessions_per_owner`.",
                steps=any_is(BAD),
                zero="0",
                decimals=0,
                width=6,
            ),
        ],
    )


def _level() -> Row:
    return Row(
        "Level and flow",
        [
            timeseries(
                "Live sessions against the quota",
                [Query(_LIVE, "live"), Query(_LIMIT, "limit")],
                "Good is a plateau below the quota. A line that only climbs is a leak: see who creates, below.",
                width=12,
            ),
            timeseries(
                "Created and ended",
                [
                    Query(_CREATED, "created"),
                    Query(_ENDED, "ended"),
                    Query(f"{_CREATED} - {_ENDED}", "gap"),
                ],
                "Sessions a second. Good is one line upon the other; the gap between them is what accumulates, and "
                "swings about zero where nothing does.",
                unit="ops",
                least=None,
                width=12,
            ),
            timeseries(
                "Ended, by reason",
                Query(
                    Q.rate(n.METRIC_SESSION_ENDED, [n.SNAKEPIT_SESSION_END_REASON]), each(n.SNAKEPIT_SESSION_END_REASON)
                ),
                "Sessions a second. Good is deleted, by those who are done with them; ttl is callers that forget to. "
                "With overflow, sessions lost their state to make room: raise the quota, or end them sooner.",
                unit="ops",
                stacked=True,
                width=12,
            ),
            timeseries(
                "Memory of sessions",
                [
                    Query(Q.total(n.METRIC_SESSION_MEMORY_USAGE), "all"),
                    Query(f"{Q.total(n.METRIC_SESSION_MEMORY_USAGE)} / ({_LIVE} > 0)", "one, on average"),
                ],
                "Bytes of ids, metadata and state. Good is a plateau. If it climbs where the number of sessions does "
                "not, their state grows: see what tools keep in it.",
                unit="bytes",
                width=12,
            ),
        ],
    )


def _accumulation() -> Row:
    by = [n.REASON, n.STRICT_MODE]
    legend = f"{each(n.REASON)}, strict mode {each(n.STRICT_MODE)}"

    def highest(series: str) -> str:
        return f"max by ({_REASON}, {_STRICT}) ({series})"

    return Row(
        "Accumulation, and who creates",
        [
            timeseries(
                "Warnings",
                Query(Q.occurrences(n.METRIC_BRIDGE_SESSION_ACCUMULATION_WARNING_COUNT, by, window=RATE), legend),
                "What the warnings stand for, in the interval up to each point: threshold crossings, and sessions "
                "refused or evicted at the quota. Good is none. Without strict mode nobody is told who creates: set "
                "`strict_mode`.",
                zero="no warnings",
            ),
            timeseries(
                "Of the quota, when warned",
                Query(highest(Q.series(n.METRIC_BRIDGE_SESSION_ACCUMULATION_WARNING_UTILIZATION)), legend),
                "The share of the quota in use at the last warning. It stays as it was until the next one, or the "
                "authority's end: see the warnings beside for when that was.",
                unit="percentunit",
                steps=at_least(objectives.QUOTA_NEAR, 1),
                zero="no warnings",
            ),
            timeseries(
                "Live sessions and quota, when warned",
                [
                    Query(
                        highest(Q.series(n.METRIC_BRIDGE_SESSION_ACCUMULATION_WARNING_CURRENT_SESSIONS)),
                        f"live: {legend}",
                    ),
                    Query(f"max({Q.series(n.METRIC_BRIDGE_SESSION_ACCUMULATION_WARNING_MAX_SESSIONS)})", "limit"),
                ],
                "As they were at the last warning. Live sessions that come back to the limit again and again are a "
                "leak, or a quota that is too small for the callers there are.",
                zero="no warnings",
            ),
            log_lines(
                "Who creates",
                RECORDS.of(n.EVENT_BRIDGE_SESSION_ACCUMULATION_WARNING),
                "The warnings. In strict mode each says who made the live sessions, most first: tool or line of "
                "code, and the trace of one of them. Good is none; else begin with the first in the list, and see "
                "why it does not end what it creates.",
                zero="no warnings",
                height=10,
            ),
        ],
    )


def _ends() -> Row:
    pruned = each(n.REASON)
    remaining = Q.series(n.METRIC_BRIDGE_SESSION_PRUNED_REMAINING_SESSIONS)
    return Row(
        "Ends",
        [
            heatmap(
                "Lifetimes",
                Query(Q.buckets(n.METRIC_SESSION_LIFETIME), "{{le}}"),
                "How long the sessions had lived that ended. Good are two bands: those that are deleted, and at the "
                "TTL those that are forgotten. A band that moves up is sessions that are kept longer.",
                zero="no session ended",
            ),
            timeseries(
                "Lifetime, by how they ended",
                [
                    Query(
                        Q.quantile(quantile, n.METRIC_SESSION_LIFETIME, [n.SNAKEPIT_SESSION_END_REASON]),
                        f"p{quantile * 100:.0f} {each(n.SNAKEPIT_SESSION_END_REASON)}",
                    )
                    for quantile in (0.5, 0.99)
                ],
                "Good is a p50 of those deleted that is about as long as one piece of work of a caller. If "
                "overflow's is as short, sessions are evicted in the midst of it.",
                unit="s",
                zero="no session ended",
                width=12,
            ),
            timeseries(
                "Pruned, by reason",
                Query(Q.occurrences(n.METRIC_BRIDGE_SESSION_PRUNED_COUNT, [n.REASON], window=RATE), pruned),
                "Sessions that a sweep removed at their TTL, or that were evicted at the quota (overflow), in the "
                "interval up to each point. Good is few against all that end: callers delete what they are done with.",
                zero="none pruned",
                width=8,
            ),
            timeseries(
                "Remaining after pruning",
                Query(f"max by ({_REASON}) ({remaining})", pruned),
                "Sessions that the last pruning left; of several authorities, the most. Good is a level well below the "
                "quota. If ttl's climbs, sessions are made faster than they expire: shorten the TTL, or delete them.",
                zero="none pruned",
                width=8,
            ),
            log_lines(
                "What was pruned",
                RECORDS.of(n.EVENT_BRIDGE_SESSION_PRUNED),
                "The sweeps and evictions one by one; the trace of a sweep links to the requests that made what it "
                "removed.",
                width=8,
                zero="none pruned",
                height=8,
            ),
        ],
    )
