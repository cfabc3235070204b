"""Telemetry itself: losses, by place and reason."""

from __future__ import annotations

from dashboards import foreign, objectives
from dashboards.colours import BAD, WARN, any_is, at_least
from dashboards.house import Query, bars, each, stat, table, timeseries
from dashboards.page import Page, Row
from dashboards.promql import PANELS as Q
from dashboards.promql import RATE, occurrences_of, share
from dashboards.registry import OVERFLOW
from semconv.prometheus_names import label_name
from snakepit_otel.telemetry import names as n

_SIGNAL = [n.SNAKEPIT_TELEMETRY_SIGNAL]
_BY_SIGNAL = each(n.SNAKEPIT_TELEMETRY_SIGNAL)
_ENDED, _DELIVERED = n.METRIC_TELEMETRY_ENDED, n.METRIC_TELEMETRY_DELIVERED
_FAILED, _DROPPED = n.METRIC_TELEMETRY_FAILED, n.METRIC_TELEMETRY_DROPPED
_LOST = n.METRIC_WORKER_TELEMETRY_LOST
# Series that stand for all those beyond a metric's limit, whatever the metric.
_BEYOND = ",".join((f'{OVERFLOW}="true"', *(matcher.on(label) for label, matcher in Q.matchers.items())))
_OF_COLLECTORS = " Of every collector that this Prometheus scrapes: what it says of itself is no service's own."


def page() -> Page:
    return Page(
        uid="snakepit-telemetry",
        title="Snakepit / Telemetry health",
        question="Can the other pages be believed? What telemetry is lost, where, and why?",
        rows=[_now(), _processes(), _collector()],
    )


def _now() -> Row:
    failed, dropped = Q.occurrences(_FAILED), Q.occurrences(_DROPPED)
    return Row(
        "Now",
        [
            stat(
                "Lost",
                Query(share(f"({failed}) + ({dropped})", Q.occurrences(_ENDED)), instant=True),
                "The share of spans, log records and metric points in the time shown that were dropped, or given up "
                f"after their export failed. Good is none; an alert fires from {objectives.TELEMETRY_LOST:.0%} on.",
                unit="percentunit",
                steps=at_least(objectives.TELEMETRY_LOST),
                decimals=2,
                width=5,
            ),
            stat(
                "Lost with workers",
                Query(Q.occurrences(_LOST), instant=True),
                "What workers that are gone had recorded and not delivered, in the time shown. A worker that is killed "
                "loses a second's worth; good is no more crashes than that explains.",
                steps=any_is(WARN),
                zero="none",
                decimals=0,
                width=5,
            ),
            stat(
                "Faults",
                Query(Q.occurrences(n.METRIC_TELEMETRY_FAULTS), instant=True),
                "Errors inside the telemetry code in the time shown, which were kept from the code it observes. Good "
                "is none: each is a defect of this framework, whose log has a line about it.",
                steps=any_is(BAD),
                decimals=0,
                width=5,
            ),
            stat(
                "Attributes dropped",
                Query(Q.occurrences(n.METRIC_TELEMETRY_ATTRIBUTE_DROPPED), instant=True),
                "Attributes of metrics in the time shown that are not allowed, so that they could not become series. "
                "Good is none.",
                steps=any_is(WARN),
                zero="none",
                decimals=0,
                width=5,
            ),
            stat(
                "Forks",
                Query(Q.occurrences(n.METRIC_TELEMETRY_FORKS), instant=True),
                "Times in the time shown that code forked its process. Good is none: the child has no telemetry. Have "
                "`multiprocessing` spawn instead.",
                steps=any_is(WARN),
                decimals=0,
                width=4,
            ),
        ],
    )


def _processes() -> Row:
    size, limit = (
        Q.total(metric, [*_SIGNAL, "instance"])
        for metric in (n.METRIC_TELEMETRY_QUEUE_SIZE, n.METRIC_TELEMETRY_QUEUE_LIMIT)
    )
    lost = f"({Q.rate(_FAILED, _SIGNAL)}) + ({Q.rate(_DROPPED, _SIGNAL)})"
    flows = {"ended": _ENDED, "delivered": _DELIVERED, "failed": _FAILED, "dropped": _DROPPED}
    return Row(
        "In the processes: ended = delivered + failed + dropped + queued",
        [
            table(
                "The account",
                [
                    *(Query(Q.occurrences(metric, _SIGNAL)) for metric in flows.values()),
                    Query(Q.total(n.METRIC_TELEMETRY_QUEUE_SIZE, _SIGNAL)),
                ],
                "What has ended in the time shown, what became of it, and what is queued now. Good is delivered as "
                "large as ended, but for what is queued. Figures of the time shown are whole numbers, each rounded.",
                columns=[*flows, "queued"],
                keys=[label_name(n.SNAKEPIT_TELEMETRY_SIGNAL)],
            ),
            timeseries(
                "What became of it",
                [Query(Q.rate(metric), name) for name, metric in flows.items()],
                "Spans, log records and metric points a second. Good is delivered upon ended; delivered far below it "
                "for long means that the collector is slow or away, and that queues fill.",
                unit="cps",
                width=12,
            ),
            timeseries(
                "Share lost",
                # Of what came to an end of some kind: what is lost now may have been recorded long before.
                Query(share(lost, f"{lost} + ({Q.rate(_DELIVERED, _SIGNAL)})"), _BY_SIGNAL),
                "By signal. Good is none. From the line on an alert fires, where it is so over ten minutes.",
                unit="percentunit",
                steps=at_least(objectives.TELEMETRY_LOST),
            ),
            timeseries(
                "Dropped and failed",
                [
                    Query(
                        Q.occurrences(_DROPPED, [*_SIGNAL, n.SNAKEPIT_TELEMETRY_DROP_REASON], window=RATE),
                        f"{_BY_SIGNAL}: {each(n.SNAKEPIT_TELEMETRY_DROP_REASON)}",
                    ),
                    Query(Q.occurrences(_FAILED, _SIGNAL, window=RATE), f"{_BY_SIGNAL}: failed"),
                ],
                "In the interval up to each point. Good is none. `queue_full`: the collector is slower than what is "
                "recorded; `shutdown`: it did not answer within the three seconds of a stop; `encode`: a defect; "
                "`failed`: the collector refused, or did not answer.",
            ),
            timeseries(
                "Fullest queue",
                Query(f"max by ({label_name(n.SNAKEPIT_TELEMETRY_SIGNAL)}) ({size} / {limit})", _BY_SIGNAL),
                "The process whose queue has most of its limit in use. Good is near none. At 100 % the newest are "
                "dropped: see why the collector is slow, below.",
                unit="percentunit",
                steps=at_least(objectives.QUEUE_NEAR, 1),
                most=1,
            ),
            timeseries(
                "Lost with workers, by reason",
                Query(
                    Q.occurrences(_LOST, [*_SIGNAL, n.SNAKEPIT_TELEMETRY_LOSS_REASON], window=RATE),
                    f"{_BY_SIGNAL}: {each(n.SNAKEPIT_TELEMETRY_LOSS_REASON)}",
                ),
                "What workers that are gone had not delivered, in the interval up to each point. Good is none. "
                "`queued` and `in_flight` are of workers that were killed, and the latter may have arrived; the others "
                "are as for living processes.",
                zero="none",
                width=12,
            ),
            bars(
                "Metrics with more series than they may have",
                Query(f"count by (__name__) ({{{_BEYOND}}})", "{{__name__}}"),
                "Processes in which a metric has reached its limit of series, of every service. Good is none: what is "
                "beyond the limit is counted in one series without attributes, so that breakdowns are incomplete.",
                zero="none",
                steps=any_is(WARN),
                width=12,
            ),
        ],
    )


