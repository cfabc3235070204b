"""Values of the pool's enums, which are those of the registry."""

from __future__ import annotations

from enum import StrEnum

import pytest

from semconv import generate
from snakepit_otel.pool.dispatch import affinity
from snakepit_otel.pool.dispatch.circuit_breaker import BreakerState
from snakepit_otel.pool.workers import recycling
from snakepit_otel.telemetry import names

ATTRIBUTES = generate.Registry.load().attributes


@pytest.mark.parametrize(
    ("words", "attribute"),
    [
        (recycling.ExitReason, names.SNAKEPIT_WORKER_EXIT_REASON),
        (affinity.AffinityOutcome, names.SNAKEPIT_AFFINITY_OUTCOME),
        (affinity.AffinityReason, names.SNAKEPIT_AFFINITY_REASON),
        (BreakerState, names.SNAKEPIT_BREAKER_STATE),
    ],
)
def test_every_value_is_documented_and_every_documented_value_is_used(words: type[StrEnum], attribute: str) -> None:
    """The values are exactly those that the registry lists."""
    assert {word.value for word in words} == {member["value"] for member in ATTRIBUTES[attribute]["type"]["members"]}
