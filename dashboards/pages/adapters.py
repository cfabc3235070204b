"""Adapters: tools that fail or are slow, by phase of the adapter's life."""

from __future__ import annotations

from functools import partial

from dashboards.colours import WARN, any_is
from dashboards.house import Query, bars, each, heatmap, log_lines, quantiles, table, timeseries
from dashboards.logql import RECORDS, Value
from dashboards.page import Page, Row
from dashboards.promql import ABSENT, BY_TOOL, PANELS, PRESENT, RANGE, RATE, Where, share
from semconv.prometheus_names import label_name
from snakepit_otel.telemetry import names as n

_Q = PANELS.also(**BY_TOOL)
# Workers of others have tools of their own, which are not among those that can be chosen.
_OTHERS = PANELS
_REQUEST = n.METRIC_ADAPTER_REQUEST_DURATION
_PHASE = n.METRIC_ADAPTER_PHASE_DURATION
_TOOL = [n.SNAKEPIT_TOOL_NAME]
_FAILED = {n.ERROR_TYPE: PRESENT}
_of_others = partial(timeseries, zero="no foreign workers")
_IS_NORMAL = " Empty where all workers are of this framework."


def page() -> Page:
    return Page(
        uid="snakepit-adapters",
        title="Snakepit / Adapters and tools",
        question="Which tool fails or is slow, and in which phase of its adapter's life?",
        tool=True,
        logs=True,
        rows=[_requests(), _phases(), _loading(), _foreign()],
    )


def _requests() -> Row:
    requests = _Q.occurrences(_REQUEST, _TOOL)
    return Row(
        "Requests in the workers",
        [
            timeseries(
                "Requests by tool",
                Query(_Q.rate(_REQUEST, _TOOL), each(n.SNAKEPIT_TOOL_NAME)),
                "Requests a second that workers have ended. Good is what callers are known to ask. Waiting for a "
                "worker is not in any figure of this page; see that of pools.",
                unit="reqps",
            ),
            timeseries(
                "Failures by tool",
                Query(
                    _Q.occurrences(_REQUEST, [*_TOOL, n.ERROR_TYPE], _FAILED, RATE),
                    f"{each(n.SNAKEPIT_TOOL_NAME)}: {each(n.ERROR_TYPE)}",
                ),
                "Requests that failed in the worker, in the interval up to each point. Good is none. What was raised, "
                "and where, is among the exceptions below.",
                zero="no failures",
            ),
            timeseries(
                "Duration",
                quantiles(_Q, _REQUEST, 0.5, 0.95, 0.99),
                "How long requests took in the worker, all phases together, of the tools chosen above. Good is a p99 "
                "that stays where it was; choose a tool to see its own.",
                unit="s",
            ),
            heatmap(
                "Durations",
                Query(_Q.buckets(_REQUEST), "{{le}}", exemplars=True),
                "How many requests took how long: the darker, the more. Good is one band that stays level. Two bands "
                "are two kinds of request; a band that rises is work that grows with what is kept. The points lead to "
                "traces.",
            ),
            timeseries(
                "p95 by tool",
                Query(_Q.quantile(0.95, _REQUEST, _TOOL), each(n.SNAKEPIT_TOOL_NAME)),
                "One in twenty requests of the tool took longer. Good is level; of the one that climbs, see the "
                "phases.",
                unit="s",
                width=12,
            ),
            table(
                "Tools",
                [
                    Query(requests),
                    Query(_Q.rate(_REQUEST, _TOOL, window=RANGE)),
                    Query(share(_Q.occurrences(_REQUEST, _TOOL, _FAILED), requests)),
                    Query(_Q.quantile(0.5, _REQUEST, _TOOL, window=RANGE)),
                    Query(_Q.quantile(0.95, _REQUEST, _TOOL, window=RANGE)),
                ],
                "Each tool over the time shown. Look for the one with failures, or with a p95 far from its p50. "
                "`_OTHER` stands for names that no adapter has registered.",
                columns=["requests", "rate", "failed", "p50", "p95"],
                keys=[label_name(n.SNAKEPIT_TOOL_NAME)],
                units={"rate": "reqps", "failed": "percentunit", "p50": "s", "p95": "s"},
                width=16,
            ),
            bars(
                "Failures by error",
                Query(_Q.occurrences(_REQUEST, [n.ERROR_TYPE], _FAILED), each(n.ERROR_TYPE)),
                "What failed requests ended with, in the time shown. Good is none. `cancelled` was given up by its "
                "caller; the names of exceptions are the tools' own.",
                zero="no failures",
            ),
        ],
    )


