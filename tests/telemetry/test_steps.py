"""Requests and their steps."""

from __future__ import annotations

from snakepit_otel import telemetry
from snakepit_otel.telemetry import _guard, names
from snakepit_otel.testing import Capture


class Job(telemetry.Stepped):
    """A request."""


def broken(*_: object) -> telemetry.AttributeSet:
    """Describe nothing."""
    raise RuntimeError("no")


class Host:
    """Runs jobs."""

    @telemetry.request(names.ADAPTER_REQUEST, broken, broken)  # type: ignore[arg-type]
    async def run(self, job: Job) -> str:
        """Run a job."""
        return self.build(job)

    @telemetry.step(names.ADAPTER_BUILD, quiet=True)
    def build(self, _job: Job) -> str:
        """Run its only step."""
        return "built"


async def test_a_fault_in_describing_a_request_does_not_reach_it(capture: Capture) -> None:
    """The request runs as if nothing were, its spans are there without attributes, and the fault is counted."""
    before = _guard.fault_count
    assert await Host().run(Job()) == "built"
    assert _guard.fault_count == before + 1
    assert [span.name for span in capture.spans()] == ["build adapter", "handle request"]
