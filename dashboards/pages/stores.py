"""Session stores: one ledger for all authorities, and whether it can be reached, in time."""

from __future__ import annotations

from dashboards import objectives
from dashboards.colours import NOTE, any_is, at_least
from dashboards.house import Query, each, stat, timeseries
from dashboards.page import Page, Row
from dashboards.promql import PANELS as Q
from dashboards.promql import PRESENT, RATE, STORE
from semconv.prometheus_names import label_name
from snakepit_otel.telemetry import names as n

_STORE = each(STORE)
_BY_STORE = label_name(STORE)
_NONE = "sessions are in memory"


def page() -> Page:
    return Page(
        uid="snakepit-stores",
        title="Snakepit / Session stores",
        question="Do all authorities see one exact ledger, and does the store that keeps it answer in time?",
        rows=[_ledger(), _operations(), _client(), _connection()],
    )


def _ledger() -> Row:
    live = Q.per_store(n.METRIC_SESSION_COUNT)
    created, ended = (Q.total(metric, [STORE]) for metric in (n.METRIC_SESSION_CREATED, n.METRIC_SESSION_ENDED))
    lost = Q.per_store(n.METRIC_SESSION_UNREPORTED)
    return Row(
        "The ledger",
        [
            timeseries(
                "Live sessions by store",
                [
                    Query(live, _STORE),
                    Query(Q.per_store(n.METRIC_SESSION_LIMIT), f"limit of {_STORE}"),
                ],
                "Authorities that share a store are one line; each one in memory is a line of its own. Good is a "
                "plateau below the limit. A line that ends is an authority that has ended, or one that does not "
                "reach its store.",
                width=12,
            ),
            timeseries(
                "Created less ended less live",
                Query(f"{created} - {ended} - {live}", _STORE),
                "Good is 0: every session that was created lives, or was counted when it ended. It swings about 0 "
                "while sessions come and go, as authorities are not read in the same moment. If it stays beside 0 at "
                "rest, a store has lost writes in a fail-over.",
                least=None,
                width=12,
            ),
            stat(
                "Authorities",
                Query(f"count({Q.series(n.METRIC_SESSION_COUNT)})"),
                "That reach their store. Good is as many as you run.",
                decimals=0,
                width=12,
            ),
            stat(
                "Events lost",
                Query(f"sum({lost})"),
                "Sessions whose end was counted, and whose event nobody has confirmed. A few come and go, until the "
                "next sweep confirms them; those that stay were pruned by an authority that died. Good is a level.",
                steps=any_is(NOTE),
                zero=_NONE,
                decimals=0,
                width=12,
            ),
        ],
    )


def _operations() -> Row:
    metric, by = n.METRIC_SESSION_OPERATION_DURATION, [n.SNAKEPIT_OPERATION]
    return Row(
        "As authorities wait for it",
        [
            timeseries(
                "Operations of authorities",
                Query(Q.rate(metric, by), each(n.SNAKEPIT_OPERATION)),
                "A second. Good follows the requests: many times more of them is a tool that reads or writes its "
                "state bit by bit.",
                unit="ops",
            ),
            timeseries(
                "Time for an operation, p99",
                Query(Q.quantile(0.99, metric, by), each(n.SNAKEPIT_OPERATION), exemplars=True),
                "Good is far below a millisecond in memory, but for prune, which takes as long as it has sessions to "
                "remove; else what the store takes, below. If all are slow, the authority has no processor to itself.",
                unit="s",
            ),
            timeseries(
                "Operations that failed",
                Query(
                    Q.occurrences(metric, [n.SNAKEPIT_OPERATION, n.ERROR_TYPE], {n.ERROR_TYPE: PRESENT}, RATE),
                    f"{each(n.SNAKEPIT_OPERATION)}: {each(n.ERROR_TYPE)}",
                ),
                "In the interval up to each point. Good is none. SessionNotFound is a caller that comes too late for "
                "a session's TTL; SessionQuotaExceeded is the quota.",
                zero="no failures",
            ),
        ],
    )


def _client() -> Row:
    metric, by = n.METRIC_SESSION_STORE_OPERATION_DURATION, [n.SNAKEPIT_SESSION_STORE_OPERATION]
    operation = each(n.SNAKEPIT_SESSION_STORE_OPERATION)
    return Row(
        "A store outside the authorities",
        [
            timeseries(
                "Operations of the store",
                Query(Q.rate(metric, by), operation),
                "A second, from all authorities. Good is one for each request with a session, and one for each time "
                "that a tool reads or writes its state.",
                unit="ops",
                zero=_NONE,
            ),
            timeseries(
                "Time that the store takes, p99",
                Query(Q.quantile(0.99, metric, by), operation, exemplars=True),
                "With waiting for a connection, and a retry. Good is a millisecond or two; prune and suspects take as "
                "long as there are sessions to look at. If all are slow: the network, the server's processor, or its "
                "disk.",
                unit="s",
                steps=at_least(objectives.STORE_SECONDS),
                zero=_NONE,
            ),
            timeseries(
                "Operations of the store that failed",
                Query(
                    Q.occurrences(
                        metric, [n.SNAKEPIT_SESSION_STORE_OPERATION, n.ERROR_TYPE], {n.ERROR_TYPE: PRESENT}, RATE
                    ),
                    f"{operation}: {each(n.ERROR_TYPE)}",
                ),
                "In the interval up to each point. SessionStoreUnavailable is a store that does not answer, and "
                "cancelled a caller that left; the others are answers, which callers see as well.",
                zero="no failures",
            ),
        ],
    )


def _connection() -> Row:
    used, limit = n.METRIC_SESSION_STORE_CONNECTION_USAGE, n.METRIC_SESSION_STORE_CONNECTION_LIMIT
    skew = Q.series(n.METRIC_SESSION_STORE_CLOCK_SKEW)
    return Row(
        "Its connections and its clock",
        [
            timeseries(
                "Connections in use",
                [Query(Q.total(used, [STORE]), _STORE), Query(Q.total(limit, [STORE]), f"limit of {_STORE}")],
                "Of all authorities. Good is well below the limit. At it operations wait for a connection: raise "
                "`session_store.connections`, or see why the store is slow. A file has none.",
                zero="no connections",
            ),
            timeseries(
                "Retries, and writes that are not durable",
                [
                    Query(Q.occurrences(n.METRIC_SESSION_STORE_RETRIES, [STORE], window=RATE), f"retries: {_STORE}"),
                    Query(
                        Q.occurrences(n.METRIC_SESSION_STORE_NOT_DURABLE, [STORE], window=RATE),
                        f"not durable: {_STORE}",
                    ),
                ],
                "In the interval up to each point. Good is none: retries come with a fail-over or a network that "
                "loses replies; a write that is not durable is lost with the server.",
                zero=_NONE,
            ),
            timeseries(
                "Clock behind",
                Query(f"max by ({_BY_STORE}) ({skew})", _STORE),
                "Seconds by which the clock of the store's server is behind the time that the store has reached, after "
                "it was set back, or a replica with another clock took over. Until it has caught up nothing expires. "
                "Good is 0.",
                unit="s",
                steps=at_least(objectives.CLOCK_SKEW_SECONDS),
                zero=_NONE,
            ),
        ],
    )