def _phases() -> Row:
    phase = each(n.SNAKEPIT_PHASE)
    cleanup: Where = {n.SNAKEPIT_PHASE: "cleanup", n.ERROR_TYPE: PRESENT}
    return Row(
        "Phases of an adapter's life",
        [
            timeseries(
                "Where time goes",
                Query(_Q.rate_of_sum(_PHASE, [n.SNAKEPIT_PHASE]), phase),
                "Seconds spent in each phase, a second; 1 is one request running all the time. Good is nearly all in "
                "`execute`. Where `build` or `initialize` is large, keep what they make for longer than one request.",
                unit="none",
                stacked=True,
                width=6,
            ),
            timeseries(
                "p95 by phase",
                Query(_Q.quantile(0.95, _PHASE, [n.SNAKEPIT_PHASE]), phase),
                "One in twenty took longer. Good is `build`, `initialize` and `cleanup` far below `execute`.",
                unit="s",
                width=6,
            ),
            timeseries(
                "Failures by phase",
                Query(
                    _Q.occurrences(_PHASE, [n.SNAKEPIT_PHASE, n.ERROR_TYPE], _FAILED, RATE),
                    f"{phase}: {each(n.ERROR_TYPE)}",
                ),
                "Phases that failed, in the interval up to each point. Good is none. `build` and `initialize` fail "
                "before the tool is called: look at what they need, such as files and services.",
                zero="no failures",
                width=6,
            ),
            bars(
                "Clean-ups that failed",
                Query(_Q.occurrences(_PHASE, _TOOL, cleanup), each(n.SNAKEPIT_TOOL_NAME)),
                "In the time shown, by the tool that had run. Good is none: what a clean-up does not release stays "
                "until the worker ends. Their requests are answered all the same.",
                zero="none failed",
                steps=any_is(WARN),
                width=6,
            ),
        ],
    )


def _loading() -> Row:
    # A worker loads its adapter once, so its histogram is that one duration for as long as it lives.
    loaded = {n.ERROR_TYPE: ABSENT}
    took, times = (PANELS.series(n.METRIC_ADAPTER_LOAD_DURATION, part, loaded) for part in ("_sum", "_count"))
    exceptions = (
        RECORDS.where(n.SERVICE_INSTANCE_ID, PANELS.matchers["instance"])
        .of(n.EVENT_ADAPTER_EXCEPTION)
        .shown_as(Value("exception_type"), ": ", Value("exception_message"))
    )
    return Row(
        "Loading, and what was raised",
        [
            timeseries(
                "Loading of adapters",
                [Query(f"max({took} / {times})", "slowest"), Query(f"sum({took}) / sum({times})", "mean")],
                "How long the workers that are there took to import their adapters, once each. Good is seconds: a "
                "replaced worker is ready that much later. If it grows, import large libraries where they are used.",
                unit="s",
            ),
            log_lines(
                "Exceptions",
                exceptions,
                "What adapters' own code raised, of all tools, newest first; the details have where, and the trace. "
                "Good is none but what tools raise to say no.",
                zero="none raised",
                width=16,
                height=8,
            ),
        ],
    )


