"""The pool's own words are those of the registry."""

from __future__ import annotations

from enum import StrEnum

import pytest

from semconv import generate
from snakepit_otel.pool.dispatch import circuit_breaker as breaker
from snakepit_otel.pool.dispatch import selection as choosing
from snakepit_otel.pool.workers import recycling
from snakepit_otel.telemetry import names

ATTRIBUTES = generate.Registry.load().attributes


@pytest.mark.parametrize(
    ("words", "attribute"),
    [
        (recycling.ExitReason, names.SNAKEPIT_WORKER_EXIT_REASON),
        (choosing.Outcome, names.SNAKEPIT_AFFINITY_OUTCOME),
        (choosing.Why, names.SNAKEPIT_AFFINITY_REASON),
        (breaker.State, names.SNAKEPIT_BREAKER_STATE),
    ],
)
def test_every_word_is_documented_and_every_documented_word_is_used(words: type[StrEnum], attribute: str) -> None:
    """What a pool can say of something is exactly what the registry lists."""
    assert {word.value for word in words} == {member["value"] for member in ATTRIBUTES[attribute]["type"]["members"]}
