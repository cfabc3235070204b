"""The decorator of lifecycle points."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry import trace

from snakepit_otel import telemetry
from snakepit_otel.telemetry import _guard, _switch, names
from snakepit_otel.testing import Capture


def describe(_self: Work, value: str, fail: bool = False) -> dict[str, str]:
    """Attributes for the span, one of which its metric does not allow."""
    return {names.SESSION_ID: value}


class Work:
    """Something to observe."""

    @telemetry.observed(
        names.SESSION_CREATE,
        details=describe,
        result=lambda result: {names.SNAKEPIT_SESSION_CREATED: result == "v"},
    )
    def do(self, value: str, fail: bool = False) -> str:
        """Do it."""
        if fail:
            raise ValueError("no")
        return value

    @telemetry.observed(names.SESSION_DELETE, details=describe)
    async def do_async(self, value: str, fail: bool = False) -> str:
        """Do it, later."""
        await asyncio.sleep(0)
        if fail:
            raise KeyError("no")
        return value


async def test_span_duration_and_count_come_from_one_decorator(capture: Capture) -> None:
    """An operation has its span with all attributes, and its duration with those the metric allows."""
    assert Work().do("v") == "v"
    assert await Work().do_async("w") == "w"
    created, deleted = capture.spans()
    assert (created.name, deleted.name) == ("create session", "delete session")
    assert created.attributes == {"session.id": "v", "snakepit.session.created": True, "snakepit.operation": "create"}
    points = capture.points("snakepit.session.operation.duration")
    assert {(point.attributes["snakepit.operation"], point.count) for point in points} == {("create", 1), ("delete", 1)}
    assert all(point.attributes.keys() == {"snakepit.operation"} for point in points)


async def test_failure_is_told_by_type_and_raised_unchanged(capture: Capture) -> None:
    """An exception goes through untouched; span and metric have its type."""
    with pytest.raises(ValueError, match=r"^no$") as raised:
        Work().do("v", fail=True)
    assert not hasattr(raised.value, "__notes__")
    with pytest.raises(KeyError):
        await Work().do_async("v", fail=True)
    assert [(span.ok, span.attributes["error.type"]) for span in capture.spans()] == [
        (False, "ValueError"),
        (False, "KeyError"),
    ]
    points = capture.points("snakepit.session.operation.duration")
    assert {point.attributes["error.type"] for point in points} == {"ValueError", "KeyError"}


async def test_cancellation_is_called_so(capture: Capture) -> None:
    """A cancelled operation has the error type `cancelled`."""

    @telemetry.observed(names.SESSION_ACCESS)
    async def wait() -> None:
        await asyncio.Event().wait()

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert capture.spans()[0].attributes["error.type"] == "cancelled"


async def test_span_is_current_inside_and_gone_outside(capture: Capture) -> None:
    """What runs inside a point is its child; nothing is left current behind it."""

    @telemetry.observed(names.SESSION_UPDATE)
    async def outer() -> None:
        Work().do("v")
        await asyncio.gather(Work().do_async("a"), Work().do_async("b"))

    await outer()
    assert not trace.get_current_span().get_span_context().is_valid
    spans = {span.name: span for span in capture.spans()}
    assert {span.parent_id for span in capture.spans() if span.name != "update session"} == {
        spans["update session"].span_id
    }


def test_generators_are_refused() -> None:
    """A point never holds its context across a `yield`."""
    with pytest.raises(TypeError, match="across a yield"):

        @telemetry.observed(names.SESSION_ACCESS)
        def produce() -> Iterator[int]:
            yield 1

    with pytest.raises(TypeError, match="across a yield"):

        @telemetry.observed(names.SESSION_ACCESS)
        async def produce_async() -> AsyncIterator[int]:
            yield 1


def test_decorated_functions_look_like_themselves() -> None:
    """Name, signature, docstring and kind are those of the function."""
    assert Work.do.__name__ == "do"
    assert list(inspect.signature(Work.do).parameters) == ["self", "value", "fail"]
    assert Work.do.__doc__ == "Do it."
    assert inspect.iscoroutinefunction(Work.do_async)
    assert not inspect.iscoroutinefunction(Work.do)


async def test_switched_off_nothing_is_emitted(capture: Capture) -> None:
    """Off, a point is a plain call."""
    _switch.set_enabled(False)
    try:
        assert Work().do("v") == "v"
        assert await Work().do_async("v") == "v"
    finally:
        _switch.set_enabled(True)
    assert capture.spans() == []
    assert capture.points("snakepit.session.operation.duration") == []


def test_faults_of_our_own_are_contained_and_counted(capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """An error in describing an operation does not reach it; it is counted, and said once."""

    @telemetry.observed(names.SESSION_ACCESS, details=lambda: {"a": 1 / 0})
    def work() -> str:
        return "done"

    before = _guard.fault_count
    assert [work(), work()] == ["done", "done"]
    assert _guard.fault_count == before + 2
    assert len([record for record in caplog.records if "contained" in record.message]) == 1
    assert len(capture.spans("access session")) == 2
    assert [point.value for point in capture.points("snakepit.telemetry.faults")] == [2]


def test_attributes_outside_the_allowed_set_are_dropped_and_counted(capture: Capture) -> None:
    """A metric never gets an attribute that the registry does not allow it."""
    telemetry.record(names.METRIC_WORKER_EXITS, 1, {names.SNAKEPIT_POOL_NAME: "p", names.SESSION_ID: "s"})
    metrics = capture.metrics()
    assert [point.attributes for point in metrics["snakepit.worker.exits"]] == [{"snakepit.pool.name": "p"}]
    assert [point.value for point in metrics["snakepit.telemetry.attribute.dropped"]] == [1]