def _foreign() -> Row:
    refused = _OTHERS.rate(n.METRIC_WORKER_EVENT_REFUSED, [n.SNAKEPIT_WORKER_EVENT_REFUSAL])
    failures = {
        "tool": n.METRIC_WORKER_TOOL_EXECUTION_EXCEPTION_COUNT,
        "call": n.METRIC_WORKER_PYTHON_CALL_EXCEPTION_COUNT,
        "noted": n.METRIC_WORKER_PYTHON_ERROR_OCCURRED_COUNT,
    }
    durations = {
        "tool": n.METRIC_WORKER_TOOL_EXECUTION_DURATION,
        "call": n.METRIC_WORKER_PYTHON_CALL_DURATION,
    }
    memory = {
        "resident": n.METRIC_WORKER_PYTHON_MEMORY_SAMPLED_RSS,
        "virtual": n.METRIC_WORKER_PYTHON_MEMORY_SAMPLED_VMS,
    }
    return Row(
        "Workers without OpenTelemetry, as their own events say",
        [
            _of_others(
                "Events",
                [
                    Query(
                        _OTHERS.rate(n.METRIC_WORKER_EVENT_RECEIVED, [n.SNAKEPIT_WORKER_EVENT_NAME]),
                        each(n.SNAKEPIT_WORKER_EVENT_NAME),
                    ),
                    Query(refused, f"refused: {each(n.SNAKEPIT_WORKER_EVENT_REFUSAL)}"),
                    Query(_OTHERS.rate(n.METRIC_WORKER_EVENT_DROPPED), "dropped by the worker"),
                ],
                "Events a second that such workers send. Good is none refused and none dropped: `too_large` and "
                "`measurement` are the worker's mistakes, and it drops events that nobody takes fast enough."
                f"{_IS_NORMAL}",
                unit="eps",
                width=12,
            ),
            _of_others(
                "p95 of tools and calls",
                [
                    Query(_OTHERS.quantile(0.95, metric, _TOOL), f"{what} {each(n.SNAKEPIT_TOOL_NAME)}")
                    for what, metric in durations.items()
                ],
                f"One in twenty took longer, by what the events say. Good is level.{_IS_NORMAL}",
                unit="s",
                width=12,
            ),
            _of_others(
                "Failures",
                [
                    Query(_OTHERS.occurrences(metric, [n.ERROR_TYPE], window=RATE), f"{what}: {each(n.ERROR_TYPE)}")
                    for what, metric in failures.items()
                ],
                "Tools and calls that raised, and errors that were noted, in the interval up to each point. Good is "
                f"none; the events themselves are among the logs.{_IS_NORMAL}",
                width=5,
            ),
            _of_others(
                "Results, p95",
                Query(_OTHERS.quantile(0.95, n.METRIC_WORKER_TOOL_RESULT_SIZE_SIZE, _TOOL), each(n.SNAKEPIT_TOOL_NAME)),
                f"The size of what tools return. Large ones are better handed over as references.{_IS_NORMAL}",
                unit="bytes",
                width=5,
            ),
            _of_others(
                "Memory, p95",
                [Query(_OTHERS.quantile(0.95, metric), what) for what, metric in memory.items()],
                f"Of all their samples together. Good is a plateau; which worker climbs, the events say.{_IS_NORMAL}",
                unit="bytes",
                width=5,
            ),
            _of_others(
                "Use of CPU",
                quantiles(_OTHERS, n.METRIC_WORKER_PYTHON_CPU_SAMPLED_UTILIZATION, 0.5, 0.95),
                f"Of all their samples together; 100 % is all of one core. Good is below that.{_IS_NORMAL}",
                unit="percentunit",
                width=5,
            ),
            _of_others(
                "Collections of garbage",
                Query(_OTHERS.rate(n.METRIC_WORKER_PYTHON_GC_COMPLETED_COUNT), "collections"),
                f"A second. Good is level: many collections are many objects that are made and dropped.{_IS_NORMAL}",
                unit="ops",
                width=4,
            ),
        ],
    )
