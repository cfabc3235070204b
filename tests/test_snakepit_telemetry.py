"""Telemetry of a whole pit, turned up and down while it runs; its workers are real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from opentelemetry import trace

from snakepit_otel import Client, Snakepit, ToolError
from snakepit_otel.bridge.wire.telemetry_controls import Controls
from snakepit_otel.errors import ConfigurationError, PoolNotStarted
from snakepit_otel.telemetry import _controls, names
from snakepit_otel.testing import Capture, OtlpSink
from tests.adapters_for_tests import Useful
from tests.waiting import until

INSIDE = {"build adapter", "initialize adapter", "execute tool", "clean up adapter"}
ALL = INSIDE | {"handle request", "snakepit.bridge.BridgeService/ExecuteTool"}


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    """Somewhere for the workers' telemetry to go."""
    with OtlpSink() as listening:
        yield listening


def pit(sink: OtlpSink, **environ: str) -> Snakepit:
    """A pit of one worker whose spans are sent at once."""
    exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "20"}
    return Snakepit(Useful, workers=1, pool={"environment": {**exporting, **environ}})


async def traced(running: Snakepit) -> str:
    """Make a request in a trace, and return its id."""
    with trace.get_tracer("test").start_as_current_span("caller") as span:
        await running.execute("echo", {"value": 1})
    return format(span.get_span_context().trace_id, "032x")


async def recorded(sink: OtlpSink, trace_id: str, last: str = "handle request") -> set[str]:
    """Return the names of the worker's spans of a trace, once there is the last of them."""

    def found(seen: OtlpSink) -> set[str]:
        return {span.name for span in seen.spans if span.trace_id == trace_id}

    await sink.wait_for(lambda seen: {last, "snakepit.bridge.BridgeService/ExecuteTool"} <= found(seen))
    return found(sink)


def here(capture: Capture, trace_id: str) -> set[str]:
    """Return the names of the authority's spans of a trace."""
    return {span.name for span in capture.spans() if span.trace_id == trace_id} - {"caller"}


async def test_levels_while_it_runs(capture: Capture, sink: OtlpSink) -> None:
    """From full to essential, off and full again: the next request has the spans of its level, on both sides."""
    async with pit(sink) as running:
        assert await recorded(sink, await traced(running)) == ALL
        assert (await running.set_telemetry(level="essential")).level == "essential"
        essential = await traced(running)
        assert await recorded(sink, essential) == ALL - INSIDE
        assert "dispatch request" in here(capture, essential)
        await running.execute("add", {"amount": 1}, session_id="s")
        assert not [span for span in capture.spans() if span.name.endswith(" session")]
        await running.set_telemetry(level="off")
        nothing = await traced(running)
        assert here(capture, nothing) == set()
        await running.set_telemetry(level="full")
        assert await recorded(sink, await traced(running)) == ALL
        # By now its spans would have come as well.
        assert not [span for span in sink.spans if span.trace_id == nothing]
    assert _controls.level == "full"


async def test_no_traces_and_all_metrics(capture: Capture, sink: OtlpSink) -> None:
    """Sampling 0 leaves no spans, and every request is counted."""
    async with pit(sink) as running:
        await running.set_telemetry(sampling=0)
        nothing = await traced(running)
        await running.set_telemetry(sampling=1)
        await recorded(sink, await traced(running))
    assert here(capture, nothing) == set()
    assert not [span for span in sink.spans if span.trace_id == nothing]
    handled = [point for point in sink.points if point.metric == "snakepit.adapter.request.duration"]
    assert sum(point.count or 0 for point in handled) == 2
    assert sum(point.count for point in capture.points("snakepit.request.duration")) == 2


async def test_filters_go_for_both_sides(capture: Capture, sink: OtlpSink) -> None:
    """What is denied has no spans in the authority nor in its workers; to allow picks."""
    async with pit(sink) as running:
        now = await running.set_telemetry(deny=["snakepit.pool.*", "snakepit.adapter.build"])
        assert now.deny == ("snakepit.pool.*", "snakepit.adapter.build")
        denied = await traced(running)
        assert await recorded(sink, denied) == ALL - {"build adapter"}
        assert "dispatch request" not in here(capture, denied)
        await running.set_telemetry(allow=["rpc.*", "snakepit.adapter.[be]*"])
        assert await recorded(sink, await traced(running), "execute tool") == {
            "execute tool",
            "snakepit.bridge.BridgeService/ExecuteTool",
        }


async def test_a_worker_that_is_started_later_obeys_too(capture: Capture, sink: OtlpSink) -> None:
    """What takes the place of a worker that died begins as the others were told to."""
    async with pit(sink) as running:
        await running.set_telemetry(level="essential")
        os.kill(running.pool.workers[0].pid, signal.SIGKILL)
        await until(lambda: [worker.id for worker in running.pool.workers] == ["default-1.2"])
        assert await recorded(sink, await traced(running)) == ALL - INSIDE


async def test_a_worker_is_turned_up_beyond_what_it_was_started_with(capture: Capture, sink: OtlpSink) -> None:
    """Started at essential, workers record all of it once that is asked for, and what they did when it is over."""
    async with pit(sink, SNAKEPIT_TELEMETRY_LEVEL="essential") as running:
        assert await recorded(sink, await traced(running)) == ALL - INSIDE
        await running.set_telemetry(level="full")
        assert await recorded(sink, await traced(running)) == ALL


async def test_the_command_line_and_programs_say_the_same(sink: OtlpSink) -> None:
    """A client on the private socket sees what is in force, and changes it."""
    async with pit(sink) as running, Client(running.socket) as client:
        now = await client.set_telemetry(level="essential", deny=["snakepit.pool.*"])
        assert (now.level, now.sampling, now.allow, now.deny) == ("essential", 1, [], ["snakepit.pool.*"])
        assert names.ADAPTER_BUILD in _controls.suppressed
        assert await running.set_telemetry(deny=[]) == Controls(level="essential")
        assert (await client.set_telemetry()).deny == []
        with pytest.raises(ConfigurationError, match=r"telemetry\.sampling: .*got 2"):
            await client.set_telemetry(sampling=2)
    assert Controls.in_force() == Controls()


async def test_what_cannot_be_set(sink: OtlpSink) -> None:
    """A bad value is refused by name and changes nothing; a pit that does not run has nothing to set."""
    running = pit(sink)
    with pytest.raises(PoolNotStarted):
        await running.set_telemetry(level="off")
    async with running:
        with pytest.raises(ConfigurationError, match=r"telemetry\.level: "):
            await running.set_telemetry(level="loud", sampling=0.5)
        assert await running.set_telemetry() == Controls()


async def test_what_was_started_off_stays_off(sink: OtlpSink) -> None:
    """Where nothing is set up to export, turning it up is refused, in words that help."""
    _controls.set_level("off")
    try:
        async with pit(sink, SNAKEPIT_TELEMETRY_LEVEL="off") as running:
            with pytest.raises(ConfigurationError, match="start it with SNAKEPIT_TELEMETRY_LEVEL=essential or full"):
                await running.set_telemetry(level="full")
    finally:
        _controls.set_level("full")


async def test_it_is_not_offered_on_tcp(sink: OtlpSink) -> None:
    """Telemetry is controlled on the private socket alone."""
    async with Snakepit(Useful, workers=1, server={"listen": "127.0.0.1:0"}) as running:
        assert running.address is not None
        async with Client(running.address) as client:
            with pytest.raises(ToolError, match="use the authority's Unix socket"):
                await client.set_telemetry(level="off")
