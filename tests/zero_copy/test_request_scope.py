"""Request scope of references: each lives for one request of one session."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
import pytest_asyncio

from snakepit_otel import AuthorityContext, Client, Snakepit, authority_tool, zero_copy
from snakepit_otel.errors import (
    DeadlineExceeded,
    InvalidArguments,
    ReferenceMisused,
    ReferenceReleased,
    StateRefused,
    ToolError,
    ToolNotFound,
    WorkerExited,
    ZeroCopyError,
)
from snakepit_otel.testing import Capture
from snakepit_otel.zero_copy._current_scope import pending_scope
from snakepit_otel.zero_copy._reference import Reference
from tests.waiting import PATIENT, until
from tests.zero_copy.both_sides import Bridge

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADAPTER = "tests.zero_copy.adapter:Sharing"
RULE = "a reference lives for one request"
OUTLIVED = "snakepit.zero_copy.view.outlived"

kept: list[Any] = []


@authority_tool
def there(context: AuthorityContext, t: Any = None, own: Any = None, array: Any = None) -> dict[str, Any]:
    """Tell what came, and return arrays of the authority's own."""
    given = {"t": t, "own": own, "array": array}
    return {
        "owners": {name: value.owner for name, value in given.items() if value is not None},
        "sums": {name: float(np.asarray(value).sum()) for name, value in given.items() if value is not None},
        "large": np.full(5_000, 2.0),
        "small": np.arange(3),
        "t": t,
    }


@authority_tool
def give(context: AuthorityContext, size: int) -> Any:
    """Return a reference of the authority's own."""
    return zero_copy.from_numpy(np.full(size, 3.0))


@authority_tool
def keep_here(context: AuthorityContext, own: Any = None, array: Any = None, t: Any = None) -> None:
    """Keep what came for later."""
    kept.extend(value for value in (own, t) if value is not None)


@authority_tool
def fail_there(context: AuthorityContext, own: Any = None, array: Any = None, t: Any = None) -> None:
    """Fail with a view in hand."""
    view = own.to_numpy()
    raise ValueError(f"no {view[0]}")


@authority_tool
async def store_there(context: AuthorityContext, t: Any) -> None:
    """Store a reference in the session."""
    assert context.session_id is not None
    await context.sessions.set_state(context.session_id, "x", {"deep": [t]})


TOOLS = [there, give, keep_here, fail_there, store_there]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Snakepit]:
    """A pit of one worker, which all tests share."""
    async with Snakepit(ADAPTER, workers=1, authority_tools=TOOLS) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def pit(running: Snakepit) -> AsyncIterator[Snakepit]:
    """The pit, with nothing kept from other tests; in the end it must hold nothing."""
    await running.execute("clear")
    yield running
    await running.execute("clear")
    kept.clear()
    await until(lambda: not held(running))


def held(pit: Snakepit) -> int:
    """Return how many buffers the authority holds."""
    assert pit._dispatcher is not None
    return sum(int(count) for count, _ in pit._dispatcher.buffer_store._read_count())


def reference(size: int = 5_000) -> Reference:
    """Return a reference that waits for a request."""
    return zero_copy.from_numpy(np.ones(size))


async def outlived_there(pit: Snakepit) -> list[Any]:
    """Return the worker's views that outlived their requests, since the last look."""
    return list((await pit.execute("points")).get(OUTLIVED, []))


def assert_released(ref: Reference, words: str = RULE) -> None:
    """Fail unless every use of a reference is refused, by the rule."""
    assert ref.released
    for use in (ref.to_numpy, ref.to_arrow, ref.value, lambda: np.from_dlpack(ref), lambda: np.asarray(ref)):
        with pytest.raises(ReferenceReleased, match=words):
            use()
    assert repr(ref).endswith(", released>")


# The end of a request, however it ends.


async def test_spent_by_success(pit: Snakepit) -> None:
    """After its request a reference is of no use, and is not taken for another."""
    ref = reference()
    assert await pit.execute("first", {"t": ref}) == 1.0
    assert_released(ref)
    with pytest.raises(ReferenceReleased, match=RULE):
        await pit.execute("first", {"t": ref})


