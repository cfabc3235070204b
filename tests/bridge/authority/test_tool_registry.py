"""The authority's tool registry: its own tools, and those that workers bring."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from snakepit_otel.adapters import BaseAdapter, tool
from snakepit_otel.adapters._tool import tools_of
from snakepit_otel.bridge.authority import tool_registry as registry_module
from snakepit_otel.bridge.authority.byte_budget import Budget, Charge
from snakepit_otel.bridge.authority.state_tools import STATE_TOOLS
from snakepit_otel.bridge.authority.tool_registry import (
    AuthorityContext,
    ToolRegistry,
    authority_tool,
    authority_tools_in,
)
from snakepit_otel.bridge.proto import snakepit_bridge_pb2 as pb
from snakepit_otel.bridge.wire.codec import decode_any
from snakepit_otel.bridge.wire.peers import Peer
from snakepit_otel.bridge.wire.tool_specs import registrations
from snakepit_otel.errors import BudgetExceeded, InvalidArguments, ToolNotFound, ToolRefused
from snakepit_otel.sessions import SessionStore


@authority_tool
def greet(context: AuthorityContext, name: str, times: int = 1) -> str:
    """Greet somebody.

    As often as asked.
    """
    return f"{context.session_id} {name * times}"


@authority_tool("Not for adapters.", name="back.door", exposed=False)
async def hidden(context: AuthorityContext) -> str:
    return "hidden"


def registration(name: str, **metadata: str) -> pb.ToolRegistration:
    """Return a worker's registration."""
    return pb.ToolRegistration(name=name, metadata=metadata)


def context() -> AuthorityContext:
    """Return a call's context."""
    return AuthorityContext("alice", SessionStore())


def test_own_tools_are_found_by_name() -> None:
    """A tool of the authority has the name it was given, and is exposed unless it says otherwise."""
    tools = ToolRegistry([greet, hidden])
    for name, exposed in (("greet", True), ("back.door", False)):
        found = tools.find(name)
        assert found is not None
        assert found.exposed is exposed
    assert tools.find("hidden") is None


def test_only_exposed_tools_are_for_adapters() -> None:
    """An adapter is told of a tool that does not exist, or that it may not call."""
    tools = ToolRegistry([greet, hidden])
    assert tools.exposed("greet").tool.name == "greet"
    with pytest.raises(ToolNotFound, match=r"'back\.door' is not exposed to adapters"):
        tools.exposed("back.door")
    with pytest.raises(ToolNotFound, match=r"the authority has no tool 'great'; adapters may call greet$"):
        tools.exposed("great")
    assert [spec.name for spec in tools.specs(exposed_only=True)] == ["greet"]
    assert [spec.name for spec in tools.specs(exposed_only=False)] == ["greet", "back.door"]


def test_a_tool_added_by_hand_may_be_exposed_or_not() -> None:
    """`exposed` at the registration wins over the function's mark; an unmarked function is exposed."""
    tools = ToolRegistry()
    tools.add(greet, exposed=False)

    def plain(context: AuthorityContext) -> None: ...

    tools.add(plain)
    assert [spec.name for spec in tools.specs(exposed_only=True)] == ["plain"]


def test_a_duplicate_is_refused() -> None:
    """A second tool of one name is refused with the word that the wire page has."""
    with pytest.raises(ToolRefused, match="duplicate_tool: the authority has a tool 'greet' already"):
        ToolRegistry([greet, greet])


def test_the_state_tools() -> None:
    """Adapters reach session state by five tools, the guide's two among them."""
    specs = ToolRegistry(STATE_TOOLS).specs(exposed_only=True)
    assert {"get_session_state", "set_session_state"} < {spec.name for spec in specs}
    assert len(specs) == 5


async def test_a_tool_runs_with_checked_arguments() -> None:
    """Plain tools run in a thread, coroutines on the loop; both with their arguments checked."""
    tools = ToolRegistry([greet, hidden])
    assert await tools.run(tools.exposed("greet"), context(), {"name": "x", "times": 2}) == "alice xx"
    assert await tools.run(tools.find("back.door"), context(), {}) == "hidden"  # type: ignore[arg-type]
    with pytest.raises(InvalidArguments, match="greet: argument 'name' is missing"):
        await tools.run(tools.exposed("greet"), context(), {})


async def test_stop_iteration_in_a_tool_is_an_error() -> None:
    """A plain tool that lets StopIteration out fails rather than never to answer."""

    def exhausted(context: AuthorityContext) -> Any:
        return next(iter(()))

    tools = ToolRegistry([exhausted])
    with pytest.raises(RuntimeError, match="StopIteration"):
        await tools.run(tools.exposed("exhausted"), context(), {})


def test_marked_functions_of_a_module() -> None:
    """A module's authority tools are found by their mark."""
    assert authority_tools_in(globals()) == [greet, hidden]


