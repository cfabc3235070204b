"""Workers alone, under an Elixir: metrics that they cannot have, and what pages ask all the same."""

from __future__ import annotations

import re
from collections.abc import Mapping

import promql_parser as promql

from dashboards.check import selectors
from dashboards.logql import EVENT_NAME
from dashboards.registry import ALWAYS, known
from semconv.generate import Registry
from snakepit_otel.telemetry import names as n
from snakepit_otel.telemetry._definitions import Metric
from tests.dashboards.proof.elixirs import OURS, UPSTREAMS
from tests.dashboards.proof.questions import Question, filled_in

Reasons = Mapping[str, frozenset[Metric]]

_UNDER_ELIXIR: Reasons = {
    "Callers ask Elixir, and what they see of it is Elixir's to say.": frozenset({n.METRIC_REQUEST_DURATION}),
    "Elixir keeps the sessions.": frozenset(
        {
            n.METRIC_SESSION_OPERATION_DURATION,
            n.METRIC_SESSION_COUNT,
            n.METRIC_SESSION_LIMIT,
            n.METRIC_SESSION_MEMORY_USAGE,
            n.METRIC_SESSION_CREATED,
            n.METRIC_SESSION_ENDED,
            n.METRIC_SESSION_REJECTED,
            n.METRIC_SESSION_LIFETIME,
            n.METRIC_SESSION_UNREPORTED,
            n.METRIC_SESSION_STORE_OPERATION_DURATION,
            n.METRIC_SESSION_STORE_RETRIES,
            n.METRIC_SESSION_STORE_NOT_DURABLE,
            n.METRIC_SESSION_STORE_CONNECTION_USAGE,
            n.METRIC_SESSION_STORE_CONNECTION_LIMIT,
            n.METRIC_SESSION_STORE_CLOCK_SKEW,
            n.METRIC_BRIDGE_SESSION_PRUNED_COUNT,
            n.METRIC_BRIDGE_SESSION_PRUNED_REMAINING_SESSIONS,
            n.METRIC_BRIDGE_SESSION_ACCUMULATION_WARNING_COUNT,
            n.METRIC_BRIDGE_SESSION_ACCUMULATION_WARNING_CURRENT_SESSIONS,
            n.METRIC_BRIDGE_SESSION_ACCUMULATION_WARNING_MAX_SESSIONS,
            n.METRIC_BRIDGE_SESSION_ACCUMULATION_WARNING_UTILIZATION,
        }
    ),
    "Elixir has the pool: who waits, which worker is chosen, and what is refused.": frozenset(
        {
            n.METRIC_POOL_DISPATCH_DURATION,
            n.METRIC_POOL_AFFINITY_DECISIONS,
            n.METRIC_POOL_WORKER_COUNT,
            n.METRIC_POOL_REQUEST_ACTIVE,
            n.METRIC_POOL_QUEUE_DURATION,
            n.METRIC_POOL_QUEUE_LENGTH,
            n.METRIC_POOL_QUEUE_LIMIT,
            n.METRIC_POOL_CAPACITY,
            n.METRIC_POOL_MEMORY_USAGE,
            n.METRIC_POOL_REJECTIONS,
            n.METRIC_POOL_RETRIES,
            n.METRIC_POOL_BREAKER_STATE,
            n.METRIC_POOL_SATURATED_COUNT,
        }
    ),
    "Elixir starts, watches and ends the workers.": frozenset(
        {
            n.METRIC_WORKER_STARTUP_DURATION,
            n.METRIC_WORKER_SHUTDOWN_DURATION,
            n.METRIC_WORKER_REPLACEMENT_DURATION,
            n.METRIC_WORKER_EXITS,
            n.METRIC_WORKER_RECYCLED_COUNT,
            n.METRIC_WORKER_RESTARTED_COUNT,
            n.METRIC_WORKER_TAINTED_COUNT,
            n.METRIC_WORKER_ORPHAN_KILLED_COUNT,
            n.METRIC_WORKER_HEARTBEAT_DURATION,
            n.METRIC_HEARTBEAT_TIMEOUT_COUNT,
            n.METRIC_WORKER_TELEMETRY_LOST,
        }
    ),
    "Elixir shares no memory, so nobody holds any for two sides.": frozenset(
        {n.METRIC_ZERO_COPY_HELD_COUNT, n.METRIC_ZERO_COPY_HELD_SIZE, n.METRIC_ZERO_COPY_HELD_LIMIT}
    ),
    "The doctor sends it, and no deployment does.": frozenset({n.METRIC_DOCTOR_CANARY}),
    "Elixir speaks gRPC, whose connections are not counted.": frozenset({n.METRIC_RPC_CONNECTION_FAULTS}),
    "Workers under an Elixir have no TLS files.": frozenset({n.METRIC_SERVER_TLS_RELOADS}),
    "The deployments have no middleware.": frozenset({n.METRIC_MIDDLEWARE_DURATION}),
    "Their adapters have no hooks of the worker.": frozenset({n.METRIC_WORKER_HOOK_DURATION}),
    "An Elixir authority's tools are Elixir's.": frozenset(
        {
            n.METRIC_AUTHORITY_TOOL_ACTIVE,
            n.METRIC_AUTHORITY_TOOL_ABANDONED,
            n.METRIC_AUTHORITY_TOOL_CAPACITY,
            n.METRIC_AUTHORITY_TOOL_QUEUE_LENGTH,
            n.METRIC_AUTHORITY_TOOL_REJECTIONS,
        }
    ),
    "No tool of the deployment leaves processes behind.": frozenset({n.METRIC_TOOL_PROCESSES_ENDED_COUNT}),
    "It counts mistakes of code that records metrics of ours itself, which adapters do not.": frozenset(
        {n.METRIC_TELEMETRY_ATTRIBUTE_DROPPED}
    ),
    "Strict mode is a setting of our authority.": frozenset(
        {n.METRIC_ZERO_COPY_REFERENCE_UNUSED_COUNT, n.METRIC_ZERO_COPY_REFERENCE_UNUSED_SIZE}
    ),
}
ABSENT: Mapping[str, Reasons] = {
    UPSTREAMS: {
        **_UNDER_ELIXIR,
        "The SDK's own queues and exporters keep no account.": frozenset(
            {
                n.METRIC_TELEMETRY_ENDED,
                n.METRIC_TELEMETRY_DELIVERED,
                n.METRIC_TELEMETRY_FAILED,
                n.METRIC_TELEMETRY_DROPPED,
                n.METRIC_TELEMETRY_QUEUE_SIZE,
                n.METRIC_TELEMETRY_QUEUE_LIMIT,
                n.METRIC_TELEMETRY_FORKS,
            }
        ),
        "Upstream's script imports its adapter before there is a server to observe.": frozenset(
            {n.METRIC_ADAPTER_LOAD_DURATION}
        ),
        "Upstream's references are descriptions: of what they describe a worker knows neither life nor end.": frozenset(
            {
                n.METRIC_ZERO_COPY_CREATE_DURATION,
                n.METRIC_ZERO_COPY_RELEASE_DURATION,
                n.METRIC_ZERO_COPY_REFERENCE_CREATED,
                n.METRIC_ZERO_COPY_REFERENCE_RELEASED,
                n.METRIC_ZERO_COPY_REFERENCE_COUNT,
                n.METRIC_ZERO_COPY_REFERENCE_SIZE,
                n.METRIC_ZERO_COPY_REFERENCE_LIFETIME,
                n.METRIC_ZERO_COPY_VIEW_OUTLIVED,
                n.METRIC_ZERO_COPY_FALLBACK_COUNT,
                n.METRIC_ZERO_COPY_FALLBACK_DURATION,
                n.METRIC_ZERO_COPY_FALLBACK_SIZE,
            }
        ),
        "Upstream's buffer of events counts for itself what it drops.": frozenset({n.METRIC_WORKER_EVENT_DROPPED}),
    },
    OURS: {
        **_UNDER_ELIXIR,
        "Elixir's references are passed on as they came, for there is nothing to open and no view to keep.": frozenset(
            {
                n.METRIC_ZERO_COPY_IMPORT_DURATION,
                n.METRIC_ZERO_COPY_IMPORT_SIZE,
                n.METRIC_ZERO_COPY_VIEW_OUTLIVED,
            }
        ),
    },
}
"""By deployment, the metrics that it cannot have, and why; every other one of the registry it has."""