async def test_spent_by_a_failed_tool(pit: Snakepit) -> None:
    """A tool that fails ends its request."""
    ref = reference()
    with pytest.raises(ToolError, match="no 2"):
        await pit.execute("fail", {"t": ref}, session_id="s")
    assert_released(ref, "its request of session 's' has ended, and a reference lives for one request")


async def test_spent_by_cancelling(pit: Snakepit, tmp_path: Path) -> None:
    """A caller that is cancelled ends its request on both sides."""
    ref = reference()
    marker = tmp_path / "started"
    task = asyncio.create_task(pit.execute("wait", {"t": ref, "marker": str(marker)}))
    await until(marker.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_released(ref)
    assert not held(pit)
    await released_there(pit)


async def test_spent_by_the_deadline(pit: Snakepit, tmp_path: Path) -> None:
    """A deadline ends the request on both sides."""
    ref = reference()
    with pytest.raises(DeadlineExceeded):
        await pit.execute("wait", {"t": ref, "marker": str(tmp_path / "started")}, timeout=0.3)
    assert_released(ref)
    assert not held(pit)
    await released_there(pit)


async def released_there(pit: Snakepit) -> None:
    """Wait until what the worker has kept is of no use there either."""
    async with asyncio.timeout(30):
        while not all(RULE in used for used in await pit.execute("has_kept")):
            await asyncio.sleep(0.005)


async def test_spent_by_what_is_refused(pit: Snakepit) -> None:
    """A request that does not come to run ends as well."""
    for tool, arguments, error in (("first", {"unknown": 1}, InvalidArguments), ("no_such_tool", {}, ToolNotFound)):
        ref = reference()
        with pytest.raises(error):
            await pit.execute(tool, {"t": ref, **arguments})
        assert_released(ref)


async def test_spent_by_the_end_of_a_stream(pit: Snakepit) -> None:
    """A stream's request ends with it, at its end or when its caller leaves."""
    ref, other = reference(), reference()
    got = [chunk async for chunk in pit.stream("chunks", {"t": ref})]
    assert_released(ref)
    assert [type(chunk) for chunk in got] == [np.ndarray, pa.Table, np.ndarray]
    assert (float(got[0].sum()), got[1].num_rows, float(got[2].sum())) == (5_000.0, 5_000, 10_000.0)
    async with aclosing(pit.stream("endless", {"t": other})) as stream:
        async for chunk in stream:
            assert float(chunk.sum()) == 10_000.0
            break
    assert_released(other)
    await released_there(pit)


async def test_spent_by_the_worker_s_death() -> None:
    """A request whose worker dies ends with that error."""
    async with Snakepit("tests.zero_copy.adapter:Dying", workers=1, pool=PATIENT) as pit:
        ref = reference()
        with pytest.raises(WorkerExited):
            await pit.execute("die", {"t": ref})
        assert_released(ref, "the process at the other end of its request is gone")
        assert not held(pit)


async def test_tools_lose_what_they_keep(pit: Snakepit) -> None:
    """A reference that a tool has kept is of no use to later requests; neither is one that the tool has made."""
    await pit.execute("keep", {"t": reference()}, session_id="alice")
    await pit.execute("keep_own", session_id="alice")
    first, second = await pit.execute("kept_works", session_id="alice")
    for used in (first, second):
        assert used.startswith("ReferenceReleased: ")
        assert "of session 'alice' has ended, and a reference lives for one request" in used


@pytest.mark.parametrize("tool", ["return_kept", "pass_on_kept"])
async def test_what_was_kept_cannot_be_passed_on(pit: Snakepit, tool: str) -> None:
    """A reference of an earlier request can be neither returned nor passed to the authority."""
    for keep, arguments in (("keep", {"t": reference()}), ("keep_own", {}), ("keep_own", {"release": True})):
        await pit.execute(keep, arguments, session_id="alice")
        with pytest.raises((ReferenceReleased, ToolError), match=r"has been released"):
            await pit.execute(tool, session_id="bob")
    await pit.execute("keep_own")
    with pytest.raises((ReferenceReleased, ToolError), match=RULE):
        await pit.execute("return_kept", {"nested": True})


async def test_released_by_hand(pit: Snakepit) -> None:
    """`release` and `with` end a reference before its request does; what was opened of it stays."""
    used, own, total, released = await pit.execute("release", {"t": reference()})
    for message in (used, own):
        assert message.startswith("ReferenceReleased: ")
        assert "released by its creator" in message
    assert (total, released) == ("5000.0", "True")
    with pytest.raises((ReferenceReleased, ToolError), match="released by its creator"):
        await pit.execute("return_released")
    with reference() as ref:
        view = ref.to_numpy()
    ref.release()
    assert_released(ref, "released by its creator")
    assert float(view.sum()) == 5_000.0
    with pytest.raises(ReferenceReleased, match="released by its creator"):
        await pit.execute("first", {"t": ref})


# What cannot be done with a reference.


def misused(function: Any, *arguments: Any) -> None:
    with pytest.raises(ReferenceMisused, match=RULE):
        function(*arguments)


async def test_no_copies_of_references_here() -> None:
    """A caller's reference cannot be pickled, copied, or encoded."""
    for ref in (reference(), zero_copy.from_arrow(pa.table({"a": [1]})), zero_copy.from_arrow(pa.array([1]))):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            misused(pickle.dumps, ref, protocol)
            misused(pickle.dumps, {"deep": [ref]}, protocol)
        misused(copy.copy, ref)
        misused(copy.deepcopy, ref)
        misused(copy.deepcopy, {"deep": [ref]})
        for dumps in (json.dumps, orjson.dumps):
            with pytest.raises(TypeError):
                dumps({"deep": [ref]})
        assert not ref.released


async def test_no_copies_of_references_there(pit: Snakepit) -> None:
    """A tool's reference cannot be pickled, copied, encoded, or kept in the session's state in any way."""
    message = await pit.execute("misuse", {"t": reference()}, session_id="s")
    for what in ("pickle", "copy", "deepcopy"):
        assert message[what].startswith("ReferenceMisused: "), what
        assert RULE in message[what]
    assert message["json"].startswith("TypeError")
    assert message["orjson"].startswith(("TypeError", "JSONEncodeError"))
    for what in ("state", "nested state", "update", "change"):
        assert message[what].startswith("StateRefused: state['x'"), (what, message[what])
        assert "is a zero-copy reference, which is valid within one request only" in message[what]
    assert message["written"] == "False"


async def test_state_refuses_references_of_everybody(pit: Snakepit) -> None:
    """The authority's own code cannot store a reference either."""
    await pit.sessions.create("keeper")
    ref = reference()
    for value in (ref, [ref], {"deep": [{"t": ref}]}):
        with pytest.raises(StateRefused, match="valid within one request only"):
            await pit.sessions.set_state("keeper", "x", value)
    with pytest.raises((ToolError, StateRefused), match="valid within one request only"):
        await pit.execute("store_there", {"t": ref}, session_id="keeper")


async def test_one_request_at_a_time(pit: Snakepit, tmp_path: Path) -> None:
    """A reference that a request has cannot be passed to another meanwhile, by caller, tool or authority."""
    ref = reference()
    marker = tmp_path / "started"
    task = asyncio.create_task(pit.execute("wait", {"t": ref, "marker": str(marker)}, session_id="alice"))
    await until(marker.exists)
    with pytest.raises(ReferenceMisused, match=r"belongs to the request of tool 'wait' of session 'alice'.*" + RULE):
        await pit.execute("there", {"t": ref}, session_id="bob")
    with pytest.raises(ReferenceMisused, match=RULE):
        await pit.execute("there", {"t": [{"deep": ref}]}, session_id="alice")
    # The request that has it is none the worse.
    assert not ref.released
    assert float(ref.to_numpy().sum()) == 5_000.0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ReferenceReleased, match=RULE):
        await pit.execute("first", {"t": ref}, session_id="bob")


