"""The bridge, as a cause of slowness or failure: its calls, its streams, call-backs and affinity."""

from __future__ import annotations

from functools import partial

from dashboards import objectives
from dashboards.colours import BAD, WARN, any_is, at_least
from dashboards.house import Query, bars, each, heatmap, stat, timeseries
from dashboards.page import Page, Row
from dashboards.promql import PANELS as Q
from dashboards.promql import PRESENT, RATE, Matcher, Where, one_of, share
from semconv.prometheus_names import label_name
from snakepit_otel.bridge.wire import methods
from snakepit_otel.telemetry import names as n

_CLIENT = n.METRIC_RPC_CLIENT_CALL_DURATION
_SERVER = n.METRIC_RPC_SERVER_CALL_DURATION
_CALLBACK = n.METRIC_CALLBACK_DURATION
_METHOD = [n.RPC_METHOD]
# In legends: the method without the service that it is of, so that more than the service is seen.
_CALLED = "{{method}}"
_TOOL = [n.SNAKEPIT_TOOL_NAME]
_FAILED: Where = {n.ERROR_TYPE: PRESENT}
_LATE: Where = {n.RPC_RESPONSE_STATUS_CODE: "DEADLINE_EXCEEDED"}
_STREAMS: Where = {n.RPC_METHOD: one_of([methods.EXECUTE_STREAMING_TOOL, methods.READ_BUFFER, methods.WRITE_BUFFER])}
_AUTHORITY: Where = {n.SNAKEPIT_ROLE: "authority"}
_WORKER: Where = {n.SNAKEPIT_ROLE: "worker"}
_of_callbacks = partial(timeseries, zero="no call-backs")
_ALL_INSTANCES = " Choose all instances: the two ends of a call are two processes."


def _by_name(query: str) -> str:
    """Return the query, its series with the label that `_CALLED` names."""
    return f'label_replace({query}, "method", "$1", "{label_name(n.RPC_METHOD)}", "(?:.*/)?(.*)")'


def page() -> Page:
    return Page(
        uid="snakepit-rpc",
        title="Snakepit / RPC and call-backs",
        question="Is the bridge what is slow or fails, and what does calling back cost?",
        rows=[_now(), _two_ends(), _outcomes(), _callbacks(), _affinity()],
    )


def _now() -> Row:
    return Row(
        "Now",
        [
            stat(
                "Calls",
                Query(Q.rate(_SERVER)),
                "Calls a second that were served, by the authority and by workers. One request is one call to each, "
                "and one more for every call-back.",
                unit="reqps",
                width=6,
            ),
            stat(
                "Failed calls",
                Query(share(Q.rate(_SERVER, where=_FAILED), Q.rate(_SERVER))),
                "The share of calls whose server failed or was too late. A tool that raises is a call that went well. "
                "Good is none: see the errors below.",
                unit="percentunit",
                steps=any_is(WARN),
                width=6,
            ),
            stat(
                "Past their deadline",
                Query(Q.occurrences(_CLIENT, where=_LATE), instant=True),
                "Calls in the time shown that were not answered in time, as their callers saw it. Good is none: a tool "
                "is stuck, or its callers allow it too little time.",
                steps=any_is(BAD),
                zero="none",
                decimals=0,
                width=6,
            ),
            stat(
                "Call-backs for each request",
                Query(f"{Q.rate(_CALLBACK)} / ({Q.rate(n.METRIC_ADAPTER_REQUEST_DURATION)} > 0)"),
                "How often a request in a worker asks the authority, for state or a tool, on average. Good is a few; "
                "many small ones are better asked at once, as with `state.update`.",
                unit="none",
                decimals=1,
                zero="no call-backs",
                width=6,
            ),
        ],
    )


