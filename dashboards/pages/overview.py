"""Overview: objectives, alerts, and links to the page that explains them."""

from __future__ import annotations

from dashboards import objectives, recording
from dashboards.colours import BAD, GOOD, NOTE, WARN, at_least
from dashboards.house import Query, each, stat, states, table, timeseries, words
from dashboards.page import Page, Row
from dashboards.promql import BY_POOL, PANELS, PRESENT, RANGE, RATE, SERVICE, share
from semconv.prometheus_names import label_name
from snakepit_otel.telemetry import names as n

_Q = PANELS.also(**BY_POOL)
_POOL = label_name(n.SNAKEPIT_POOL_NAME)
_TOOL = label_name(n.SNAKEPIT_TOOL_NAME)
_REQUEST = n.METRIC_REQUEST_DURATION
_DISPATCH = n.METRIC_POOL_DISPATCH_DURATION
_FAILED = {n.ERROR_TYPE: PRESENT}
_NEEDS_RULES = " Needs the recording rules of `snakepit-rules.yaml`."
# Tools that are shown by themselves, where there are many.
_OFTEN = 10

_WORDS = """\
**Read from the top:** are the promises kept, does an alert fire, does every pool serve? If not: which tool or pool \
fails, and with what error?

[Sessions]({sessions}) – do they leak? · [Session stores]({stores}) – one ledger, in time? · \
[Pools and workers]({pools}) – saturated, crashing? · \
[Adapters and tools]({adapters}) – which phase? · [RPC and call-backs]({rpc}) – which call? · \
[Zero-copy and memory]({zero_copy}) – what is held? · [Telemetry health]({telemetry}) – is anything missing here? · \
[One session]({session}) – what happened to it?
"""


def page() -> Page:
    return Page(
        uid="snakepit-overview",
        title="Snakepit / Overview",
        question="Are callers served as promised? If not, which tool, pool or alert says why?",
        pool=True,
        rows=[_now(), _wrong(), _objectives(), _requests(), _pools()],
    )


def _link(page: str) -> str:
    return f"/d/snakepit-{page}?${{__url_time_range}}&${{__all_variables}}"


def _recorded(series: str) -> str:
    """Return the selector of a recorded series; they say of which service they are, and nothing else."""
    return f"{series}{{{','.join(PANELS.matchers[label].on(label) for label in SERVICE)}}}"


def _kept(broken: str, of: str) -> str:
    """Return the share of requests with which a promise was kept, over the time shown."""
    part, whole = (f"sum(sum_over_time({_recorded(series)}[{RANGE}]))" for series in (broken, of))
    return f"1 - {part} / ({whole} > 0)"


def _now() -> Row:
    live, limit = _Q.per_store(n.METRIC_SESSION_COUNT), _Q.per_store(n.METRIC_SESSION_LIMIT)
    pages = ("sessions", "stores", "pools", "adapters", "rpc", "zero_copy", "telemetry", "session")
    return Row(
        "Now",
        [
            words("Where to look", _WORDS.format(**{page: _link(page.replace("_", "-")) for page in pages}), height=4),
            stat(
                "Availability",
                Query(_kept(recording.ERRORS, recording.REQUESTS), instant=True),
                f"The share of requests answered in the time shown; at least {objectives.AVAILABILITY:.1%} is "
                "promised. Requests that were asked wrongly, or given up by their callers, do not count. Below it, "
                f"see what fails, below.{_NEEDS_RULES}",
                unit="percentunit",
                steps=[(None, BAD), (objectives.AVAILABILITY, GOOD)],
                decimals=2,
            ),
            stat(
                "In time",
                Query(_kept(recording.LATE, recording.ANSWERED), instant=True),
                f"The share of answers within {objectives.IN_TIME_SECONDS} s, in the time shown; at least "
                f"{objectives.IN_TIME:.0%} is promised. Below it, see whether requests wait for workers, on the page "
                f"of pools, or tools are slow, on that of adapters.{_NEEDS_RULES}",
                unit="percentunit",
                steps=[(None, BAD), (objectives.IN_TIME, GOOD)],
                decimals=2,
            ),
            stat(
                "Error budget left",
                # It is recorded every five minutes, which is as long as Prometheus looks back by itself.
                Query(f"min(last_over_time({_recorded(recording.BUDGET_LEFT)}[15m]))"),
                f"What is left of the failures that {objectives.BUDGET_DAYS} days may have; of several services, the "
                "one with least. Below zero the promise is broken: what risks failures should wait until it has "
                f"recovered.{_NEEDS_RULES}",
                unit="percentunit",
                steps=[(None, BAD), (0, GOOD)],
                decimals=0,
            ),
            stat(
                "Workers ready",
                Query(_Q.total(n.METRIC_POOL_WORKER_COUNT, where={n.SNAKEPIT_WORKER_STATE: "ready"})),
                "Workers that serve requests, in the pools chosen. Good is the size that the pools are set to. At "
                "none, every request waits, and is refused when its time is up.",
                steps=[(None, BAD), (1, GOOD)],
                decimals=0,
            ),
            stat(
                "Live sessions",
                Query(_Q.total(n.METRIC_SESSION_COUNT)),
                "Sessions that exist. Good is a level; if it only climbs, they leak.",
                decimals=0,
            ),
            stat(
                "Of the session quota",
                Query(f"max({share(live, limit)})"),
                "Live sessions as a share of `max_sessions`; of several stores, the nearest. At 100 % creating is "
                "refused, or the least recently used are evicted. Empty where no quota is set.",
                unit="percentunit",
                steps=at_least(objectives.QUOTA_NEAR, 1),
                zero="no quota",
            ),
        ],
    )