async def test_another_request_s_form_is_refused(pit: Snakepit, tmp_path: Path) -> None:
    """Who writes a reference's JSON by hand, with an id that another request has, gets nothing."""
    ref = reference()
    form = ref.description.to_json()
    marker = tmp_path / "started"
    task = asyncio.create_task(pit.execute("wait", {"t": ref, "marker": str(marker)}, session_id="alice"))
    await until(marker.exists)
    async with Client(pit.socket) as client:
        for caller in (client, pit):
            with pytest.raises(ZeroCopyError):
                await caller.execute("there", {"t": form}, session_id="bob")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_kept_by_the_authority_s_tool(pit: Snakepit) -> None:
    """What an authority's tool keeps is of no use when the call is over."""
    await pit.execute("call", {"name": "keep_here", "t": reference()}, session_id="s")
    await pit.execute("keep_here", {"t": reference()}, session_id="s")
    assert len(kept) == 3
    for ref in kept:
        assert_released(ref)
        with pytest.raises(ReferenceReleased, match=RULE):
            await pit.execute("first", {"t": ref})


# What can be done.


async def test_what_is_known_of_a_reference(pit: Snakepit) -> None:
    """A tool sees kind, owner, device, dtype, shape and size."""
    seen = await pit.execute("describe", {"t": zero_copy.from_numpy(np.ones((50, 100), "f4"))})
    assert seen == {
        "kind": "dlpack",
        "owner": "elixir",
        "device": "cpu",
        "dtype": "float32",
        "shape": [50, 100],
        "bytes": 20_000,
        "copy": False,
        "released": False,
    }
    seen = await pit.execute("describe", {"t": pa.table({"a": range(5_000)})})
    assert (seen["kind"], seen["dtype"], seen["shape"], seen["copy"]) == ("arrow", "table", [5_000, 1], False)