def _two_ends() -> Row:
    def gap(caller: Where, server: Where) -> str:
        return f"{Q.mean(_CLIENT, _METHOD, caller)} - {Q.mean(_SERVER, _METHOD, server)}"

    def ends(caller: Where, server: Where) -> list[Query]:
        method = _CALLED
        return [
            Query(_by_name(Q.quantile(0.95, _CLIENT, _METHOD, caller)), f"caller {method}"),
            Query(_by_name(Q.quantile(0.95, _SERVER, _METHOD, server)), f"server {method}"),
        ]

    return Row(
        "Both ends of a call",
        [
            timeseries(
                "p95 of calls to workers",
                ends(_AUTHORITY, _WORKER),
                "One in twenty took longer, for the authority that calls and for the worker that serves. Good is one "
                "line upon the other; what the caller has more is the network, and the queue before the worker's "
                f"server. What clients that export as this service call is among the callers.{_ALL_INSTANCES}",
                unit="s",
            ),
            timeseries(
                "p95 of calls to the authority",
                ends(_WORKER, _AUTHORITY),
                "One in twenty took longer, for workers that call back and for the authority that serves them and its "
                "clients. Good is one line upon the other. Methods without a caller are asked by clients, whose "
                f"waiting is in the server's time: see the page of pools.{_ALL_INSTANCES}",
                unit="s",
                zero="no calls",
            ),
            timeseries(
                "Network and queues",
                [
                    Query(_by_name(gap(_AUTHORITY, _WORKER)), f"to workers: {_CALLED}"),
                    Query(_by_name(gap(_WORKER, _AUTHORITY)), f"to the authority: {_CALLED}"),
                ],
                "What calls take beyond their server's work, on average: the mean of callers less that of servers. "
                "Good is a millisecond or two. More means that one end has too little processor, or that a worker's "
                f"loop is held up by tools. Too much where clients export as this service.{_ALL_INSTANCES}",
                unit="s",
                least=None,
            ),
        ],
    )


def _outcomes() -> Row:
    errors = Q.occurrences(_CLIENT, [n.RPC_METHOD, n.ERROR_TYPE], _FAILED)
    return Row(
        "Rates and outcomes",
        [
            timeseries(
                "Calls by method",
                Query(_by_name(Q.rate(_SERVER, _METHOD)), _CALLED),
                "Calls a second, by what was called. Good is what callers are known to ask. `Ping` and `AwaitEnd` are "
                "the authority's own: is a worker well, and has it ended what nobody waits for any more?",
                unit="reqps",
            ),
            timeseries(
                "Status codes",
                Query(Q.rate(_SERVER, [n.RPC_RESPONSE_STATUS_CODE]), each(n.RPC_RESPONSE_STATUS_CODE)),
                "Calls a second by the status that the peer got. Good is `OK` alone. `RESOURCE_EXHAUSTED` is a queue "
                "or a quota that is full, `UNAVAILABLE` a worker that is gone, `CANCELLED` a caller that is.",
                unit="reqps",
                stacked=True,
            ),
            bars(
                "Errors by method",
                Query(_by_name(errors), f"{each(n.ERROR_TYPE)}: {_CALLED}"),
                "Calls that failed for their callers, in the time shown. Good is none. Those that a server does not "
                "have as well are lost on the way, or with the process that served.",
                zero="no errors",
            ),
            timeseries(
                "Deadlines that passed",
                [
                    Query(_by_name(Q.occurrences(_CLIENT, _METHOD, _LATE, RATE)), f"caller {_CALLED}"),
                    Query(_by_name(Q.occurrences(_SERVER, _METHOD, _LATE, RATE)), f"server {_CALLED}"),
                ],
                "Calls that were not answered in time, in the interval up to each point. Good is none. A request that "
                "a client asked for is late at two servers, the authority and the worker.",
                zero="none",
                width=12,
            ),
            timeseries(
                "Streams",
                [
                    Query(_by_name(Q.quantile(0.95, _SERVER, _METHOD, _STREAMS)), f"p95 {_CALLED}"),
                    Query(_by_name(Q.mean(_SERVER, _METHOD, _STREAMS)), f"mean {_CALLED}"),
                ],
                "How long streams took to their end; the p95 knows no more than 10 s, the mean does. "
                "`ExecuteStreamingTool` lasts as long as its tool and its reader; good for `Read` and `Write`, which "
                "copy references, is none at all.",
                unit="s",
                zero="no streams",
                width=12,
            ),
        ],
    )