def _wrong() -> Row:
    # Alerts on what is no service's own, as the collector is not, are of every service.
    chosen = ",".join(f'{label}=~"${label}|"' for label in SERVICE)
    labels = f"alertname, severity, service_name, {_POOL}"
    alerts = (
        f'max by ({labels}) (ALERTS{{alertname=~"Snakepit.*",alertstate="firing",{chosen}}} * 2 '
        f'or ALERTS{{alertname=~"Snakepit.*",alertstate="pending",{chosen}}})'
    )
    where = ["instance", "service_name", n.SNAKEPIT_POOL_NAME]

    def breaker(state: str) -> str:
        return _Q.total(n.METRIC_POOL_BREAKER_STATE, where, {n.SNAKEPIT_BREAKER_STATE: state})

    ready = _Q.total(n.METRIC_POOL_WORKER_COUNT, where, {n.SNAKEPIT_WORKER_STATE: "ready"})
    state = f"(3 * {breaker('closed')} + 2 * {breaker('half_open')} + {breaker('open')}) * ({ready} > bool 0)"
    return Row(
        "What is wrong",
        [
            states(
                "Alerts",
                Query(alerts, f"{{{{alertname}}}} {{{{service_name}}}} {each(n.SNAKEPIT_POOL_NAME)}"),
                "Good is none. Firing ones have a runbook and a page, in their annotations; pending ones fire if it "
                "goes on. Needs the alerts of `snakepit-alerts.yaml`.",
                bands=[(1, "pending", WARN), (2, "firing", BAD)],
                zero="none firing",
                width=12,
                height=8,
            ),
            states(
                "Pools",
                Query(
                    f"min by (service_name, {_POOL}) ({state})", f"{{{{service_name}}}} {each(n.SNAKEPIT_POOL_NAME)}"
                ),
                "Good is serving, without a break. Without a ready worker requests wait; while the circuit breaker "
                "is open they are refused at once, and half open one is tried. Of several authorities, the worst.",
                bands=[
                    (0, "no worker ready", "dark-red"),
                    (1, "breaker open", BAD),
                    (2, "breaker half open", WARN),
                    (3, "serving", GOOD),
                ],
                width=12,
                height=8,
            ),
        ],
    )


def _objectives() -> Row:
    errors, late = 1 - objectives.AVAILABILITY, 1 - objectives.IN_TIME
    return Row(
        "Objectives",
        [
            timeseries(
                "Pace of the error budget",
                [
                    Query(f"max({_recorded(recording.error_ratio(window))}) / {errors:.6g}", f"over {window}")
                    for window in recording.WINDOWS
                ],
                "Failures over so much time, in times what the budget allows: at 1 it lasts its "
                f"{objectives.BUDGET_DAYS} days. Good is below 1. Alerts fire from {objectives.BURN_FAST} on over 1h "
                f"and 5m, from {objectives.BURN_SLOW} on over 6h and 30m, from {objectives.BURN_LONG} on over 3d and "
                f"6h.{_NEEDS_RULES}",
                unit="none",
                steps=[
                    (None, GOOD),
                    (objectives.BURN_LONG, NOTE),
                    (objectives.BURN_SLOW, WARN),
                    (objectives.BURN_FAST, BAD),
                ],
                width=12,
            ),
            timeseries(
                "Pace of the latency budget",
                [
                    Query(f"max({_recorded(recording.late_ratio(window))}) / {late:.6g}", f"over {window}")
                    for window in recording.WINDOWS
                ],
                f"Answers later than {objectives.IN_TIME_SECONDS} s, in times what is allowed. Good is below 1. An "
                f"alert fires from {objectives.BURN_SLOW} on over 1h and 5m.{_NEEDS_RULES}",
                unit="none",
                steps=at_least(objectives.BURN_SLOW),
                width=12,
            ),
        ],
    )


