"""Telemetry of references: each is counted once at its creation and once at its release."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import hypothesis
import numpy as np
import pyarrow as pa
import pytest
import pytest_asyncio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from opentelemetry import trace

from snakepit_otel import Client, Snakepit, ToolError, authority_tool, zero_copy
from snakepit_otel.errors import ReferenceRefused, WorkerExited
from snakepit_otel.telemetry import names
from snakepit_otel.testing import Capture
from snakepit_otel.zero_copy._current_scope import pending_scope
from snakepit_otel.zero_copy._reaper import reaper
from tests.waiting import PATIENT, until
from tests.zero_copy.both_sides import Bridge, Sides, bridge

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADAPTER = "tests.zero_copy.adapter:Sharing"
ELIXIR = {"snakepit.zero_copy.owner": "elixir", "snakepit.zero_copy.kind": "dlpack"}
PYTHON = {"snakepit.zero_copy.owner": "python", "snakepit.zero_copy.kind": "dlpack"}
REASON = "snakepit.zero_copy.release_reason"
REFERENCE = "snakepit.zero_copy.reference"
UNUSED = "snakepit.zero_copy.reference.unused"
CLOSED = {
    "snakepit.zero_copy.owner": {"elixir", "python"},
    "snakepit.zero_copy.kind": {"dlpack", "arrow"},
    "snakepit.zero_copy.device": {"cpu"},
    "snakepit.zero_copy.transport": {"shm", "stream"},
    REASON: {"explicit", "request_end", "expired", "peer_lost"},
    "snakepit.zero_copy.fallback_reason": {"disabled", "no_memory", "unreachable", "foreign_peer"},
    "error.type": {"ReferenceRefused", "ZeroCopyLimitExceeded"},
}


@authority_tool
def there(context: Any, t: Any = None, own: Any = None, array: Any = None) -> dict[str, Any]:
    """Return an array of the authority's own."""
    return {"large": np.full(5_000, 2.0)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Snakepit]:
    """A pit of one worker, in strict mode, which all tests share."""
    strict = {"strict_mode": True}
    async with Snakepit(ADAPTER, workers=1, authority_tools=[there], session_store=strict) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def pit(running: Snakepit, capture: Capture) -> Snakepit:
    """The pit, with nothing kept or recorded of other tests."""
    await running.execute("clear")
    gc.collect()
    reaper.drain()
    capture.clear()
    return running


def reference(size: int = 5_000) -> Any:
    """Return a reference that waits for a request."""
    return zero_copy.from_numpy(np.ones(size))


def tally(points: list[Any]) -> dict[tuple[str, ...], float]:
    """Return the values of data points, by the values of their attributes in the order of the attributes' names."""
    return {tuple(str(point.attributes[key]) for key in sorted(point.attributes)): point.value for point in points}


async def traced(pit: Snakepit, tool: str, **arguments: Any) -> tuple[str, Any]:
    """Run a tool in a trace; return the trace's id and the result."""
    with trace.get_tracer("test").start_as_current_span("caller") as span:
        got = await pit.execute(tool, arguments)
    return format(span.get_span_context().trace_id, "032x"), got


async def test_spans_are_the_request_s(pit: Snakepit, capture: Capture) -> None:
    """Creation and release are spans of the request's trace on both sides, with the reference's attributes."""
    with trace.get_tracer("test").start_as_current_span("caller") as span:
        ref = zero_copy.from_numpy(np.ones((50, 100), "f4"))
        got = await pit.execute("double", {"t": ref})
    trace_id = format(span.get_span_context().trace_id, "032x")
    about = {"snakepit.zero_copy.reference.id": ref.description.ref, "snakepit.zero_copy.size": 20_000}
    (created,), (released,) = capture.spans("create reference"), capture.spans("release reference")
    assert created.attributes == {
        **ELIXIR,
        **about,
        "snakepit.zero_copy.dtype": "float32",
        "snakepit.zero_copy.shape": "50x100",
    }
    assert released.attributes == {**ELIXIR, **about, REASON: "request_end"}
    assert {created.trace_id, released.trace_id} == {trace_id}
    assert created.ok
    there_ = [(name, id_, found) for name, id_, found in await pit.execute("spans") if id_ == trace_id]
    assert [name for name, _, _ in there_] == ["create reference", "release reference"]
    for _, _, found in there_:
        assert PYTHON.items() <= found.items()
        assert found["snakepit.zero_copy.size"] == 20_000
    assert there_[1][2][REASON] == "request_end"
    assert got.shape == (50, 100)