async def test_results_of_every_kind(pit: Snakepit) -> None:
    """Arrays, tables and references that a tool returns arrive as arrays and tables, at any depth and size."""
    for size in (10, 5_000):
        for form in ("array", "reference"):
            got = await pit.execute("make", {"size": size, "form": form})
            assert (type(got), got.shape, float(got.sum())) == (np.ndarray, (size,), 7.0 * size)
            assert not got.flags.writeable
        for form in ("table", "tables_reference"):
            table = await pit.execute("make", {"size": size, "form": form})
            assert table.equals(pa.table({"a": np.full(size, 7.0)}))
        arrow = await pit.execute("make", {"size": size, "form": "arrow"})
        assert arrow.equals(pa.array(["x", None] * size))
        nested = await pit.execute("make", {"size": size, "form": "nested"})
        array, inner, one = nested["list"]
        assert (float(array.sum()), inner["table"].num_rows, one, nested["scalar"]) == (7.0 * size, size, 1, 2)
    assert await pit.execute("make", {"size": 1, "form": "bytes"}) == b"abc"


async def test_results_stay(pit: Snakepit) -> None:
    """What a caller is given is his to keep, whatever comes after, and holds up nothing."""
    results = [await pit.execute("double", {"t": np.full(5_000, float(number))}) for number in range(20)]
    assert not held(pit)
    assert [float(result[0]) for result in results] == [2.0 * number for number in range(20)]


async def test_returning_what_came_in(pit: Snakepit) -> None:
    """A tool may return its argument, as it is or nested; the caller gets an array of the same memory."""
    content = np.arange(5_000.0)
    for size in (10, 5_000):
        ref = zero_copy.from_numpy(content[:size])
        got = await pit.execute("echo", {"value": [ref, {"again": ref}]})
        assert got[0].tolist() == got[1]["again"].tolist() == content[:size].tolist()
        assert_released(ref)
        assert (await pit.execute("echo", {"value": content[:size]})).tolist() == content[:size].tolist()
    table = pa.table({"a": ["x", None] * 5_000})
    assert (await pit.execute("echo", {"value": table})).equals(table)


async def test_the_same_reference_twice(pit: Snakepit) -> None:
    """A reference that is passed twice in one call is one reference there."""
    ref = reference()
    assert await pit.execute("same", {"one": ref, "two": ref}) is True
    array = np.ones(5_000)
    ref = reference()
    assert await pit.execute("total", {"a": ref, "b": [ref, {"c": ref}], "d": array, "e": [array]}) == 25_000.0


async def test_nested_references(pit: Snakepit) -> None:
    """References, arrays large and small travel in lists and dicts."""
    nested = {"deep": [reference(), {"er": [np.ones(10), [reference(7)]]}], "rest": [1, "x", None]}
    assert await pit.execute("total", {"first": nested, "second": [[np.ones(600)]]}) == 5_617.0


