"""Zero copy: sharing and release of arrays and tables, and the memory of processes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from dashboards import objectives
from dashboards.colours import WARN, any_is, at_least
from dashboards.house import Query, each, heatmap, stat, table, timeseries
from dashboards.page import Page, Row
from dashboards.promql import PANELS as Q
from dashboards.promql import Where, share
from semconv.prometheus_names import label_name
from snakepit_otel.telemetry import names as n
from snakepit_otel.telemetry._definitions import Metric

_OWNER, _KIND = n.SNAKEPIT_ZERO_COPY_OWNER, n.SNAKEPIT_ZERO_COPY_KIND
_RELEASE = n.SNAKEPIT_ZERO_COPY_RELEASE_REASON
_FALLBACK = n.SNAKEPIT_ZERO_COPY_FALLBACK_REASON
_OF = f"{each(_OWNER)} {each(_KIND)}"
_SHARED: Where = {n.SNAKEPIT_ZERO_COPY_TRANSPORT: "shm"}
_COPIED: Where = {n.SNAKEPIT_ZERO_COPY_TRANSPORT: "stream"}
_NONE = "no references"
_NO_FALLBACK = "none copied"
_of_references = partial(timeseries, zero=_NONE)


def page() -> Page:
    return Page(
        uid="snakepit-zero-copy",
        title="Snakepit / Zero-copy and memory",
        question="Are arrays and tables shared and given back, and what memory do the processes use?",
        rows=[_now(), _live(), _flow(), _hand_overs(), _processes()],
    )


def _now() -> Row:
    exports = n.METRIC_ZERO_COPY_EXPORT_DURATION
    held = share(Q.total(n.METRIC_ZERO_COPY_HELD_SIZE), Q.total(n.METRIC_ZERO_COPY_HELD_LIMIT))
    return Row(
        "Now",
        [
            stat(
                "Shared memory in use",
                Query(held),
                "The bytes that authorities hold, as a share of `zero_copy.max_host_bytes`. Good is far below 100 %, "
                "where handing over is refused: find who keeps references, below, or raise the limit.",
                unit="percentunit",
                steps=at_least(objectives.SHARED_MEMORY_NEAR, 1),
                decimals=1,
            ),
            stat(
                "Copied",
                Query(share(Q.rate(exports, where=_COPIED), Q.rate(exports))),
                "The share of hand-overs whose bytes were copied over gRPC, because the two sides share no memory. "
                "Good is none; the fallbacks, below, have the reason.",
                unit="percentunit",
                steps=at_least(objectives.COPIED),
                zero=_NONE,
                decimals=0,
            ),
            stat(
                "Outlived their requests",
                Query(Q.occurrences(n.METRIC_ZERO_COPY_VIEW_OUTLIVED), instant=True),
                "Arrays and tables in the time shown that code kept beyond the request of their reference. Good is "
                "none: they stay valid, and so does their memory. Keep a copy instead.",
                steps=any_is(WARN),
                zero="none",
                decimals=0,
            ),
            table(
                "Created for nothing",
                [
                    Query(Q.occurrences(n.METRIC_ZERO_COPY_REFERENCE_UNUSED_COUNT, [_OWNER, _KIND, _RELEASE])),
                    Query(Q.occurrences(n.METRIC_ZERO_COPY_REFERENCE_UNUSED_SIZE, [_OWNER, _KIND, _RELEASE])),
                ],
                "References in the time shown that were neither passed on nor released by who created them. Good is "
                "none; the line that did it is in the event `snakepit.zero_copy.reference.unused`. Only strict mode "
                "tells.",
                columns=["references", "bytes"],
                keys=[label_name(attribute) for attribute in (_OWNER, _KIND, _RELEASE)],
                units={"bytes": "bytes"},
                zero="none, or not strict",
                height=4,
            ),
        ],
    )


def _live() -> Row:
    return Row(
        "What there is",
        [
            _of_references(
                "Live references",
                [
                    Query(Q.total(n.METRIC_ZERO_COPY_REFERENCE_COUNT, [_OWNER, _KIND]), _OF),
                    Query(Q.total(n.METRIC_ZERO_COPY_HELD_COUNT, [_OWNER]), f"held of {each(_OWNER)}"),
                ],
                "References by who created them, `elixir` being the authority's side and `python` a worker's, and "
                "those that authorities hold for both. Good falls back to none between requests: a floor that rises is "
                "references that are never released.",
            ),
            _of_references(
                "Their bytes",
                Query(Q.total(n.METRIC_ZERO_COPY_REFERENCE_SIZE, [_OWNER, _KIND]), _OF),
                "What the live references refer to, in the processes that created them. Good is level: `dlpack` are "
                "arrays, `arrow` tables.",
                unit="bytes",
            ),
            timeseries(
                "Held against the limit",
                [
                    Query(Q.total(n.METRIC_ZERO_COPY_HELD_SIZE, [_OWNER]), f"of {each(_OWNER)}"),
                    Query(Q.total(n.METRIC_ZERO_COPY_HELD_LIMIT), "limit"),
                ],
                "The shared memory that authorities hold, by who created it. Good is far below the limit, at which "
                "handing over is refused.",
                unit="bytes",
            ),
        ],
    )


def _flow() -> Row:
    created, released = n.METRIC_ZERO_COPY_REFERENCE_CREATED, n.METRIC_ZERO_COPY_REFERENCE_RELEASED
    durations = {"create": n.METRIC_ZERO_COPY_CREATE_DURATION, "release": n.METRIC_ZERO_COPY_RELEASE_DURATION}
    return Row(
        "Created and released",
        [
            _of_references(
                "Created and released",
                [Query(Q.rate(created), "created"), Query(Q.rate(released, [_RELEASE]), each(_RELEASE))],
                "References a second, and why they were released. Good is `request_end` and `explicit`, together as "
                "many as are created. `expired` had no request; of `peer_lost` a process has died.",
                unit="ops",
            ),
            heatmap(
                "Lifetimes",
                Query(Q.buckets(n.METRIC_ZERO_COPY_REFERENCE_LIFETIME), "{{le}}"),
                "How long released references had lived: the darker, the more. Good is the length of requests; longer "
                "ones wait for garbage to be collected, or for nobody.",
                zero=_NONE,
                width=8,
            ),
            _of_references(
                "p95 of creating and releasing",
                [
                    Query(Q.quantile(0.95, metric, [_KIND]), f"{what} {each(_KIND)}")
                    for what, metric in durations.items()
                ],
                "One in twenty took longer. Creating copies bytes into shared memory, unless they are made there with "
                "`zero_copy.empty`; good is well below the requests' own duration.",
                unit="s",
            ),
        ],
    )


def _hand_overs() -> Row:
    sizes = {"to the other side": n.METRIC_ZERO_COPY_EXPORT_SIZE, "opened": n.METRIC_ZERO_COPY_IMPORT_SIZE}
    return Row(
        "Hand-overs",
        [
            _of_references(
                "Hand-overs",
                _by_transport(n.METRIC_ZERO_COPY_EXPORT_DURATION),
                "References handed to the other side, a second. Good is all of them shared.",
                unit="ops",
                stacked=True,
            ),
            _of_references(
                "Bytes handed over",
                [
                    Query(Q.rate_of_sum(metric, where=where), f"{how}, {what}")
                    for what, metric in sizes.items()
                    for how, where in (("shared", _SHARED), ("copied", _COPIED))
                ],
                "Bytes a second that went to the other side, and that it opened. Good is all of them shared; what is "
                "handed over and not opened was not needed.",
                unit="binBps",
            ),
            _of_references(
                "p95 of handing over and opening",
                [
                    *_p95(n.METRIC_ZERO_COPY_EXPORT_DURATION, "hand over"),
                    *_p95(n.METRIC_ZERO_COPY_IMPORT_DURATION, "open"),
                ],
                "One in twenty took longer. Good is less than a millisecond where memory is shared, however large it "
                "is; copying takes as long as its bytes.",
                unit="s",
            ),
            timeseries(
                "Copied, by reason",
                Query(Q.rate(n.METRIC_ZERO_COPY_FALLBACK_COUNT, [_FALLBACK]), each(_FALLBACK)),
                "References a second whose bytes were copied. Good is none. `unreachable`: the caller is on another "
                "host or container; `disabled`: by a setting; `no_memory`: the machine has no sealed memfds; "
                "`foreign_peer`: the peer is no part of this framework.",
                unit="ops",
                zero=_NO_FALLBACK,
            ),
            timeseries(
                "Bytes copied, by reason",
                Query(Q.rate(n.METRIC_ZERO_COPY_FALLBACK_SIZE, [_FALLBACK]), each(_FALLBACK)),
                "Bytes a second. Good is none: run callers on the authority's machine, with its socket's folder.",
                unit="binBps",
                zero=_NO_FALLBACK,
            ),
            timeseries(
                "p95 of copying, by reason",
                Query(Q.quantile(0.95, n.METRIC_ZERO_COPY_FALLBACK_DURATION, [_FALLBACK]), each(_FALLBACK)),
                "One in twenty took longer to copy. It is what sharing would save each request.",
                unit="s",
                zero=_NO_FALLBACK,
            ),
        ],
    )


def _by_transport(metric: Metric) -> list[Query]:
    return [Query(Q.rate(metric, where=_SHARED), "shared"), Query(Q.rate(metric, where=_COPIED), "copied")]


def _p95(metric: Metric, what: str) -> Iterable[Query]:
    for how, where in (("shared", _SHARED), ("copied", _COPIED)):
        yield Query(Q.quantile(0.95, metric, where=where), f"{what}, {how}")


def _processes() -> Row:
    process = f"{each(n.SNAKEPIT_ROLE)} {each('instance')}"
    which = [n.SNAKEPIT_ROLE, "instance"]
    return Row(
        "Processes",
        [
            timeseries(
                "Memory",
                Query(Q.total(n.METRIC_PROCESS_MEMORY_USAGE, which), process),
                "Resident memory of each process, what it shares with others included. Good is a plateau. Where "
                "workers climb, recycle them by `pool.worker_max_memory_bytes`; where the authority does, see its "
                "sessions.",
                unit="bytes",
                width=6,
            ),
            timeseries(
                "Processor",
                Query(Q.rate(n.METRIC_PROCESS_CPU_TIME, which), process),
                "Processors in use; 100 % is all of one. Python runs one thread at a time, so that near 100 % a "
                "process is what limits: add workers. High time in a worker without requests is a thread of the tools' "
                "own.",
                unit="percentunit",
                width=6,
            ),
            timeseries(
                "Threads",
                Query(Q.total(n.METRIC_PROCESS_THREAD_COUNT, which), process),
                "Threads of each process, those of libraries included. Good is level: a line that climbs is threads "
                "that tools start and never end.",
                width=6,
            ),
            timeseries(
                "Collections of garbage",
                Query(
                    Q.rate(n.METRIC_CPYTHON_GC_COLLECTIONS, [n.SNAKEPIT_ROLE, n.CPYTHON_GC_GENERATION]),
                    f"{each(n.SNAKEPIT_ROLE)}, generation {each(n.CPYTHON_GC_GENERATION)}",
                ),
                "A second. Good is generation 2 far rarer than 0: a full collection stops all of Python for as long as "
                "it takes to look at all objects.",
                unit="ops",
                width=6,
            ),
        ],
    )
