"""Fixtures of the sessions' tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from snakepit_otel.telemetry._definitions import Event


@dataclass(frozen=True)
class Emission:
    """One event as a store handed it over."""

    event: Event
    attributes: Mapping[str, Any]
    measurements: Mapping[str, float]
    body: str


class Emissions(list[Emission]):
    """The events of a store; `take` is for its `emit`."""

    def take(
        self, event: Event, attributes: Mapping[str, Any], measurements: Mapping[str, float], *, body: str
    ) -> None:
        """Keep one event."""
        self.append(Emission(event, attributes, measurements, body))

    def counts(self, event: Event) -> list[tuple[str, float]]:
        """Return reason and count of every event of one kind."""
        return [(one.attributes["reason"], one.measurements["count"]) for one in self if one.event is event]


@pytest.fixture
def emissions() -> Emissions:
    """A list that takes what a store emits."""
    return Emissions()