async def test_hand_overs_are_events(pit: Snakepit, capture: Capture) -> None:
    """Each hand-over is an export on one side and an import on the other, in the request's trace."""
    trace_id, _ = await traced(pit, "double", t=reference())
    here = [event for event in capture.events() if ".zero_copy." in event.name]
    there_ = [(name, found) for name, id_, found in await pit.execute("events") if id_ == trace_id]
    assert [event.name for event in here] == ["snakepit.zero_copy.export", "snakepit.zero_copy.import"]
    assert [name for name, _ in there_] == ["snakepit.zero_copy.import", "snakepit.zero_copy.export"]
    assert {event.trace_id for event in here} == {trace_id}
    common = {
        "snakepit.zero_copy.device": "cpu",
        "snakepit.zero_copy.dtype": "float64",
        "snakepit.zero_copy.shape": "5000",
        "snakepit.zero_copy.transport": "shm",
    }
    for owner, sent, received in (
        (ELIXIR, here[0].attributes, there_[0][1]),
        (PYTHON, there_[1][1], here[1].attributes),
    ):
        assert {**common, **owner}.items() <= sent.items()
        assert {**sent, "duration": 0} == {**received, "duration": 0}
    assert all(point.count == 1 for point in capture.points("snakepit.zero_copy.export.duration"))


async def test_fallback_is_an_event(capture: Capture) -> None:
    """Where memory cannot be shared, bytes are copied, and an event has the reason and the size."""
    gc.collect()
    reaper.drain()
    capture.clear()
    async with Snakepit(ADAPTER, workers=1, zero_copy={"enabled": False}) as pit:
        assert (await pit.execute("describe", {"t": reference()}))["copy"] is True
        (event,) = capture.events("snakepit.zero_copy.export")
        assert event.attributes["snakepit.zero_copy.transport"] == "stream"
        there_ = {name: found for name, _, found in await pit.execute("events")}
        points = await pit.execute("points")
    assert set(there_) == {"snakepit.zero_copy.import", "snakepit.zero_copy.fallback"}
    assert there_["snakepit.zero_copy.import"]["snakepit.zero_copy.transport"] == "stream"
    assert there_["snakepit.zero_copy.fallback"]["snakepit.zero_copy.fallback_reason"] == "disabled"
    (size,), (count,) = points["snakepit.zero_copy.fallback.size"], points["snakepit.zero_copy.fallback.count"]
    assert (size[0], count[0]) == (40_000, 1)


async def test_small_arrays_are_no_references(pit: Snakepit, capture: Capture) -> None:
    """What travels in the message is not created, released, exported or imported."""
    await pit.execute("echo", {"value": np.arange(10)})
    assert not [event for event in capture.events() if ".zero_copy." in event.name]
    assert not capture.points(f"{REFERENCE}.created")
    assert f"{REFERENCE}.created" not in await pit.execute("points")


async def test_references_are_counted_by_owner_and_kind(pit: Snakepit, capture: Capture) -> None:
    """Created and released, live and lifetime are recorded by owner and kind, for both sides."""
    tensors = [reference() for _ in range(3)]
    table = zero_copy.from_arrow(pa.table({"a": range(5_000)}))
    size = table.bytes
    metrics = capture.metrics()
    assert tally(metrics[f"{REFERENCE}.created"]) == {("dlpack", "elixir"): 3, ("arrow", "elixir"): 1}
    live = tally(metrics[f"{REFERENCE}.count"])
    assert (live["dlpack", "elixir"], live["arrow", "elixir"]) == (3, 1)
    live = tally(metrics[f"{REFERENCE}.size"])
    assert (live["dlpack", "elixir"], live["arrow", "elixir"]) == (120_000, size)
    await pit.execute("total", {"t": tensors})
    await pit.execute("make", {"size": 5_000, "form": "table"})
    await pit.execute("describe", {"t": table})
    metrics = capture.metrics()
    assert tally(metrics[f"{REFERENCE}.released"]) == {
        ("dlpack", "elixir", "request_end"): 3,
        ("arrow", "elixir", "request_end"): 1,
    }
    lifetimes = {point.attributes["snakepit.zero_copy.kind"]: point for point in metrics[f"{REFERENCE}.lifetime"]}
    assert lifetimes["dlpack"].count == 3
    assert 0 < lifetimes["dlpack"].value < 60
    assert set(tally(metrics[f"{REFERENCE}.count"]).values()) == {0}
    assert set(tally(metrics[f"{REFERENCE}.size"]).values()) == {0}
    of_worker = await pit.execute("points")
    ((value, _, attributes),) = of_worker[f"{REFERENCE}.created"]
    assert (value, attributes["snakepit.zero_copy.kind"], attributes["snakepit.zero_copy.owner"]) == (
        1,
        "arrow",
        "python",
    )
    ((value, _, attributes),) = of_worker[f"{REFERENCE}.released"]
    assert (value, attributes[REASON]) == (1, "request_end")
    assert f"{REFERENCE}.count" not in of_worker