def _collector() -> Row:
    accepted = {
        "spans": foreign.ACCEPTED_SPANS,
        "log records": foreign.ACCEPTED_LOGS,
        "metric points": foreign.ACCEPTED_POINTS,
    }
    refused = {
        "spans": foreign.REFUSED_SPANS,
        "log records": foreign.REFUSED_LOGS,
        "metric points": foreign.REFUSED_POINTS,
    }
    sent = {"spans": foreign.SENT_SPANS, "log records": foreign.SENT_LOGS, "metric points": foreign.SENT_POINTS}
    lost = {
        "spans, given up": foreign.EXPORT_FAILED_SPANS,
        "log records, given up": foreign.EXPORT_FAILED_LOGS,
        "spans, queue full": foreign.ENQUEUE_FAILED_SPANS,
        "log records, queue full": foreign.ENQUEUE_FAILED_LOGS,
    }
    decided = {"kept": '{sampled="true"}', "not kept": '{sampled="false"}'}
    return Row(
        "In the collector",
        [
            timeseries(
                "Accepted",
                _rates(accepted),
                f"Items a second that the collector took. Good is as many as processes deliver.{_OF_COLLECTORS}",
                unit="cps",
                width=6,
            ),
            timeseries(
                "Refused",
                _rates(refused),
                "Items a second that it did not take, and senders send again. Good is none: its memory limiter has "
                f"refused, or its queue is full, so give it more, or a faster back end.{_OF_COLLECTORS}",
                unit="cps",
                width=6,
            ),
            timeseries(
                "Sent",
                _rates(sent),
                "Items a second that it passed on. Good is all log records and points that it accepts, and of spans "
                f"those of the traces that are kept.{_OF_COLLECTORS}",
                unit="cps",
                width=6,
            ),
            timeseries(
                "Lost on the way",
                [
                    Query(f"sum by (exporter) ({occurrences_of(series, RATE)})", f"{{{{exporter}}}}: {what}")
                    for what, series in lost.items()
                ],
                "Items in the interval up to each point that its back end did not take in five minutes, or for which "
                f"the queue had no room. Good is none.{_OF_COLLECTORS}",
                zero="none",
                width=6,
            ),
            timeseries(
                "Fullest queue to a back end",
                Query(
                    f"max by (exporter, data_type) ({foreign.QUEUE_SIZE} / {foreign.QUEUE_CAPACITY})",
                    "{{exporter}} {{data_type}}",
                ),
                f"Its share in use. Good is near none: what fills it is a back end that is slow or "
                f"away.{_OF_COLLECTORS}",
                unit="percentunit",
                steps=at_least(objectives.QUEUE_NEAR, 1),
                most=1,
            ),
            timeseries(
                "Traces decided",
                [
                    *(
                        Query(f"sum(rate({foreign.TRACES_DECIDED}{where}[{RATE}]))", name)
                        for name, where in decided.items()
                    ),
                    Query(f"sum(rate({foreign.DROPPED_TOO_EARLY}[{RATE}]))", "given up undecided"),
                ],
                "Traces a second that tail sampling kept or did not. Good is none given up: else more are undecided at "
                f"a time than `OTELCOL_TRACES_HELD` allows.{_OF_COLLECTORS}",
                unit="cps",
            ),
            timeseries(
                "Memory",
                Query(foreign.MEMORY, "{{instance}}"),
                "Resident memory. Good stays below `OTELCOL_MEMORY_LIMIT_MIB`, less the spike, from where on it "
                f"refuses.{_OF_COLLECTORS}",
                unit="bytes",
            ),
        ],
    )


def _rates(series: dict[str, str]) -> list[Query]:
    return [Query(f"sum(rate({name}[{RATE}]))", what) for what, name in series.items()]
