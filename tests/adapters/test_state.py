"""Session state as a mapping, from threads and from coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from snakepit_otel.adapters import BaseAdapter, SessionState, tool
from snakepit_otel.common.json_keys import ZERO_COPY
from snakepit_otel.errors import NoSession, StateConflict, StateRefused
from snakepit_otel.sessions import SessionStore
from snakepit_otel.testing import run_tool
from tests.adapters.hosting import authority_of, hosted, request

Use = Callable[[SessionState], Any]
uses: list[Any] = []
"""What the tools are to do with the state."""


class Using(BaseAdapter):
    @tool
    def use(self) -> Any:
        return uses[0](self.session_context.state)

    @tool
    async def use_async(self) -> Any:
        return await uses[0](self.session_context.state)

    @tool
    def count(self, by: int) -> int:
        total: int = self.session_context.state.change("total", lambda total: total + by, default=0)
        return total

    @tool
    async def count_async(self, by: int) -> int:
        return await self.session_context.state.achange("total", lambda total: total + by, default=0)  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def no_uses() -> Iterator[None]:
    """Forget what the test before did."""
    yield
    uses.clear()


async def use(what: Use, *, name: str = "use", session_id: str | None = "alice", **state: Any) -> Any:
    """Do something with the state of a session that begins with `state`."""
    uses.append(what)
    try:
        return await run_tool(Using, name, session_id=session_id, state=state)
    finally:
        uses.clear()


async def test_it_is_a_mapping() -> None:
    """Reading, writing, deleting, counting and listing work as with a dict."""

    def play(state: SessionState) -> Any:
        state["b"] = {"deep": [1, None, "x"]}
        state["c"] = None
        del state["a"]
        assert "b" in state
        assert "a" not in state
        assert state.setdefault("d", 4) == 4
        assert state.pop("d") == 4
        return dict(state), len(state), sorted(state), state.get("c", 7), state.get("z", 7)

    result = await use(play, a=1)
    assert result == [{"b": {"deep": [1, None, "x"]}, "c": None}, 2, ["b", "c"], None, 7]


async def test_a_key_that_is_not_there_is_a_key_error() -> None:
    """Reading or deleting what is not there raises `KeyError`, as a dict does."""
    with pytest.raises(KeyError, match="nothing"):
        await use(lambda state: state["nothing"])
    with pytest.raises(KeyError, match="nothing"):
        await use(lambda state: state.pop("nothing"))
    with pytest.raises(KeyError, match="nothing"):
        await use(lambda state: state.__delitem__("nothing"))


async def test_versions_and_compare_and_set() -> None:
    """A versioned read and a compare-and-set see every write in between."""

    def play(state: SessionState) -> Any:
        assert state.versioned("new") == (None, 0)
        first = state.compare_and_set("new", "mine", 0)
        assert state.versioned("new") == ("mine", first)
        state["new"] = "another's"
        with pytest.raises(StateConflict) as conflict:
            state.compare_and_set("new", "mine again", first)
        return conflict.value.expected == first < conflict.value.current

    assert await use(play)


async def test_from_a_coroutine() -> None:
    """The methods that begin with `a` do the same, awaited."""

    async def play(state: SessionState) -> Any:
        await state.aset("b", 2)
        assert await state.aget("b") == 2
        assert await state.aget("z", 7) == 7
        assert (await state.aversioned("z")).version == 0
        version = await state.acompare_and_set("c", 3, 0)
        with pytest.raises(StateConflict):
            await state.acompare_and_set("c", 4, version + 1)
        assert await state.achange("c", lambda value: value + 1) == 4
        assert await state.adelete("a") is True
        assert await state.adelete("a") is False
        return await state.akeys()

    assert sorted(await use(play, name="use_async", a=1)) == ["b", "c"]


@pytest.mark.parametrize("name", ["count", "count_async"])
async def test_no_update_is_lost(name: str) -> None:
    """Many requests that change one value at once, on eight threads, all count."""
    sessions = SessionStore()
    await sessions.create("alice")
    authority = authority_of(sessions)
    with hosted(Using, threads=8) as host:
        await asyncio.gather(
            *(host.run(request(name, {"by": n}, session_id="alice", authority=authority)) for n in range(64))
        )
    assert await sessions.get_state("alice", "total") == sum(range(64))


async def test_change_gives_up_in_the_end() -> None:
    """A change that somebody else always overtakes fails with the conflict rather than for ever."""
    attempts = []

    def play(state: SessionState) -> Any:
        def overtaken(value: Any) -> Any:
            attempts.append(value)
            state["key"] = len(attempts)
            return "mine"

        state.change("key", overtaken)

    with pytest.raises(StateConflict):
        await use(play)
    assert len(attempts) == 100


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"inner": {ZERO_COPY: True, "ref": "1"}}, "zero-copy reference, which is valid within one request"),
        (b"bytes", "is a builtins.bytes; state holds JSON only"),
        ([1, {"x": {1, 2}}], r"state\['key'\]\[1\]\['x'\] is a builtins.set"),
        ({1: "a"}, "keys of JSON objects are text"),
        (float("nan"), "is nan, which JSON cannot represent"),
        (object(), "is a builtins.object"),
    ],
    ids=["reference", "bytes", "set", "key", "nan", "object"],
)
async def test_what_is_not_json_is_refused_where_it_is_written(value: Any, words: str) -> None:
    """References and whatever JSON cannot say are refused by name, in every way of writing."""

    async def set_it(state: SessionState) -> None:
        await state.aset("key", value)

    for what, name in (
        (lambda state: state.__setitem__("key", value), "use"),
        (lambda state: state.compare_and_set("key", value, 0), "use"),
        (lambda state: state.change("key", lambda _: value), "use"),
        (set_it, "use_async"),
    ):
        with pytest.raises(StateRefused, match=words):
            await use(what, name=name)


async def test_a_request_without_session_has_no_state() -> None:
    """Every use of the state of a request without session says that it has none."""

    async def get(state: SessionState) -> Any:
        return await state.aget("key")

    for what in (lambda state: state["key"], lambda state: state.update(key=1), len, list):
        with pytest.raises(NoSession, match="belongs to no session and has no state; call it with a session_id"):
            await use(what, session_id=None)
    with pytest.raises(NoSession):
        await use(get, name="use_async", session_id=None)