RIGHTLY = {
    # Every phase fails there now and then, and one clean-up that does is one too many.
    ("SnakepitCleanupFailing", UPSTREAMS),
    ("SnakepitCleanupFailing", OURS),
    # To Elixir, all that is handed over is copied.
    ("SnakepitZeroCopyFallback", OURS),
}
"""The alerts that fire for these deployments, and should."""

NEVER: Mapping[str, Mapping[str, str]] = {
    UPSTREAMS: {"snakepit_role": "authority"},
    OURS: {"snakepit_role": "authority", "snakepit_zero_copy_transport": "shm"},
}
"""By deployment, values of labels that no series of it has, for the same reasons."""

_LABEL_OF_VARIABLE = re.compile(r'(\w+)!=""')


def absent(deployment: str) -> frozenset[str]:
    """Return the names of the metrics that a deployment cannot have."""
    return frozenset(metric.name for metrics in ABSENT[deployment].values() for metric in metrics)


def every_metric() -> frozenset[str]:
    """Return the names of all metrics of the registry."""
    return frozenset(group["metric_name"] for group in Registry.load().metrics)


def concerns(question: Question, deployment: str) -> bool:
    """Say whether a question of the pages is one about a deployment, to which there must be an answer.

    It is none where it asks for a metric, an event or a label's value that cannot be there; nor if it asks for no
    metric of ours: the collector is nobody's, and no alert and no overflow is what is hoped for.
    """
    missing = absent(deployment)
    if question.source == "tempo":
        return False  # there is no store for traces here
    if question.logs is not None:
        events = [matcher.text for label, matcher in question.logs.filters if label == EVENT_NAME]
        return not any(name.startswith(f"{event}.") for event in events for name in missing)
    if question.where.startswith("variable "):
        # Whichever series it takes its values from: what has the label must be there to be chosen.
        label = _LABEL_OF_VARIABLE.findall(question.query)[-1]
        return label in ALWAYS or any(label in one.labels for one in known().values() if one.metric not in missing)
    asked = selectors(promql.parse(filled_in(question, 60, {})))
    metrics = {known()[one.name].metric if one.name in known() else None for one in asked}
    values = {(matcher.name, matcher.value) for one in asked for matcher in one.matchers.matchers}
    return None not in metrics and not metrics & missing and not values & NEVER[deployment].items()
