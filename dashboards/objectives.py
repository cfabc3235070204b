"""Objectives and thresholds: the numbers that panels and alerts share."""

from __future__ import annotations

from snakepit_otel import errors

# The share of requests that are answered, of those that callers did nothing wrong with.
AVAILABILITY = 0.999
# The share of answered requests that are answered within `IN_TIME_SECONDS`.
IN_TIME = 0.99
# A boundary of the request histogram's buckets.
IN_TIME_SECONDS = 1
BUDGET_DAYS = 30

# What is asked wrongly, or given up by who asked, costs no budget.
CALLERS_OWN = tuple(
    sorted(
        {
            error.__name__
            for error in (
                errors.InvalidArguments,
                errors.InvalidSession,
                errors.MessageTooLarge,
                errors.PoolNotFound,
                errors.ReferenceMisused,
                errors.ReferenceRefused,
                errors.SessionNotFound,
                errors.StateRefused,
                errors.ToolNotFound,
                errors.ValueRefused,
            )
        }
        | {"cancelled"}
    )
)

# Times the budget's pace: a fiftieth of 30 days' budget within an hour.
BURN_FAST = 14.4
# A twentieth within six hours.
BURN_SLOW = 6
# A tenth within three days.
BURN_LONG = 1

# The share of the session quota from which the watchdog warns as well.
QUOTA_NEAR = 0.8
# P95 of the wait for a worker.
QUEUE_WAIT_SECONDS = 1
# The share of the queue's limit.
QUEUE_NEAR = 0.8
# Workers that ended unasked, or before they were ready, within ten minutes.
CRASHES = 3
# Within ten minutes.
HEARTBEATS_MISSED = 5
# The share of requests with a last worker that did not get it.
AFFINITY_LOST = 0.2
# The share of the limit of shared memory.
SHARED_MEMORY_NEAR = 0.8
# The share of hand-overs that were copied instead of shared.
COPIED = 0.5
# The share of spans, log records and metric points that were not delivered.
TELEMETRY_LOST = 0.01
# The share of a session store's operations that fail because it does not answer.
STORE_UNAVAILABLE = 0.05
# P99 of its operations, without those that take as long as there are sessions.
STORE_SECONDS = 0.1
# By which the clock of its server is behind the time that the store has reached.
CLOCK_SKEW_SECONDS = 5
