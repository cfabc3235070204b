"""Pools: saturation, and the starts and exits of workers."""

from __future__ import annotations

from dashboards import objectives
from dashboards.colours import BAD, GOOD, WARN, any_is, at_least
from dashboards.house import Query, each, quantiles, stat, states, table, timeseries
from dashboards.page import Page, Row
from dashboards.promql import BY_POOL, PANELS, RANGE, RATE, share
from semconv.prometheus_names import label_name
from snakepit_otel.telemetry import names as n
from snakepit_otel.telemetry._definitions import Metric

_Q = PANELS.also(**BY_POOL)
_POOL = label_name(n.SNAKEPIT_POOL_NAME)
_QUANTILES = (0.5, 0.95, 0.99)
_PROCESS = ("snakepit_role", "instance")
# Processes that are shown by themselves, where there are many.
_LARGEST = 12


def page() -> Page:
    return Page(
        uid="snakepit-pools",
        title="Snakepit / Pools and workers",
        question="Are pools saturated, and do their workers live? What does each process use?",
        pool=True,
        rows=[_now(), _load(), _lives(), _processes()],
    )


def _now() -> Row:
    service = ["service_name", n.SNAKEPIT_POOL_NAME]

    def breaker(state: str) -> str:
        return _Q.total(n.METRIC_POOL_BREAKER_STATE, ["instance", *service], {n.SNAKEPIT_BREAKER_STATE: state})

    state = f"max by (service_name, {_POOL}) (2 * {breaker('open')} + {breaker('half_open')})"
    return Row(
        "Now",
        [
            states(
                "Circuit breakers",
                Query(state, f"{{{{service_name}}}} {each(n.SNAKEPIT_POOL_NAME)}"),
                "Good is closed. Open, requests are refused at once because they lost their workers one after the "
                "other: see the exits below, and the log for what workers said before. Half open, one is tried. Of "
                "several authorities, the worst.",
                bands=[(0, "closed", GOOD), (1, "half open", WARN), (2, "open", BAD)],
                width=12,
                height=4,
            ),
            stat(
                "In use",
                Query(share(_Q.total(n.METRIC_POOL_REQUEST_ACTIVE), _Q.total(n.METRIC_POOL_CAPACITY))),
                "Requests at workers, as a share of what the workers can run at a time. At 100 % the next one waits. "
                "Good leaves room for a rush; if it is always full, raise `pool.size`, if there are processors for "
                "it.",
                unit="percentunit",
                steps=at_least(1),
            ),
            stat(
                "Refused, as too many",
                Query(_Q.occurrences(n.METRIC_POOL_SATURATED_COUNT), instant=True),
                "Requests refused in the time shown because the queue was full, or too long for their deadlines. "
                "Good is none. They did not run, and may be sent again, later.",
                steps=any_is(BAD),
                zero="0",
                decimals=0,
            ),
            stat(
                "Run again",
                Query(_Q.occurrences(n.METRIC_POOL_RETRIES), instant=True),
                "Times, in the time shown, that an idempotent request was run again, as it had lost its worker, or its "
                "tool had raised an error that may pass. Good is none; their callers notice nothing but the wait.",
                steps=any_is(WARN),
                zero="0",
                decimals=0,
            ),
        ],
    )


