"""Metrics that no panel shows, and why; every other metric of the registry is on some page."""

from __future__ import annotations

from snakepit_otel.telemetry import names as n
from snakepit_otel.telemetry._definitions import Metric

_OF_AUTHORITY_TOOLS = "Few deployments have tools of the authority; operating.md says what to look at."
UNSHOWN: dict[Metric, str] = {
    n.METRIC_AUTHORITY_TOOL_ABANDONED: _OF_AUTHORITY_TOOLS,
    n.METRIC_AUTHORITY_TOOL_ACTIVE: _OF_AUTHORITY_TOOLS,
    n.METRIC_AUTHORITY_TOOL_CAPACITY: _OF_AUTHORITY_TOOLS,
    n.METRIC_AUTHORITY_TOOL_QUEUE_LENGTH: _OF_AUTHORITY_TOOLS,
    n.METRIC_AUTHORITY_TOOL_REJECTIONS: _OF_AUTHORITY_TOOLS,
    n.METRIC_DOCTOR_CANARY: "The doctor sends it once and looks for it itself; it says nothing of a deployment.",
    n.METRIC_MIDDLEWARE_DURATION: "Only deployments with middleware have it; middleware.md has the queries.",
    n.METRIC_RPC_CONNECTION_FAULTS: "Peers are processes of the same user; its warning in the log says the same.",
    n.METRIC_SERVER_TLS_RELOADS: "Most deployments have no TLS files; who has them sets an alert on its errors.",
    n.METRIC_WORKER_HOOK_DURATION: "Only adapters with hooks of the worker have it; adapters.md says what to look at.",
    n.METRIC_TOOL_PROCESSES_ENDED_COUNT: "Its event has the names that an operator needs, and is a warning in the log.",
}
