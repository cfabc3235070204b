"""State that is used as plain code does where it cannot be: in coroutines, and by attributes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from snakepit_otel.adapters._state import SessionState
from snakepit_otel.errors import BlockingCall


class InACoroutine:
    """A request whose blocking calls are refused."""

    session_id: str | None = "s"
    state_id: str | None = None

    def call_elixir_tool(self, tool_name: str, /, **parameters: Any) -> Any:
        """Refuse."""
        raise BlockingCall("it would block")

    async def acall_elixir_tool(self, tool_name: str, /, **parameters: Any) -> Any:
        """Answer nothing."""


def _set(state: SessionState) -> None:
    state["x"] = 1


def _delete(state: SessionState) -> None:
    del state["x"]


WAYS: list[tuple[Callable[[SessionState], Any], str]] = [
    (lambda state: state["x"], "await state.aget('x')"),
    (lambda state: state.get("x"), "await state.aget('x')"),
    (lambda state: "x" in state, "await state.aget('x')"),
    (_set, "await state.aset('x', …)"),
    (_delete, "await state.adelete('x')"),
    (list, "await state.akeys()"),
    (len, "await state.akeys()"),
    (lambda state: state.versioned("x"), "await state.aversioned('x')"),
    (lambda state: state.compare_and_set("x", 1, 0), "await state.acompare_and_set('x', …)"),
    (lambda state: state.change("x", lambda x: x), "await state.achange('x', …)"),
]


@pytest.mark.parametrize(("use", "instead"), WAYS, ids=[instead for _, instead in WAYS])
def test_the_error_names_what_to_write(use: Callable[[SessionState], Any], instead: str) -> None:
    """Each use that would block is refused with the words to put in its place."""
    with pytest.raises(BlockingCall) as caught:
        use(SessionState(InACoroutine()))
    assert str(caught.value).endswith(f"write '{instead}'")


def test_attributes_are_not_lost() -> None:
    """Whoever takes the state for an object learns how its values are set and read."""
    state = SessionState(InACoroutine())
    with pytest.raises(AttributeError, match=r"state\['x'\] = …, and in coroutines await state.aset\('x', …\)"):
        state.x = 1
    with pytest.raises(AttributeError, match=r"state\['x'\], and in coroutines await state.aget\('x'\)"):
        _ = state.x
    assert not hasattr(state, "__array__")
    assert isinstance(copy.copy(state), SessionState)