def _requests() -> Row:
    requests = _Q.occurrences(_REQUEST, [n.SNAKEPIT_TOOL_NAME])
    return Row(
        "Requests, of all pools",
        [
            timeseries(
                "Requests by tool",
                Query(f"topk({_OFTEN}, {_Q.rate(_REQUEST, [n.SNAKEPIT_TOOL_NAME])})", each(n.SNAKEPIT_TOOL_NAME)),
                f"Requests a second of the {_OFTEN} tools asked for most. Good is what callers are known to ask; a "
                "sudden end is as telling as a flood.",
                unit="reqps",
            ),
            timeseries(
                "Failures by error",
                Query(_Q.occurrences(_REQUEST, [n.ERROR_TYPE], _FAILED, RATE), each(n.ERROR_TYPE)),
                "Failed requests, in the interval up to each point. Good is none. Without cost to the budget, being "
                f"their callers' own: {', '.join(objectives.CALLERS_OWN)}.",
                zero="no failures",
            ),
            timeseries(
                "Latency",
                [
                    # The points are the same, whichever line asks for them.
                    Query(_Q.quantile(quantile, _REQUEST), f"p{quantile * 100:.0f}", exemplars=quantile == 0.99)
                    for quantile in (0.5, 0.95, 0.99)
                ],
                "How long callers waited, failed requests included. The points are requests that lead to their "
                f"traces. Good is a p99 below the promise of {objectives.IN_TIME_SECONDS} s, which is the line.",
                unit="s",
                steps=at_least(objectives.IN_TIME_SECONDS),
            ),
            table(
                "By tool",
                [
                    Query(requests),
                    Query(share(_Q.occurrences(_REQUEST, [n.SNAKEPIT_TOOL_NAME], _FAILED), requests)),
                    Query(_Q.quantile_of_all(0.5, _REQUEST, [n.SNAKEPIT_TOOL_NAME])),
                    Query(_Q.quantile_of_all(0.99, _REQUEST, [n.SNAKEPIT_TOOL_NAME])),
                ],
                "Each tool over the time shown. Look for the one with failures, or with a p99 far from its p50; the "
                "page of adapters says in which phase.",
                columns=["requests", "failed", "p50", "p99"],
                keys=[_TOOL],
                units={"failed": "percentunit", "p50": "s", "p99": "s"},
                width=24,
                height=7,
            ),
        ],
    )


def _pools() -> Row:
    pool = [n.SNAKEPIT_POOL_NAME]
    active, capacity = _Q.total(n.METRIC_POOL_REQUEST_ACTIVE, pool), _Q.total(n.METRIC_POOL_CAPACITY, pool)
    given = _Q.occurrences(_DISPATCH, pool)
    return Row(
        "Pools",
        [
            timeseries(
                "Given to workers, by pool",
                Query(_Q.rate(_DISPATCH, pool), each(n.SNAKEPIT_POOL_NAME)),
                "Requests a second that got a worker. Less than are asked for means that the rest waits, or is "
                "refused: see the page of pools.",
                unit="reqps",
            ),
            timeseries(
                "Failures at workers, by pool",
                Query(
                    _Q.occurrences(_DISPATCH, [n.SNAKEPIT_POOL_NAME, n.ERROR_TYPE], _FAILED, RATE),
                    f"{each(n.SNAKEPIT_POOL_NAME)}: {each(n.ERROR_TYPE)}",
                ),
                "Requests that got a worker and failed, in the interval up to each point. Good is none. WorkerExited "
                "is a crash; the names of other exceptions are the tools' own.",
                zero="no failures",
            ),
            timeseries(
                "Workers ready against all",
                [
                    Query(_Q.total(n.METRIC_POOL_WORKER_COUNT), "all"),
                    Query(_Q.total(n.METRIC_POOL_WORKER_COUNT, where={n.SNAKEPIT_WORKER_STATE: "ready"}), "ready"),
                ],
                "Good is ready close to all: the difference starts, spares, drains or stops. A gap that stays, "
                "without spares, is workers that do not get ready.",
            ),
            table(
                "By pool",
                [
                    Query(given),
                    Query(share(_Q.occurrences(_DISPATCH, pool, _FAILED), given)),
                    Query(_Q.quantile_of_all(0.99, _DISPATCH, pool)),
                    Query(_Q.total(n.METRIC_POOL_WORKER_COUNT, pool, {n.SNAKEPIT_WORKER_STATE: "ready"})),
                    Query(share(active, capacity)),
                    Query(_Q.total(n.METRIC_POOL_QUEUE_LENGTH, pool)),
                ],
                "Requests, failures and p99 at the workers are over the time shown, the rest is now. Look for a pool "
                "that is wholly in use and has requests waiting: it needs more workers, or fewer requests.",
                columns=["requests", "failed", "p99", "workers ready", "in use", "waiting"],
                keys=[_POOL],
                units={"failed": "percentunit", "p99": "s", "in use": "percentunit"},
                width=24,
                height=6,
            ),
        ],
    )