async def test_attributes_are_closed(pit: Snakepit, capture: Capture) -> None:
    """Metrics have no attribute whose values callers could choose."""
    await pit.execute("call", {"name": "there", "t": reference()}, session_id="s")
    with pytest.raises(ReferenceRefused, match="no array"):
        await pit.execute("fail", {"t": pa.table({"made up": range(5_000)})}, session_id="s")
    with pytest.raises(Exception, match="dtype object"):
        zero_copy.from_numpy(np.array([None]))
    reference().release()
    here = {name: points for name, points in capture.metrics().items() if ".zero_copy." in name}
    found = [point.attributes for points in here.values() for point in points]
    found += [attributes for points in (await pit.execute("points")).values() for _, _, attributes in points]
    assert len(here) > 8
    for attributes in found:
        for key, value in attributes.items():
            assert value in CLOSED[key], (key, value)
    assert set(here) <= {metric.name for name, metric in vars(names).items() if name.startswith("METRIC_ZERO_COPY_")}


async def test_reasons(pit: Snakepit, capture: Capture) -> None:
    """A release has its reason: explicit, the end of the request, or expiry."""
    with reference():
        pass
    await pit.execute("first", {"t": reference()})
    with pytest.raises(ToolError):
        await pit.execute("fail", {"t": reference()})
    late = reference()
    pending_scope.sweep(late.created + pending_scope.settings.unused_ttl / 1000 + 1)
    dropped = reference()
    del dropped
    gc.collect()
    await until(lambda: set(tally(capture.metrics()[f"{REFERENCE}.count"]).values()) == {0})
    released = Counter(span.attributes[REASON] for span in capture.spans("release reference"))
    assert released == {"explicit": 1, "request_end": 2, "expired": 2}
    assert (await pit.execute("release", {"t": reference()}))[-1] == "True"
    points = await pit.execute("points")
    assert [attributes[REASON] for _, _, attributes in points[f"{REFERENCE}.released"]] == ["explicit"]


async def test_a_dead_worker_s_references_are_lost(capture: Capture) -> None:
    """The request's references, and those of the worker, which cannot count them, are released as lost."""
    gc.collect()
    reaper.drain()
    capture.clear()
    async with Snakepit("tests.zero_copy.adapter:Dying", workers=1, authority_tools=[there], pool=PATIENT) as pit:
        with pytest.raises(WorkerExited):
            await pit.execute("die", {"t": reference()})
        with pytest.raises(WorkerExited):
            await pit.execute("call_and_die")
        released: Counter[tuple[str, ...]] = Counter()
        lost = [("dlpack", "elixir", "peer_lost"), ("dlpack", "python", "peer_lost")]

        def both() -> bool:
            released.update({key: int(value) for key, value in tally(capture.points(f"{REFERENCE}.released")).items()})
            return lost[0] in released and lost[1] in released

        await until(both)
    assert [released[key] for key in lost] == [1, 1]


async def test_what_the_authority_holds(pit: Snakepit, capture: Capture) -> None:
    """The references of the authority are counted by owner, next to the limit."""
    (during,) = [capture.metrics() async for _ in pit.stream("chunks", {"t": reference(), "count": 1})]
    assert tally(during["snakepit.zero_copy.held.size"])["elixir",] == 40_000
    after = capture.metrics()
    assert set(tally(after["snakepit.zero_copy.held.count"]).values()) == {0}
    # Of all authorities in this process together.
    (limit,) = after["snakepit.zero_copy.held.limit"]
    assert limit.value >= zero_copy.ZeroCopySettings().max_host_bytes