async def test_calls_back(pit: Snakepit) -> None:
    """A tool passes on its own references and those that came in, to a tool of the authority, and gets arrays."""
    got = await pit.execute("call", {"name": "there", "t": reference()}, session_id="s")
    assert got["owners"] == {"t": "elixir", "own": "python", "array": "python"}
    assert got["sums"] == {"t": 5_000.0, "own": 5_000.0, "array": 10.0}
    assert float(got["large"].sum()) == 10_000.0
    assert got["small"].tolist() == [0, 1, 2]
    assert float(got["t"].sum()) == 5_000.0
    assert (await pit.execute("call", {"name": "there"}))["owners"] == {"own": "python", "array": "python"}


async def test_results_of_call_backs_are_the_request_s(pit: Snakepit) -> None:
    """What a tool of the authority returns is a reference of the request, to be used or returned."""
    assert await pit.execute("call_and_use") == {"type": "TensorReference", "owner": "elixir", "sum": 15_000.0}
    assert float((await pit.execute("call_and_return")).sum()) == 15_000.0


async def test_call_backs_that_fail(pit: Snakepit) -> None:
    """A tool of the authority that fails with a reference leaves nothing behind, and holds no view."""
    with pytest.raises(ToolError, match="no 1"):
        await pit.execute("call", {"name": "fail_there"})
    assert not held(pit)


async def test_the_authority_s_tools_called_directly(pit: Snakepit) -> None:
    """A caller's references reach the authority's own tools, and theirs the caller."""
    got = await pit.execute("there", {"t": reference(), "array": np.ones(10)}, session_id="s")
    assert got["owners"] == {"t": "elixir", "array": "elixir"}
    assert (got["sums"], float(got["large"].sum())) == ({"t": 5_000.0, "array": 10.0}, 10_000.0)
    assert float(got["t"].sum()) == 5_000.0
    assert float((await pit.execute("give", {"size": 5_000})).sum()) == 15_000.0
    (chunk,) = [chunk async for chunk in pit.stream("give", {"size": 5_000})]
    assert float(chunk.sum()) == 15_000.0


async def test_callers_in_other_processes(pit: Snakepit) -> None:
    """A client has the same: arguments, results, streams, and the same rules."""
    async with Client(pit.socket) as client:
        ref = reference()
        assert await client.execute("first", {"t": ref}) == 1.0
        assert_released(ref)
        with pytest.raises(ReferenceReleased, match=RULE):
            await client.execute("first", {"t": ref})
        assert float((await client.execute("make", {"size": 5_000, "form": "reference"})).sum()) == 35_000.0
        chunks = [chunk async for chunk in client.stream("chunks", {"t": reference()})]
        assert [type(chunk) for chunk in chunks] == [np.ndarray, pa.Table, np.ndarray]
        with pytest.raises(ToolError, match="no 2"):
            await client.execute("fail", {"t": reference()})
        assert (await client.execute("echo", {"value": reference()})).tolist() == [1.0] * 5_000


async def test_results_of_the_authority_for_callers_in_other_processes(pit: Snakepit) -> None:
    """A client gets what tools of the authority make, called directly, as a stream, and on the way."""
    async with Client(pit.socket) as client:
        assert float((await client.execute("give", {"size": 5_000})).sum()) == 15_000.0
        (chunk,) = [chunk async for chunk in client.stream("give", {"size": 5_000})]
        assert float(chunk.sum()) == 15_000.0
        assert float((await client.execute("call_and_return")).sum()) == 15_000.0
        assert not held(pit)
        got = await client.execute("call", {"name": "there", "t": reference()})
        assert got["sums"] == {"t": 5_000.0, "own": 5_000.0, "array": 10.0}
        assert float(got["large"].sum()) == 10_000.0
    # What was made on the way and is no result is not kept for the caller.
    await until(lambda: not held(pit))


# Views that are held for too long.