def test_a_tool_as_the_wire_describes_it() -> None:
    """Name, description, parameters with type, need and default, metadata, and whether it streams."""

    class Painter(BaseAdapter):
        @tool(metadata={"team": "walls"})
        def paint(self, colour: str, coats: int = 2, when: Any = date(2024, 2, 29)) -> Any:
            """Paint the wall."""
            yield colour, coats, when

    (made,) = registrations(tools_of(Painter).values())
    assert (made.name, made.description, made.supports_streaming) == ("paint", "Paint the wall.", True)
    assert dict(made.metadata) == {"team": "walls"}
    assert [(spec.name, spec.type, spec.required) for spec in made.parameters] == [
        ("colour", "str", True),
        ("coats", "int", False),
        ("when", "any", False),
    ]
    assert not made.parameters[0].HasField("default_value")
    assert [decode_any(spec.default_value) for spec in made.parameters[1:]] == [2, "2024-02-29"]


def test_foreign_tools_are_kept_by_session() -> None:
    """What a worker registers for one session is not another's, and is forgotten with it."""
    tools = ToolRegistry()
    ids = tools.register_foreign("alice", [registration("paint"), registration(" draw ")])
    assert set(ids) == {"paint", "draw"}
    assert len(set(ids.values())) == 2
    assert tools.register_foreign("bob", [registration("paint")]) != {"paint": ids["paint"]}
    assert (tools.foreign_count("alice"), tools.foreign_count("bob")) == (2, 1)
    tools.forget("alice")
    tools.forget("nobody")
    assert (tools.foreign_count("alice"), tools.foreign_count("bob")) == (0, 1)


def test_foreign_duplicates_are_refused() -> None:
    """A name registered twice for a session, at once or later, is refused with `duplicate_tool`."""
    tools = ToolRegistry()
    with pytest.raises(ToolRefused, match="duplicate_tool"):
        tools.register_foreign("alice", [registration("paint"), registration("paint")])
    assert tools.foreign_count("alice") == 0
    tools.register_foreign("alice", [registration("paint")])
    with pytest.raises(ToolRefused, match="duplicate_tool: session 'alice' has a tool 'paint' already"):
        tools.register_foreign("alice", [registration("draw"), registration("paint")])
    assert tools.foreign_count("alice") == 1


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (registration(""), "tool name '' is refused"),
        (registration("-x"), "tool name '-x' is refused"),
        (registration("x" * 65), "1 to 64 letters"),
        (registration("x", **{str(n): "" for n in range(33)}), "33 entries"),
        (registration("x", k="v" * 4_096), "4097 bytes"),
        (pb.ToolRegistration(name="x", description="d" * 300_000), "at most 262144 are allowed for its description"),
        (pb.ToolRegistration(name="x" * 300_000), "'xxx"),
        (
            pb.ToolRegistration(name="x", parameters=[pb.ParameterSpec(validation_json="v" * 300_000)]),
            "tool 'x' is registered with 300",
        ),
        (pb.ToolRegistration(name="x", parameters=[pb.ParameterSpec()] * 257), "257 parameters"),
    ],
    ids=["empty", "sign", "long", "entries", "bytes", "description", "giant name", "schema", "parameters"],
)
def test_foreign_tools_obey_the_limits(bad: pb.ToolRegistration, words: str) -> None:
    """A registration beyond the registry's limits is refused, and the good ones beside it as well."""
    tools = ToolRegistry()
    with pytest.raises(ToolRefused, match=words):
        tools.register_foreign("alice", [registration("good"), bad])
    assert tools.foreign_count("alice") == 0


def test_foreign_tools_do_not_grow_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session has at most so many tools, however they come, and their room is given back at its end."""
    monkeypatch.setattr(registry_module, "_MAX_TOOLS_PER_SESSION", 3)
    budget = Budget(anonymous=900, anonymous_peer=900)
    somebody = Peer("127.0.0.1", is_known=False)
    tools = ToolRegistry()
    with pytest.raises(ToolRefused, match="more than 3 tools"):
        tools.register_foreign("a", [registration(str(n)) for n in range(4)])
    tools.register_foreign("a", [registration("x")], Charge(budget, somebody, 0, "tools"))
    tools.register_foreign("a", [registration("y"), registration("z")], Charge(budget, somebody, 0, "tools"))
    with pytest.raises(ToolRefused, match="more than 3 tools"):
        tools.register_foreign("a", [registration("4")])
    with pytest.raises(BudgetExceeded, match="no room for"):
        tools.register_foreign("b", [registration("x")], Charge(budget, somebody, 0, "tools"))
    assert (tools.foreign_count("a"), tools.foreign_count("b"), budget.held(somebody)) == (3, 0, 768)
    tools.forget("a")
    assert (tools.foreign_count("a"), budget.held(somebody)) == (0, 0)