# Strict mode.


async def test_strict_mode_names_a_forgetful_tool(pit: Snakepit) -> None:
    """A reference that a tool makes for nothing is reported with the line that made it."""
    trace_id, _ = await traced(pit, "forget")
    ((_, at, found),) = [event for event in await pit.execute("events") if event[0] == UNUSED]
    assert at == trace_id
    assert found["snakepit.zero_copy.creator"].startswith("zero_copy/adapter.py:")
    assert found["snakepit.zero_copy.creator"].endswith("in Sharing.forget")
    assert {**PYTHON, REASON: "request_end", "snakepit.zero_copy.shape": "10"}.items() <= found.items()
    points = await pit.execute("points")
    assert [value for value, _, _ in points[f"{UNUSED}.count"]] == [1]
    assert [value for value, _, _ in points[f"{UNUSED}.size"]] == [80]


async def test_strict_mode_names_a_forgetful_caller(
    pit: Snakepit, capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """A caller's reference that is dropped, or waits in vain, is reported with the line that made it."""
    late = reference()
    pending_scope.sweep(late.created + pending_scope.settings.unused_ttl / 1000 + 1)
    zero_copy.from_arrow(pa.table({"a": [1]}))
    gc.collect()
    await until(lambda: len(capture.events(UNUSED)) == 2)
    first, second = capture.events(UNUSED)
    assert "zero_copy/test_telemetry.py" in first.attributes["snakepit.zero_copy.creator"]
    assert first.attributes["snakepit.zero_copy.creator"].endswith("in reference")
    assert second.attributes["snakepit.zero_copy.creator"].endswith("in test_strict_mode_names_a_forgetful_caller")
    assert {event.attributes[REASON] for event in (first, second)} == {"expired"}
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    for record, what in zip(warnings, ("dlpack", "arrow"), strict=True):
        assert f"strict mode: a {what} reference of" in record.getMessage()
        assert "was created at zero_copy/test_telemetry.py:" in record.getMessage()


async def test_strict_mode_is_content_with_use(pit: Snakepit, capture: Capture) -> None:
    """What is passed, returned or released is not reported, nor what was made along the way."""
    with reference():
        await pit.execute("first", {"t": reference()})
    with pytest.raises(ToolError):
        await pit.execute("fail", {"t": reference()})
    await pit.execute("make", {"size": 5_000, "form": "reference"})
    await pit.execute("release", {"t": reference()})
    await pit.execute("call", {"name": "there", "t": np.ones(5_000)})
    _ = [chunk async for chunk in pit.stream("chunks", {"t": reference()})]
    async with Client(pit.socket) as client:
        await client.execute("first", {"t": reference()})
    gc.collect()
    assert capture.events(UNUSED) == []
    assert [name for name, _, _ in await pit.execute("events") if name == UNUSED] == []


async def test_no_reports_without_strict_mode(capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """Without strict mode nothing is reported."""
    gc.collect()
    reaper.drain()
    capture.clear()
    async with Snakepit(ADAPTER, workers=1) as pit:
        await pit.execute("forget")
        if not pending_scope.strict:  # the other tests' pit may be running
            zero_copy.from_numpy(np.ones(10))
            gc.collect()
        assert [name for name, _, _ in await pit.execute("events") if name == UNUSED] == []
    assert capture.events(UNUSED) == []
    assert "strict mode" not in caplog.text


# What comes goes.


class Books(RuleBasedStateMachine):
    """Any order of operations leaves the books right: created minus released is live, by owner and kind."""

    capture: Capture
    bridge: Bridge

    def __init__(self) -> None:
        super().__init__()
        gc.collect()
        reaper.drain()
        self.capture.clear()
        self.waiting: list[Any] = []
        self.requests: list[tuple[Sides, list[Any]]] = []
        self.created: Counter[tuple[str, ...]] = Counter()
        self.released: Counter[tuple[str, ...]] = Counter()
        self.start = self.live()
        self.views: list[Any] = []

    def live(self) -> dict[tuple[str, ...], float]:
        return tally(self.capture.points(f"{REFERENCE}.count"))

    def make(self, scope: Any, size: int, arrow: bool) -> Any:
        array = np.arange(float(size))
        made: Any = scope.from_arrow(pa.table({"a": array}), "here") if arrow else scope.from_numpy(array, "here")
        return made

    @rule(size=st.integers(0, 2_000), arrow=st.booleans())
    def wait_for_a_request(self, size: int, arrow: bool) -> None:
        self.waiting.append(self.make(pending_scope, size, arrow))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), how=st.sampled_from(["release", "drop", "expire"]))
    def give_up(self, data: st.DataObject, how: str) -> None:
        given_up = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        if how == "drop":
            del given_up
            reaper.drain()
        elif how == "expire":
            pending_scope.sweep(
                max(ref.created for ref in [*self.waiting, given_up]) + pending_scope.settings.unused_ttl / 1000 + 1
            )
            self.waiting.clear()
        else:
            given_up.release()
            given_up.release()

    @precondition(lambda self: len(self.requests) < 3)
    @rule()
    def begin(self) -> None:
        self.requests.append((self.bridge.open(), []))

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), size=st.integers(0, 2_000), arrow=st.booleans(), by_caller=st.booleans())
    def make_in_a_request(self, data: st.DataObject, size: int, arrow: bool, by_caller: bool) -> None:
        sides, made = data.draw(st.sampled_from(self.requests))
        made.append(self.make(sides.caller if by_caller else sides.worker, size, arrow))

    @precondition(lambda self: self.requests and self.waiting)
    @rule(data=st.data(), look=st.booleans())
    def pass_on(self, data: st.DataObject, look: bool) -> None:
        sides, made = data.draw(st.sampled_from(self.requests))
        made.append(self.waiting.pop())
        received = sides.hand_over(made[-1])
        if look:
            self.views.append(received.value())

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), size=st.integers(0, 2_000), arrow=st.booleans())
    def pass_a_value(self, data: st.DataObject, size: int, arrow: bool) -> None:
        sides, _ = data.draw(st.sampled_from(self.requests))
        array = np.arange(float(size))
        sides.hand_over(pa.table({"a": array}) if arrow else array)
        self.views.append(sides.hand_back(array))

    @precondition(lambda self: any(made for _, made in self.requests))
    @rule(data=st.data())
    def release_in_a_request(self, data: st.DataObject) -> None:
        _, made = data.draw(st.sampled_from([request for request in self.requests if request[1]]))
        made.pop(data.draw(st.integers(0, len(made) - 1))).release()

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), keep=st.booleans(), reason=st.sampled_from(["request_end", "peer_lost"]))
    def end(self, data: st.DataObject, keep: bool, reason: str) -> None:
        sides, made = self.requests.pop(data.draw(st.integers(0, len(self.requests) - 1)))
        if keep:
            self.views.extend(made)
        sides.worker.close()
        sides.caller.close(reason)
        sides.caller.close(reason)

    @invariant()
    def books_are_right(self) -> None:
        metrics = self.capture.metrics()
        for name, sums in (("created", self.created), ("released", self.released)):
            for point in metrics.get(f"{REFERENCE}.{name}", []):
                kind, owner = point.attributes["snakepit.zero_copy.kind"], point.attributes["snakepit.zero_copy.owner"]
                sums[kind, owner] += int(point.value)
        live = tally(metrics.get(f"{REFERENCE}.count", []))
        for key in self.created.keys() | self.released.keys() | live.keys():
            assert self.created[key] - self.released[key] == live.get(key, 0) - self.start.get(key, 0), key

    def teardown(self) -> None:
        for sides, _ in self.requests:
            sides.worker.close()
            sides.caller.close()
        self.requests.clear()
        for waiting in self.waiting:
            waiting.release()
        self.waiting.clear()
        self.books_are_right()
        assert self.created == self.released
        assert set(self.live().values()) <= {0}
        sizes = tally(self.capture.points(f"{REFERENCE}.size"))
        assert set(sizes.values()) <= {0}
        assert not self.bridge.buffer_store._stored
        assert not self.bridge.buffer_store._usage.bytes


async def test_created_minus_released_is_live(capture: Capture) -> None:
    """Whatever is done with references, in any order, each is counted once when it comes and once when it goes."""
    quickly = hypothesis.settings(
        max_examples=max(hypothesis.settings().max_examples // 8, 1), stateful_step_count=25, deadline=None
    )
    with bridge() as made:
        machine = type("Bound", (Books,), {"capture": capture, "bridge": made})
        hypothesis.stateful.run_state_machine_as_test(machine, settings=quickly)