async def test_views_that_are_held_are_counted(pit: Snakepit) -> None:
    """A view that a tool keeps stays valid, and is counted once, when the request ends."""
    await pit.execute("keep", {"t": reference(), "what": "view"})
    ((value, _, attributes),) = await outlived_there(pit)
    assert value == 1
    assert attributes == {"snakepit.zero_copy.owner": "elixir", "snakepit.zero_copy.kind": "dlpack"}
    assert await pit.execute("kept_works") == ["sum 5000.0"]
    assert await outlived_there(pit) == []


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("first", {}),
        ("describe", {}),
        ("keep", {"what": "reference"}),
        ("double", {}),
        ("fail", {}),
        ("call", {"name": "there"}),
        ("call", {"name": "fail_there"}),
        ("misuse", {}),
    ],
)
async def test_views_that_are_gone_are_not_counted(pit: Snakepit, tool: str, arguments: dict[str, Any]) -> None:
    """A tool that uses, returns or fails with views, and keeps none, has none that outlived."""
    for size in (10, 5_000):
        try:
            await pit.execute(tool, {"t": reference(size), **arguments}, session_id="s")
        except ToolError:
            assert tool in ("fail", "call")
    assert await outlived_there(pit) == []


async def test_results_are_not_counted(pit: Snakepit, capture: Capture) -> None:
    """What is returned, nested or streamed, outlives nothing, on either side."""
    forms = ("array", "table", "arrow", "reference", "tables_reference", "nested")
    got = [await pit.execute("make", {"size": 5_000, "form": form}) for form in forms]
    got += [chunk async for chunk in pit.stream("chunks", {"t": reference()})]
    got.append(await pit.execute("call_and_return"))
    assert await outlived_there(pit) == []
    assert capture.points(OUTLIVED) == []
    assert len(got) == 10


async def test_callers_views_are_counted(pit: Snakepit, capture: Capture) -> None:
    """A caller that holds what he opened of a reference after its request is counted like anybody."""
    ref = reference()
    view = ref.to_numpy()[1:3]
    await pit.execute("first", {"t": ref})
    (point,) = capture.points(OUTLIVED)
    assert point.value == 1
    assert point.attributes == {"snakepit.zero_copy.owner": "elixir", "snakepit.zero_copy.kind": "dlpack"}
    assert view.tolist() == [1.0, 1.0]


# References that wait for a request.


async def test_waiting_for_too_long() -> None:
    """A reference that no request comes for expires, by the time that it was made."""
    early = reference()
    pending_scope.sweep(early.created + pending_scope.settings.unused_ttl / 1000)
    assert float(early.to_numpy().sum()) == 5_000.0
    late = reference()
    pending_scope.sweep(early.created + pending_scope.settings.unused_ttl / 1000 + (late.created - early.created) / 2)
    assert_released(early, "no request came for it in time")
    assert not late.released
    pending_scope.sweep(late.created + pending_scope.settings.unused_ttl / 1000 + 0.001)
    assert_released(late, "no request came for it in time")


async def test_expired_references_are_not_taken(pit: Snakepit) -> None:
    """A request does not take what has expired."""
    ref = reference()
    pending_scope.sweep(ref.created + pending_scope.settings.unused_ttl / 1000 + 1)
    with pytest.raises(ReferenceReleased, match="no request came for it in time"):
        await pit.execute("first", {"t": ref})


async def test_garbage_collected_references_are_released() -> None:
    """A reference that waits is released with its last holder, and its memory with it."""
    gc.collect()
    before, live = pending_scope._bytes, len(pending_scope._references)
    refs = [reference() for _ in range(10)]
    assert (pending_scope._bytes - before, len(pending_scope._references) - live) == (400_000, 10)
    del refs
    gc.collect()
    await until(lambda: (pending_scope._bytes, len(pending_scope._references)) == (before, live))


async def test_a_request_keeps_its_references(shared: Bridge) -> None:
    """Within a request, a reference need not be held by its creator."""
    with shared.request() as sides:
        form = sides.caller.send(zero_copy.from_numpy(np.arange(10.0)))
        gc.collect()
        assert sides.worker.receive(form).to_numpy().tolist() == list(range(10))
    with pytest.raises(ReferenceReleased, match="has ended, and with it its references"):
        sides.worker.receive(form)
    with pytest.raises(ReferenceReleased, match="has ended, and with it its references"):
        sides.caller.send(np.arange(1_000.0))
