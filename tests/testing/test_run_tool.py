"""`run_tool`: the wire, errors, deadlines, leaks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snakepit_otel import Middleware, MiddlewareRequest, RequestRefused, SessionStore, Snakepit
from snakepit_otel.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidArguments,
    InvalidSession,
    MessageTooLarge,
    SnakepitError,
    ToolError,
    ToolNotFound,
    ValueRefused,
)
from snakepit_otel.testing import LeakError, _crossing, no_leaks, run_tool, started_worker
from tests.testing import kit_adapter
from tests.testing.kit_adapter import Kit, Untold

FILE = Path(kit_adapter.__file__)


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    """End what the adapter has left."""
    yield
    kit_adapter.STOP.set()
    for kept in kit_adapter.KEPT:
        if isinstance(kept, asyncio.Task):
            kept.cancel()
        elif hasattr(kept, "communicate"):
            kept.communicate(b"\n")
        elif hasattr(kept, "close"):
            kept.close()
    kit_adapter.KEPT.clear()
    kit_adapter.STOP.clear()


async def test_values_are_what_the_wire_makes_of_them() -> None:
    """Tuples become lists and dates text, in arguments, results, chunks and state; not so without the wire."""
    assert await run_tool(Kit, "kind", {"value": (1, 2)}) == "list"
    assert await run_tool(Kit, "kind", {"value": (1, 2)}, wire=False) == "tuple"
    assert await run_tool(Kit, "give", {"what": "tuple"}) == [1, [2]]
    assert await run_tool(Kit, "give", {"what": "tuple"}, wire=False) == (1, (2,))
    assert await run_tool(Kit, "give", {"what": "date"}) == "2026-01-02"
    assert await run_tool(Kit, "chunks") == [[1, 2], {"a": 1}]
    assert await run_tool(Kit, "keep_in_state", {"value": (1,)}) == [[1], [1, 2]]


async def outcome_of(call: Any) -> tuple[Any, ...]:
    """Return the result of a call, or its error."""
    try:
        return ("result", await call)
    except SnakepitError as error:
        return (type(error), str(error), getattr(error, "type", None), getattr(error, "message", None))


async def test_outcomes_are_those_of_production() -> None:
    """Each call ends as it does with a worker: the same result, or the same error with the same text."""
    calls: list[tuple[str, dict[str, Any]]] = [
        ("kind", {"value": Untold()}),
        ("kind", {"value": {1: 2}}),
        ("kind", {"value": "\ud800"}),
        ("kind", {"value": b"bytes"}),
        ("kind", {"value": float("nan")}),
        ("kind", {}),
        ("kind", {"value": 1, "more": 2}),
        ("nothing", {}),
        *(("give", {"what": what}) for what in ("tuple", "date", "object", "keys", "half", "missing")),
        ("keep_in_state", {"value": (1, 2)}),
        ("state_object", {}),
        ("fail", {}),
        ("timed_out", {}),
        ("sum", {"array": np.arange(4.0)}),
        ("sum", {"array": np.arange(400_000.0)}),
    ]
    async with Snakepit(Kit, workers=1) as pit:
        for tool, arguments in calls:
            there = await outcome_of(pit.execute(tool, arguments, session_id="test"))
            here = await outcome_of(run_tool(Kit, tool, arguments, errors="wire"))
            assert here == there, tool


async def test_errors_are_raised_unchanged_or_as_callers_see_them() -> None:
    """What the adapter raised by default; else a `ToolError`, whose cause it is."""
    with pytest.raises(LookupError, match="not here"):
        await run_tool(Kit, "fail")
    with pytest.raises(ToolError, match="not here") as raised:
        await run_tool(Kit, "fail", errors="wire")
    assert raised.value.type == "LookupError"
    assert raised.value.context["phase"] == "execute"
    assert isinstance(raised.value.__cause__, LookupError)
    with pytest.raises(TimeoutError, match="the database"):
        await run_tool(Kit, "timed_out", timeout=5)


async def test_our_own_errors_are_themselves() -> None:
    """In both ways, as callers get them."""
    for errors in ("raised", "wire"):
        with pytest.raises(ToolNotFound):
            await run_tool(Kit, "nothing", errors=errors)  # type: ignore[arg-type]
        with pytest.raises(InvalidArguments):
            await run_tool(Kit, "kind", errors=errors)  # type: ignore[arg-type]
    with pytest.raises(InvalidSession):
        await run_tool(Kit, "kind", {"value": 1}, session_id="x" * 300)
    with pytest.raises(ValueRefused):
        await run_tool(Kit, "kind", {"value": 1}, metadata={"snakepit_pool": "x"})


async def test_what_is_too_large_for_a_message_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As gRPC would."""
    monkeypatch.setattr(_crossing, "MAX_MESSAGE_BYTES", 10_000)
    with pytest.raises(MessageTooLarge, match="the request has"):
        await run_tool(Kit, "kind", {"value": "x" * 20_000})


