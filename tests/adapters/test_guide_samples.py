"""The Python classes of the session scoping guide, as they stand there."""

from __future__ import annotations

from typing import Any

from snakepit_otel import BaseAdapter, tool
from snakepit_otel.sessions import SessionStore
from snakepit_otel.testing import run_tool

loaded: list[object] = []


def load_expensive_model() -> object:
    """Load a model; each time is noted."""
    loaded.append(object())
    return loaded[-1]


def process(state: Any, args: Any) -> Any:
    """Add what came to what was there."""
    return [*(state or []), args["item"]]


# The guide, "Module-Level Caching".

# Module-level cache - shared across ALL requests
_model_cache = {}


class MyAdapter(BaseAdapter):
    def initialize(self):
        if "model" not in _model_cache:
            _model_cache["model"] = load_expensive_model()
        self.model = _model_cache["model"]

    def cleanup(self):
        # Don't clear module cache - it's shared
        pass


Caching = MyAdapter

# The guide, "Session-Scoped State".


class MyAdapter(BaseAdapter):  # type: ignore[no-redef]
    def execute_tool(self, tool_name, args, context):
        # Read session state from Elixir
        state = context.call_elixir_tool("get_session_state", key="my_state")

        # Perform computation
        result = process(state, args)

        # Save updated state back to Elixir
        context.call_elixir_tool("set_session_state", key="my_state", value=result)

        return result


Stateful = MyAdapter


class Predicting(Caching):  # type: ignore[misc, valid-type]
    """The guide's sample has no tool of its own."""

    @tool
    def predict(self) -> tuple[int, int]:
        self.requests = getattr(self, "requests", 0) + 1
        return loaded.index(self.model), self.requests


async def test_module_level_caching() -> None:
    """The model is loaded once for all requests, each of which has an instance of its own."""
    loaded.clear()
    _model_cache.clear()
    for _ in range(3):
        assert await run_tool(Predicting, "predict") == [0, 1]
    assert len(loaded) == 1


async def test_session_scoped_state() -> None:
    """State lives with the authority: it is there for the next request, and another session has its own."""
    sessions = SessionStore()
    for session_id, item, expected in (("a", 1, [1]), ("a", 2, [1, 2]), ("b", 3, [3]), ("a", 4, [1, 2, 4])):
        result = await run_tool(Stateful, "append", {"item": item}, session_id=session_id, sessions=sessions)
        assert result == expected
    assert await sessions.get_state("a", "my_state") == [1, 2, 4]
