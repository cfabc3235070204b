"""Fixtures of the tests of calls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rpc.ends import Gate, current_is_nothing


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Where handlers wait; whoever still waits at the end is let go."""
    made = Gate()
    yield made
    made.release.set()


@pytest.fixture
def nothing_is_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check that no span is current after a test, and that OpenTelemetry has logged nothing."""
    # What gRPC logs of the faults that handlers are asked for.
    with caplog.at_level("CRITICAL", "grpc"):
        yield
    assert current_is_nothing()
    assert [record for record in caplog.records if record.name.startswith(("opentelemetry", "snakepit_otel"))] == []