def _load() -> Row:
    pool = [n.SNAKEPIT_POOL_NAME]
    return Row(
        "Load",
        [
            timeseries(
                "Workers by state",
                Query(_Q.total(n.METRIC_POOL_WORKER_COUNT, [n.SNAKEPIT_WORKER_STATE]), each(n.SNAKEPIT_WORKER_STATE)),
                "Good is ready, at the size that the pools are set to. Many that start again and again are a crash "
                "or a recycling that is set too tight: see why workers ended.",
                stacked=True,
            ),
            timeseries(
                "Requests at workers against capacity",
                [
                    Query(_Q.total(n.METRIC_POOL_REQUEST_ACTIVE, pool), f"active {each(n.SNAKEPIT_POOL_NAME)}"),
                    Query(_Q.total(n.METRIC_POOL_CAPACITY, pool), f"capacity {each(n.SNAKEPIT_POOL_NAME)}"),
                ],
                "What the ready workers run, and what they can run at a time. Good is room between them. Capacity "
                "falls with every worker that is not ready.",
            ),
            timeseries(
                "Requests that wait, against the limit",
                [
                    Query(_Q.total(n.METRIC_POOL_QUEUE_LENGTH, pool), f"waiting {each(n.SNAKEPIT_POOL_NAME)}"),
                    Query(_Q.total(n.METRIC_POOL_QUEUE_LIMIT, pool), f"limit {each(n.SNAKEPIT_POOL_NAME)}"),
                ],
                "Good is none, or a few in a rush. At the limit, `pool.max_queue_size`, further ones are refused; a "
                "longer queue only makes them wait longer, workers are what is missing.",
            ),
            timeseries(
                "Wait for a worker",
                quantiles(_Q, n.METRIC_POOL_QUEUE_DURATION, *_QUANTILES, exemplars=True),
                "Of requests that had to wait; those that found a worker at once are not in it. Good is nothing, or "
                f"short. An alert fires where p95 stays above {objectives.QUEUE_WAIT_SECONDS} s, which is the line.",
                unit="s",
                steps=at_least(objectives.QUEUE_WAIT_SECONDS),
                zero="nobody waited",
            ),
            timeseries(
                "Refused, by reason",
                Query(
                    _Q.occurrences(n.METRIC_POOL_REJECTIONS, [n.SNAKEPIT_POOL_REJECTION], window=RATE),
                    each(n.SNAKEPIT_POOL_REJECTION),
                ),
                "Requests refused before they ran, in the interval up to each point. Good is none. pool_saturated "
                "and queue_timeout: too few workers; circuit_open: they crash; worker_busy: the affinity is strict.",
                zero="none refused",
            ),
            timeseries(
                "Time at the worker",
                quantiles(_Q, n.METRIC_POOL_DISPATCH_DURATION, *_QUANTILES, exemplars=True),
                "From having a worker to its answer, the wait before not included. If this is long, tools are: see "
                "the page of adapters. If it is short where callers wait long, workers are missing.",
                unit="s",
            ),
        ],
    )


def _lives() -> Row:
    pool = [n.SNAKEPIT_POOL_NAME]
    return Row(
        "Lives of workers",
        [
            timeseries(
                "Ended, by reason",
                Query(
                    _Q.occurrences(n.METRIC_WORKER_EXITS, [n.SNAKEPIT_WORKER_EXIT_REASON], window=RATE),
                    each(n.SNAKEPIT_WORKER_EXIT_REASON),
                ),
                "Workers, in the interval up to each point. Good are only those that were asked to, by ttl, "
                f"max_requests, memory or a restart. An alert fires at more than {objectives.CRASHES} crashes and "
                "failed starts in ten minutes: the log has what they said last.",
                zero="none ended",
            ),
            timeseries(
                "Replaced, restarted, set aside, orphaned",
                [
                    Query(
                        _Q.occurrences(n.METRIC_WORKER_RECYCLED_COUNT, [n.SNAKEPIT_WORKER_EXIT_REASON], window=RATE),
                        f"replaced: {each(n.SNAKEPIT_WORKER_EXIT_REASON)}",
                    ),
                    Query(_Q.occurrences(n.METRIC_WORKER_RESTARTED_COUNT, window=RATE), "restarted"),
                    Query(
                        _Q.occurrences(n.METRIC_WORKER_TAINTED_COUNT, [n.SNAKEPIT_WORKER_SUSPICION], window=RATE),
                        f"set aside: {each(n.SNAKEPIT_WORKER_SUSPICION)}",
                    ),
                    Query(_Q.occurrences(n.METRIC_WORKER_ORPHAN_KILLED_COUNT, window=RATE), "orphan killed"),
                ],
                "In the interval up to each point. Replaced is by intention; restarted is in place of one that ended "
                "unasked; set aside gets no requests until it answers again; an orphan had outlived an authority "
                "that was killed. Good is replaced only.",
                zero="none",
            ),
            table(
                "Time to start, stop and replace",
                [
                    Query(_Q.occurrences(n.METRIC_WORKER_STARTUP_DURATION, pool)),
                    Query(_Q.quantile_of_all(0.5, n.METRIC_WORKER_STARTUP_DURATION, pool)),
                    Query(_Q.quantile_of_all(0.95, n.METRIC_WORKER_STARTUP_DURATION, pool)),
                    Query(_Q.quantile_of_all(0.95, n.METRIC_WORKER_SHUTDOWN_DURATION, pool)),
                    Query(_Q.quantile_of_all(0.95, n.METRIC_WORKER_REPLACEMENT_DURATION, pool)),
                ],
                "Over the time shown. Good is a start far below `pool.startup_timeout`; a long one is imports or a "
                "model that is loaded, and `pool.spares` hides it. A stop as long as `pool.shutdown_grace` was "
                "forced.",
                columns=["starts", "start p50", "start p95", "stop p95", "replacement p95"],
                keys=[_POOL],
                units=dict.fromkeys(("start p50", "start p95", "stop p95", "replacement p95"), "s"),
                zero="none started",
                width=8,
            ),
            timeseries(
                "Answers to heartbeats",
                quantiles(_Q, n.METRIC_WORKER_HEARTBEAT_DURATION, *_QUANTILES),
                "How long workers take to say that they respond. Good is milliseconds. Long ones are tools that hold "
                "the GIL, or a machine without a free processor.",
                unit="s",
            ),
            timeseries(
                "Heartbeats missed",
                Query(_Q.occurrences(n.METRIC_HEARTBEAT_TIMEOUT_COUNT, pool, window="10m"), each(n.SNAKEPIT_POOL_NAME)),
                "Not answered in time, in the ten minutes up to each point. Good is none; more than "
                f"{objectives.HEARTBEATS_MISSED}, which is the line, are an alert. A worker that is busy is left "
                "alone; one that has no request is replaced.",
                steps=[(None, GOOD), (objectives.HEARTBEATS_MISSED, WARN)],
                zero="none missed",
            ),
            timeseries(
                "Sessions and their last workers",
                Query(
                    _Q.rate(
                        n.METRIC_POOL_AFFINITY_DECISIONS, [n.SNAKEPIT_AFFINITY_OUTCOME, n.SNAKEPIT_AFFINITY_REASON]
                    ),
                    f"{each(n.SNAKEPIT_AFFINITY_OUTCOME)}: {each(n.SNAKEPIT_AFFINITY_REASON)}",
                ),
                "Requests a second, by what became of the affinity hint. Good are hits, and none for calls without a "
                f"session. Where more than {objectives.AFFINITY_LOST:.0%} miss or are broken caches are cold: busy is "
                "too few workers, gone is workers that end too often.",
                unit="reqps",
                stacked=True,
            ),
        ],
    )