def _callbacks() -> Row:
    tool = each(n.SNAKEPIT_TOOL_NAME)
    waited = share(Q.rate_of_sum(_CALLBACK), Q.rate_of_sum(n.METRIC_ADAPTER_REQUEST_DURATION))
    return Row(
        "Call-backs: what adapters ask of the authority",
        [
            _of_callbacks(
                "Call-backs by tool",
                Query(Q.rate(_CALLBACK, _TOOL), tool),
                "Call-backs a second, by what was asked: the session's state, or a tool of the authority's. Good is "
                "what tools need; a state that is read again and again is better read once for each request.",
                unit="reqps",
            ),
            timeseries(
                "Failures of call-backs",
                Query(Q.occurrences(_CALLBACK, [*_TOOL, n.ERROR_TYPE], _FAILED, RATE), f"{tool}: {each(n.ERROR_TYPE)}"),
                "Call-backs that failed, in the interval up to each point. Good is none; what the authority's tools "
                "raise is theirs, and is raised in the adapter as well.",
                zero="no failures",
            ),
            timeseries(
                "Waiting for the authority",
                Query(waited, "share of the time"),
                "Which part of the time that requests took in workers was spent in call-backs; above 100 % where one "
                "request makes several at a time. Good is little.",
                unit="percentunit",
                zero="no requests",
            ),
            _of_callbacks(
                "p95 of call-backs by tool",
                Query(Q.quantile(0.95, _CALLBACK, _TOOL), tool),
                "One in twenty took longer. Good is milliseconds, and level. If all of them climb, the authority has "
                "too little processor; if one does, it is that tool.",
                unit="s",
                width=12,
            ),
            heatmap(
                "Durations of call-backs",
                Query(Q.buckets(_CALLBACK), "{{le}}", exemplars=True),
                "How many took how long: the darker, the more. Good is one band that stays level. The points are "
                "call-backs that lead to their traces.",
                zero="no call-backs",
            ),
        ],
    )


def _affinity() -> Row:
    decisions = n.METRIC_POOL_AFFINITY_DECISIONS
    hinted: Where = {n.SNAKEPIT_AFFINITY_OUTCOME: Matcher("!=", "none")}
    lost: Where = {n.SNAKEPIT_AFFINITY_OUTCOME: one_of(["miss", "broken"])}
    return Row(
        "Affinity: do requests of a session come back to its worker?",
        [
            timeseries(
                "Affinity by outcome",
                Query(Q.rate(decisions, [n.SNAKEPIT_AFFINITY_OUTCOME]), each(n.SNAKEPIT_AFFINITY_OUTCOME)),
                "Requests a second, by what became of the wish for the session's last worker. Good is `hit`; `none` "
                "had no session, or one that is new. `miss` was given another worker, `broken` has lost its own.",
                unit="reqps",
                stacked=True,
                width=8,
            ),
            timeseries(
                "Affinity lost",
                Query(share(Q.rate(decisions, where=lost), Q.rate(decisions, where=hinted)), "lost"),
                "The share of requests with a last worker that were given another, so that what it keeps for the "
                "session is cold. Good is below the line, from which on an alert fires: add workers or places in them.",
                unit="percentunit",
                steps=at_least(objectives.AFFINITY_LOST),
                most=1,
                zero="no sessions",
                width=8,
            ),
            bars(
                "Why affinity was lost",
                Query(Q.occurrences(decisions, [n.SNAKEPIT_AFFINITY_REASON], lost), each(n.SNAKEPIT_AFFINITY_REASON)),
                "In the time shown. `busy`: the worker had no room; `suspect`: it was set aside; `gone`: it has ended "
                "or is about to; `other_pool`: the request was for another pool.",
                zero="none lost",
                width=8,
            ),
        ],
    )
