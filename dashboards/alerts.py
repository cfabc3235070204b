"""The alerts. Each has a runbook in docs/runbooks, and a number from `dashboards.objectives` where it has one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dashboards import foreign, objectives, recording
from dashboards.promql import ABSENT, PRESENT, SERVICE, Matcher, Where, none_of, occurrences_of, one_of, share
from dashboards.promql import RULES as R
from dashboards.registry import OVERFLOW
from dashboards.rules import Alert, Group
from semconv.prometheus_names import label_name
from snakepit_otel import errors
from snakepit_otel.telemetry import names as n
from snakepit_otel.telemetry._definitions import Metric

_SERVICE = "{{ $labels.service_name }}"
_STORE = label_name(n.SNAKEPIT_SESSION_STORE)
_POOL = "pool {{ $labels.snakepit_pool_name }} of " + _SERVICE
_THE_POOL = "P" + _POOL[1:]
_BY_SERVICE = f"sum by ({', '.join(SERVICE)})"
_pool_alert = partial(Alert, page="snakepit-pools", variables={"pool": "snakepit_pool_name"})


def groups() -> list[Group]:
    return [
        Group("snakepit-objectives", _objectives()),
        Group("snakepit-workers", _workers()),
        Group("snakepit-sessions", _sessions()),
        Group("snakepit-session-stores", _stores()),
        Group("snakepit-adapters", _adapters()),
        Group("snakepit-telemetry", _telemetry()),
    ]


def alerts() -> list[Alert]:
    return [rule for group in groups() for rule in group.rules if isinstance(rule, Alert)]


def _burning(ratio: Callable[[str], str], long: str, short: str, pace: float, allowed: float) -> str:
    """Both over a long time, so that it matters, and over a short one, so that it is so still."""
    limit = f"{pace * allowed:.6g}"
    return f"{ratio(long)} > {limit} and {ratio(short)} > {limit}"


def _fullest(metric: Metric, limit: Metric) -> str:
    """Return the share in use where it is greatest: each authority has a limit of its own, and room is not shared."""
    return f"max by ({', '.join(SERVICE)}) ({R.total(metric, ['instance'])} / {R.total(limit, ['instance'])})"


def _objectives() -> list[Alert]:
    failing, late = 1 - objectives.AVAILABILITY, 1 - objectives.IN_TIME
    # One whose session store is away has no count of sessions, and one that is set up by others may have no role.
    process = R.series(n.METRIC_PROCESS_MEMORY_USAGE, where={n.SNAKEPIT_ROLE: "authority"})
    there = f"({R.total(n.METRIC_SESSION_COUNT)} or {_BY_SERVICE} ({process}))"
    seen = f"{_BY_SERVICE} (last_over_time({R.series(n.METRIC_SESSION_COUNT)}[15m]))"
    alert = partial(Alert, page="snakepit-overview")
    return [
        alert(
            "ErrorBudgetBurnFast",
            "critical",
            _burning(recording.error_ratio, "1h", "5m", objectives.BURN_FAST, failing),
            f"{_SERVICE} fails so many requests that its month's error budget is gone in two days",
            "{{ $value | humanizePercentage }} of the last hour's requests failed, and it goes on.",
            lasts="2m",
        ),
        alert(
            "ErrorBudgetBurnSlow",
            "warning",
            _burning(recording.error_ratio, "6h", "30m", objectives.BURN_SLOW, failing)
            + " or "
            + _burning(recording.error_ratio, "3d", "6h", objectives.BURN_LONG, failing),
            f"{_SERVICE} fails more requests than its error budget allows",
            "{{ $value | humanizePercentage }} of requests failed, over hours, and it goes on.",
            lasts="15m",
        ),
        alert(
            "LatencyBudgetBurn",
            "warning",
            _burning(recording.late_ratio, "1h", "5m", objectives.BURN_SLOW, late),
            f"{_SERVICE} answers too many requests later than {objectives.IN_TIME_SECONDS} s",
            "{{ $value | humanizePercentage }} of the last hour's answers came late, and it goes on.",
            lasts="5m",
        ),
        alert(
            "AuthorityDown",
            "critical",
            f"{seen} unless {there}",
            f"The authority of {_SERVICE} sends no metrics any more",
            "It was there within the last 15 minutes. Without it there are no sessions, and its workers end.",
            lasts="1m",
        ),
    ]


def _workers() -> list[Alert]:
    pool = [n.SNAKEPIT_POOL_NAME]
    ready = R.total(n.METRIC_POOL_WORKER_COUNT, pool, {n.SNAKEPIT_WORKER_STATE: "ready"})
    refused = R.occurrences(
        n.METRIC_POOL_REJECTIONS,
        pool,
        {n.SNAKEPIT_POOL_REJECTION: one_of(["pool_saturated", "queue_timeout"])},
        # Much shorter than it must last, or a single one would last long enough.
        "2m",
    )
    waits = R.quantile(0.95, n.METRIC_POOL_QUEUE_DURATION, pool, window="2m")
    crashes = R.occurrences(
        n.METRIC_WORKER_EXITS, pool, {n.SNAKEPIT_WORKER_EXIT_REASON: one_of(["crash", "start_failed"])}, "10m"
    )
    hints = Matcher("!=", "none")
    lost = R.rate(
        n.METRIC_POOL_AFFINITY_DECISIONS, pool, {n.SNAKEPIT_AFFINITY_OUTCOME: one_of(["miss", "broken"])}, "10m"
    )
    hinted = R.rate(n.METRIC_POOL_AFFINITY_DECISIONS, pool, {n.SNAKEPIT_AFFINITY_OUTCOME: hints}, "10m")
    return [
        _pool_alert(
            "NoReadyWorkers",
            "critical",
            f"{ready} == 0",
            f"No worker of {_POOL} is ready",
            "Every request waits, and is refused when its time is up.",
            lasts="1m",
        ),
        _pool_alert(
            "WorkersCrashLooping",
            "critical",
            f"{crashes} > {objectives.CRASHES}",
            f"Workers of {_POOL} end again and again",
            "{{ $value | humanize }} ended unasked, or before they were ready, within ten minutes.",
        ),
        _pool_alert(
            "CircuitOpen",
            "critical",
            R.total(n.METRIC_POOL_BREAKER_STATE, pool, {n.SNAKEPIT_BREAKER_STATE: "open"}) + " > 0",
            f"{_THE_POOL} refuses every request, because requests lost their workers",
            "The circuit breaker is open. It tries one request now and then, and closes when that is answered.",
            keeps="5m",
        ),
        _pool_alert(
            "PoolSaturated",
            "warning",
            f"{waits} > {objectives.QUEUE_WAIT_SECONDS} or {refused} > 0",
            f"{_THE_POOL} has more requests than it can run",
            "Requests are refused, or of those that have to wait for a worker, one in twenty waits longer than "
            f"{objectives.QUEUE_WAIT_SECONDS} s.",
            lasts="5m",
        ),
        _pool_alert(
            "HeartbeatsMissed",
            "warning",
            R.occurrences(n.METRIC_HEARTBEAT_TIMEOUT_COUNT, pool, window="10m") + f" > {objectives.HEARTBEATS_MISSED}",
            f"Workers of {_POOL} do not answer heartbeats",
            "{{ $value | humanize }} were missed within ten minutes. A tool that holds the GIL does this, or a machine "
            "without a free processor.",
        ),
        _pool_alert(
            "WorkersOrphaned",
            "info",
            R.occurrences(n.METRIC_WORKER_ORPHAN_KILLED_COUNT, pool, window="1h") + " > 0",
            f"Workers of {_POOL} had outlived their authority",
            "{{ $value | humanize }} within an hour. The next authority has killed them; the one before ended without "
            "ending its workers.",
        ),
        _pool_alert(
            "AffinityLost",
            "info",
            f"{share(lost, hinted)} > {objectives.AFFINITY_LOST}",
            f"Sessions of {_POOL} do not come back to their workers",
            "{{ $value | humanizePercentage }} of requests with a last worker were given another, so caches are cold.",
            lasts="15m",
        ),
    ]


def _sessions() -> list[Alert]:
    live = R.total(n.METRIC_SESSION_COUNT)
    # A quarter of an hour, so that what comes and goes within it is evened out; and of the sum, since authorities share
    # sessions out between them.
    quarter = f"({live})[15m:1m]"
    grown = " and ".join(
        f"min_over_time({quarter}{later}) > max_over_time({quarter} offset {earlier})"
        for later, earlier in (("", "30m"), (" offset 30m", "1h"), (" offset 1h", "90m"))
    )
    # A store begins without sessions, and fills up for as long as its first ones live.
    of_stores, before = (R.per_store(n.METRIC_SESSION_COUNT, offset=offset) for offset in ("", "3h"))
    young = f"{_BY_SERVICE} ({of_stores} unless {before})"
    # Each store has a quota of its own.
    used = f"max by ({', '.join(SERVICE)}) ({of_stores} / {R.per_store(n.METRIC_SESSION_LIMIT)})"
    # One owner at its own quota is that owner's affair.
    rejected = R.occurrences(n.METRIC_SESSION_REJECTED, where={n.SNAKEPIT_SESSION_QUOTA: "store"}, window="5m")
    evicted = R.occurrences(n.METRIC_SESSION_ENDED, where={n.SNAKEPIT_SESSION_END_REASON: "overflow"}, window="5m")
    alert = partial(Alert, page="snakepit-sessions")
    return [
        alert(
            "SessionQuotaNear",
            "warning",
            f"{used} > {objectives.QUOTA_NEAR}",
            f"{_SERVICE} has {{{{ $value | humanizePercentage }}}} of its session quota in use",
            "At the quota creating is refused, or the least recently used sessions are evicted.",
            lasts="5m",
        ),
        alert(
            "SessionsRejected",
            "critical",
            f"{rejected} > 0",
            f"{_SERVICE} refuses to create sessions",
            "{{ $value | humanize }} were refused within five minutes, because the quota is reached.",
        ),
        alert(
            "SessionsEvicted",
            "warning",
            f"{evicted} > 0",
            f"{_SERVICE} evicts sessions that are still in use",
            "{{ $value | humanize }} were evicted within five minutes to make room at the quota; their state is gone.",
        ),
        alert(
            "SessionsAccumulating",
            "warning",
            # Four quarters of an hour, half an hour apart, each wholly above the one before, and that for another one:
            # growth without a plateau, not a busy hour.
            f"{grown} unless {young}",
            f"Sessions of {_SERVICE} accumulate",
            "There are {{ $value | humanize }} and more, and the number has only grown for an hour and a half.",
            lasts="15m",
        ),
    ]


def _stores() -> list[Alert]:
    of_store, operations = [n.SNAKEPIT_SESSION_STORE], n.METRIC_SESSION_STORE_OPERATION_DURATION
    store = "session store {{ $labels.snakepit_session_store }} of " + _SERVICE
    failed = R.rate(operations, of_store, {n.ERROR_TYPE: errors.SessionStoreUnavailable.__name__}, "2m")
    # These take as long as there are sessions to look at.
    quick: Where = {n.SNAKEPIT_SESSION_STORE_OPERATION: none_of(["evict", "page", "prune", "suspects"])}
    slow = R.quantile(0.99, operations, of_store, {**quick, n.ERROR_TYPE: ABSENT}, "5m")
    behind = f"max by ({', '.join((*SERVICE, _STORE))}) ({R.series(n.METRIC_SESSION_STORE_CLOCK_SKEW)})"
    # What is to be confirmed yet comes and goes; what stays is lost.
    floor = f"min_over_time(({R.per_store(n.METRIC_SESSION_UNREPORTED)})[15m:1m]"
    alert = partial(Alert, page="snakepit-stores")
    return [
        alert(
            "SessionStoreUnavailable",
            "critical",
            f"{share(failed, R.rate(operations, of_store, window='2m'))} > {objectives.STORE_UNAVAILABLE}",
            f"The {store} does not answer",
            "{{ $value | humanizePercentage }} of its operations fail. Requests with a session do, too; those without "
            "one are served.",
            lasts="1m",
        ),
        alert(
            "SessionStoreSlow",
            "warning",
            f"{slow} > {objectives.STORE_SECONDS}",
            f"The {store} is slow",
            "One in a hundred operations takes longer than {{ $value | humanizeDuration }}. Each request with a "
            "session waits for one or more.",
            lasts="5m",
        ),
        alert(
            "SessionStoreClockSkewed",
            "warning",
            f"{behind} > {objectives.CLOCK_SKEW_SECONDS}",
            f"The clock of the {store} has been set back",
            "It is {{ $value | humanizeDuration }} behind the time that the store had reached. Until it has caught "
            "up no session expires.",
            lasts="2m",
        ),
        alert(
            "SessionWritesNotDurable",
            "warning",
            R.occurrences(n.METRIC_SESSION_STORE_NOT_DURABLE, of_store, window="10m") + " > 0",
            f"Writes to the {store} are not as durable as was asked for",
            "{{ $value | humanize }} within ten minutes were not acknowledged in time by a replica or the disk. If "
            "the server is lost now, so are they.",
        ),
        alert(
            "SessionEventsLost",
            "info",
            f"{floor}) - {floor} offset 1h) > 0",
            f"Events of sessions that were pruned from the {store} were lost",
            "{{ $value | humanize }} within an hour: an authority died with them. The ledger has counted the sessions.",
        ),
    ]


def _adapters() -> list[Alert]:
    tool = [n.SNAKEPIT_TOOL_NAME]
    cleanup: Where = {n.SNAKEPIT_PHASE: "cleanup", n.ERROR_TYPE: PRESENT}
    memory = _fullest(n.METRIC_ZERO_COPY_HELD_SIZE, n.METRIC_ZERO_COPY_HELD_LIMIT)
    copied = R.rate(n.METRIC_ZERO_COPY_EXPORT_DURATION, where={n.SNAKEPIT_ZERO_COPY_TRANSPORT: "stream"}, window="10m")
    all_exports = R.rate(n.METRIC_ZERO_COPY_EXPORT_DURATION, window="10m")
    alert = partial(Alert, page="snakepit-zero-copy")
    return [
        Alert(
            "CleanupFailing",
            "warning",
            R.occurrences(n.METRIC_ADAPTER_PHASE_DURATION, tool, cleanup, "10m") + " > 0",
            f"Adapters of {_SERVICE} fail to clean up after {{{{ $labels.snakepit_tool_name }}}}",
            "{{ $value | humanize }} times within ten minutes. What they do not release stays until the worker ends.",
            "snakepit-adapters",
            variables={"tool": "snakepit_tool_name"},
        ),
        alert(
            "ReferencesOutlived",
            "warning",
            R.occurrences(n.METRIC_ZERO_COPY_VIEW_OUTLIVED, window="1h") + " > 0",
            f"Code of {_SERVICE} keeps arrays or tables after their requests",
            "{{ $value | humanize }} within an hour. Their memory is shared, and is not freed while they are kept.",
        ),
        alert(
            "SharedMemoryHigh",
            "warning",
            f"{memory} > {objectives.SHARED_MEMORY_NEAR}",
            f"{_SERVICE} has {{{{ $value | humanizePercentage }}}} of its shared memory in use",
            "At the limit, handing over arrays and tables is refused.",
            lasts="5m",
        ),
        alert(
            "ZeroCopyFallback",
            "info",
            f"{share(copied, all_exports)} > {objectives.COPIED}",
            f"{_SERVICE} copies arrays and tables instead of sharing them",
            "{{ $value | humanizePercentage }} of the hand-overs were copied over gRPC.",
            lasts="15m",
        ),
    ]


def _telemetry() -> list[Alert]:
    signal = [n.SNAKEPIT_TELEMETRY_SIGNAL]
    dropped = R.occurrences(n.METRIC_TELEMETRY_DROPPED, signal, window="10m")
    failed = R.occurrences(n.METRIC_TELEMETRY_FAILED, signal, window="10m")
    ended = R.occurrences(n.METRIC_TELEMETRY_ENDED, signal, window="10m")
    alert = partial(Alert, page="snakepit-telemetry")
    losses = " or ".join(
        f"sum by (exporter) ({occurrences_of(name, '5m')}) > 0"
        for name in (
            foreign.EXPORT_FAILED_SPANS,
            foreign.EXPORT_FAILED_LOGS,
            foreign.ENQUEUE_FAILED_SPANS,
            foreign.ENQUEUE_FAILED_LOGS,
        )
    )
    return [
        alert(
            "TelemetryLost",
            "warning",
            f"(({dropped}) + ({failed}) or ({dropped}) or ({failed})) / ({ended} > 0) > {objectives.TELEMETRY_LOST}",
            f"{_SERVICE} loses {{{{ $labels.snakepit_telemetry_signal }}}}",
            "{{ $value | humanizePercentage }} of the last ten minutes' were dropped, or refused by the collector.",
        ),
        alert(
            "CollectorLoses",
            "warning",
            losses,
            "The collector loses telemetry on its way to {{ $labels.exporter }}",
            "Within five minutes at least {{ $value | humanize }} spans or log records were given up, or found the "
            "queue full.",
            of_a_service=False,
        ),
        alert(
            "MetricOverflow",
            "warning",
            f'count by ({", ".join(SERVICE)}) ({{{OVERFLOW}="true"}}) > 0',
            f"A metric of {_SERVICE} has more series than it may",
            "What is beyond the limit is counted in one series, so breakdowns of it are incomplete.",
            lasts="5m",
        ),
    ]