async def test_a_refusal_of_middleware_is_itself() -> None:
    """In a worker's middleware, with the metadata that the test gives."""

    class Refusing(Middleware):
        def before(self, request: MiddlewareRequest) -> None:
            raise RequestRefused(f"not for {request.metadata['tenant']}")

    for errors in ("raised", "wire"):
        with pytest.raises(RequestRefused, match="not for acme"):
            await run_tool(
                Kit,
                "kind",
                {"value": 1},
                middleware=[Refusing()],
                metadata={"tenant": "acme"},
                errors=errors,  # type: ignore[arg-type]
            )


async def test_the_deadline_is_the_tools() -> None:
    """The tool sees the time that is left; a coroutine is cancelled at its end, and a thread is left to run on."""
    assert 4 < await run_tool(Kit, "wait", {"seconds": 0}, timeout=5) <= 5
    assert await run_tool(Kit, "wait", {"seconds": 0}) is None
    with pytest.raises(DeadlineExceeded, match=r"'wait' did not end within the request's deadline, 0\.02 s"):
        await run_tool(Kit, "wait", {"seconds": 60}, timeout=0.02)
    with pytest.raises(DeadlineExceeded):
        await run_tool(Kit, "block", {"seconds": 0.1}, timeout=0.02)
    with pytest.raises(ConfigurationError):
        await run_tool(Kit, "wait", {"seconds": 0}, timeout=float("nan"))


async def test_unknown_options_are_refused() -> None:
    """A word that is none of the two does not count as the default."""
    with pytest.raises(ConfigurationError):
        await run_tool(Kit, "fail", errors="callers")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        await run_tool(Kit, "fail", leaks="raise")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "kind", "name"),
    [
        ("thread", "thread", "left-thread"),
        ("file", "descriptor", FILE.name),
        ("socket", "descriptor", "socket:"),
        ("process", "process", "input()"),
    ],
)
async def test_leaks_are_named_with_their_origin(what: str, kind: str, name: str) -> None:
    """Each with the line of the tool that made it."""
    await run_tool(Kit, "leave", {"what": "nothing"}, leaks="error")
    with pytest.raises(LeakError, match="'leave' of Kit left") as raised:
        await run_tool(Kit, "leave", {"what": what}, leaks="error")
    (leak,) = [leak for leak in raised.value.leaks if leak.kind == kind and name in leak.name]
    assert leak.made_at is not None
    assert leak.made_at.startswith(f"{FILE}:")
    assert leak.made_at.endswith(" in leave")
    assert str(leak) in str(raised.value)


async def test_a_task_that_is_left_is_named_with_its_origin() -> None:
    """Tasks of coroutine tools, by the line that made them."""
    with pytest.raises(LeakError, match=re.escape("task left-task (sleep), made at ")) as raised:
        await run_tool(Kit, "leave_task", leaks="error")
    assert str(raised.value.leaks[0].made_at).endswith(" in leave_task")


async def test_views_that_are_kept_are_leaks() -> None:
    """An array that arrived by reference is the request's, and its memory goes with it."""
    array = np.arange(400_000.0)
    await run_tool(Kit, "sum", {"array": array}, leaks="error")
    with pytest.raises(LeakError, match="view"):
        await run_tool(Kit, "sum", {"array": array, "keep": True}, leaks="error")


async def test_a_tool_that_outlives_its_deadline_is_a_leak() -> None:
    """The error is the deadline's, and a block around it finds the thread."""

    async def watched() -> None:
        async with no_leaks():
            with pytest.raises(DeadlineExceeded):
                await run_tool(Kit, "block", {"seconds": 0.8}, timeout=0.02)

    with pytest.raises(LeakError, match="in which a plain tool still runs"):
        await watched()


async def test_threads_of_a_worker_that_goes_on_are_no_leak() -> None:
    """They wait for the next tool."""
    async with started_worker(Kit):
        await run_tool(Kit, "kind", {"value": 1}, leaks="error")


async def test_what_ends_by_itself_is_no_leak() -> None:
    """Threads and tasks have half a second to end."""
    await run_tool(Kit, "leave_for_a_moment", leaks="error")


def fail_with_an_open_file() -> None:
    """Leave a file open and raise."""
    kit_adapter.KEPT.append(FILE.open())
    raise KeyError("first")


def test_a_block_finds_leaks_without_an_event_loop() -> None:
    """In a plain test too; patterns say what may stay, and another error is not replaced."""
    with pytest.raises(LeakError) as raised, no_leaks():
        kit_adapter.KEPT.append(FILE.open())
    assert str(FILE) in raised.value.leaks[0].name
    with no_leaks(ignore=[f"descriptor * ({FILE})"]):
        kit_adapter.KEPT.append(FILE.open())
    with pytest.raises(KeyError, match="first"), no_leaks():
        fail_with_an_open_file()


async def test_the_session_is_there_afterwards() -> None:
    """Several requests share a store, with the wire."""
    sessions = SessionStore()
    await run_tool(Kit, "keep_in_state", {"value": 1}, sessions=sessions)
    assert await sessions.get_state("test", "value") == [1, [1, 2]]