def _largest(course: str, size: str) -> str:
    """Return the courses of the processes that are largest over all of the time shown, so that they stay the same."""
    labels = ", ".join(_PROCESS)
    return f"{course} and on ({labels}) topk({_LARGEST}, sum by ({labels}) ({size}))"


def _highest(metric: Metric) -> str:
    """Return the courses of a gauge's highest processes."""
    return _largest(_Q.total(metric, _PROCESS), f"max_over_time({_Q.series(metric)}[{RANGE}] @ end())")


def _processes() -> Row:
    legend = "{{snakepit_role}} {{instance}}"
    used = f"increase({_Q.series(n.METRIC_PROCESS_CPU_TIME)}[{RANGE}] @ end())"
    return Row(
        "Processes, of all pools",
        [
            timeseries(
                "Memory of workers, by pool",
                Query(_Q.total(n.METRIC_POOL_MEMORY_USAGE, [n.SNAKEPIT_POOL_NAME]), each(n.SNAKEPIT_POOL_NAME)),
                "Resident. Good is a plateau. Stairs that only go up are tools that keep what they need no more; "
                "`pool.worker_max_memory_bytes` has such workers replaced.",
                unit="bytes",
                width=6,
            ),
            timeseries(
                "Memory of each process",
                Query(_highest(n.METRIC_PROCESS_MEMORY_USAGE), legend),
                f"Resident, of the {_LARGEST} largest, the authority's included. Good is alike among workers. One "
                "that stands out has served something large; an authority that grows has sessions or references to "
                "hold.",
                unit="bytes",
                width=6,
            ),
            timeseries(
                "Processor of each process",
                Query(_largest(_Q.rate(n.METRIC_PROCESS_CPU_TIME, _PROCESS), used), legend),
                f"Processors in use, of the {_LARGEST} busiest. A worker that runs Python at 100 % has all that the "
                "GIL lets it have. An authority near that is the narrowest place: more workers do not help, another "
                "authority does.",
                unit="percentunit",
                width=6,
            ),
            timeseries(
                "Threads of each process",
                Query(_highest(n.METRIC_PROCESS_THREAD_COUNT), legend),
                f"Of the {_LARGEST} with most. Good is a level. A number that climbs is a library, or a tool, that "
                "does not end the threads it starts.",
                width=6,
            ),
        ],
    )
