"""Errors on the wire, there and back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from snakepit_otel import errors
from snakepit_otel.adapters import BaseAdapter, tool
from snakepit_otel.bridge.wire.errors import from_wire, to_status, to_wire
from snakepit_otel.bridge.wire.values import to_json
from snakepit_otel.errors import (
    AdapterNotLoaded,
    DeadlineExceeded,
    InvalidArguments,
    MiddlewareFailed,
    NoSession,
    OwnerQuotaExceeded,
    PoolNotFound,
    SessionNotFound,
    SessionQuotaExceeded,
    SessionStoreFull,
    SnakepitError,
    StateConflict,
    ToolError,
    ToolNotFound,
    ValueRefused,
)
from tests.adapters.hosting import hosted, request

MATCHED = {
    *("ValueError", "KeyError", "IndexError", "TypeError", "AttributeError", "ImportError", "RuntimeError"),
    *("NotImplementedError", "FileNotFoundError", "PermissionError", "ZeroDivisionError"),
}
"""The exceptions for which an Elixir Snakepit has structs."""
WHERE = {"tool_name": "paint", "session_id": "alice", "phase": "execute"}


def raised(error: BaseException) -> BaseException:
    """Return an error with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def own_errors(kind: type[SnakepitError] = SnakepitError) -> Iterator[type[SnakepitError]]:
    """Yield every error of ours."""
    for subclass in kind.__subclasses__():
        if subclass.__module__ == errors.__name__:
            yield subclass
            yield from own_errors(subclass)


def test_the_shape_on_the_wire() -> None:
    """An error is JSON with type, message, stacktrace as a list, traceback as text, and context."""
    described = orjson.loads(to_wire(raised(ValueError("no paint")), WHERE))
    assert described["type"] == "ValueError"
    assert described["message"] == "no paint"
    assert described["context"] == WHERE
    (frame,) = described["stacktrace"]
    assert "raise error" in frame
    assert described["traceback"].startswith("Traceback (most recent call last):\n")
    assert described["traceback"].endswith("ValueError: no paint\n")


def test_a_users_error_comes_back_as_tool_error() -> None:
    """What a tool raised is told with type, message, traceback and where it was."""
    error = from_wire(to_wire(raised(KeyError("colour")), WHERE))
    assert isinstance(error, ToolError)
    assert (error.type, error.message) == ("KeyError", "'colour'")
    assert str(error) == "KeyError: 'colour'"
    assert error.context == WHERE
    assert "raise error" in error.traceback
    assert len(error.stacktrace) == 1


def test_causes_are_told() -> None:
    """The traceback has the cause of the error as well."""
    error = raised(ValueError("outer"))
    error.__cause__ = raised(KeyError("inner"))
    described = orjson.loads(to_wire(error, WHERE))
    assert "KeyError: 'inner'" in described["traceback"]
    assert "direct cause" in described["traceback"]


@pytest.mark.parametrize("kind", list(own_errors()), ids=lambda kind: kind.__name__)
def test_our_own_errors_come_back_as_themselves(kind: type[SnakepitError]) -> None:
    """Each of our errors crosses the wire as what it is, with its message."""
    arguments: dict[type, tuple[Any, ...]] = {
        SessionNotFound: ("alice",),
        SessionQuotaExceeded: (10,),
        OwnerQuotaExceeded: (10, "web"),
        SessionStoreFull: (2, 10),
        StateConflict: ("alice", "the state", 3, 4),
        ToolError: ("ValueError", "no paint"),
        MiddlewareFailed: ("Tenancy", "before", ValueError("no tenant")),
    }
    error = kind(*arguments.get(kind, ("what happened",)))
    back = from_wire(to_wire(raised(error), WHERE))
    assert type(back) is kind
    assert str(back) == str(error)
    assert (
        vars(back).items()
        >= {key: value for key, value in vars(error).items() if key not in ("context", "tool")}.items()
    )


@pytest.mark.parametrize("kind", list(own_errors()), ids=lambda kind: kind.__name__)
def test_our_own_errors_have_types_that_elixir_matches(kind: type[SnakepitError]) -> None:
    """To Elixir each error of ours is one of the exceptions it has structs for: one that it is, where there is such."""
    if kind is ToolError:
        return
    error = kind.__new__(kind, "what happened")
    error.__dict__.update(session_id="alice", limit=1.0, expected=1, current=2, missing=3)
    for text in (to_wire(error, WHERE), to_status(error, WHERE)):
        described = orjson.loads(text)
        assert described["type"] in MATCHED
        assert described["context"]["snakepit_error"] == kind.__name__
        for base in (ValueError, TypeError, ImportError):
            assert issubclass(kind, base) is (described["type"] == base.__name__)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (InvalidArguments, "TypeError"),
        (ToolNotFound, "AttributeError"),
        (ValueRefused, "ValueError"),
        (AdapterNotLoaded, "ImportError"),
        (PoolNotFound, "KeyError"),
        (DeadlineExceeded, "RuntimeError"),
        (NoSession, "RuntimeError"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_what_an_error_of_ours_is_to_elixir(kind: type[SnakepitError], name: str) -> None:
    """The built-in exception that it is; for an unknown tool, what upstream's adapters raise."""
    assert orjson.loads(to_wire(kind("no"), WHERE))["type"] == name


def test_a_tools_error_cannot_name_itself_ours() -> None:
    """What a user puts into the context of a `ToolError` does not make it an error of ours."""
    error = ToolError("ValueError", "no", context={"snakepit_error": "QueueTimeout", "of": "mine"})
    back = from_wire(to_wire(error, WHERE))
    assert isinstance(back, ToolError)
    assert back.context == {**WHERE, "of": "mine"}


def test_an_error_that_was_relayed_is_not_changed() -> None:
    """A `ToolError` that crosses a second bridge keeps its type, traceback and first context."""
    first = to_wire(raised(ValueError("no paint")), WHERE)
    second = to_wire(raised(from_wire(first)), {"phase": "dispatch", "hop": 2})
    assert orjson.loads(second) == {**orjson.loads(first), "context": {**WHERE, "hop": 2}}


def test_somebody_elses_error_of_the_same_name_is_not_ours() -> None:
    """A user's `QueueTimeout` must not tell the caller that the request did not run."""
    mine = type("QueueTimeout", (Exception,), {})
    error = from_wire(to_wire(raised(mine("mine")), WHERE))
    assert isinstance(error, ToolError)
    assert error.type == f"{__name__}.QueueTimeout"


@pytest.mark.parametrize("text", ["no such tool", "", "[1]", '"text"', '{"message": "no type"}', '{"type": 7}'])
def test_plain_words_of_an_elixir_peer(text: str) -> None:
    """What is not our JSON is told as it is; silence is told as such."""
    error = from_wire(text, {"tool_name": "paint"})
    assert isinstance(error, ToolError)
    assert error.type == "Error"
    assert error.message == (text or "the peer reported a failure without saying more")
    assert error.context == {"tool_name": "paint"}


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "StateConflict", "message": "m", "context": {"expected": "x", "current": null}}',
        '{"type": "StateConflict", "message": 7, "context": []}',
        '{"type": "SessionNotFound"}',
        '{"type": "KeyError", "context": {"snakepit_error": 7}}',
        '{"type": "KeyError", "context": {"snakepit_error": "SystemExit"}}',
        '{"type": "ValueError", "stacktrace": 7, "traceback": null, "context": "x"}',
    ],
)
def test_odd_fields_do_no_harm(text: str) -> None:
    """A peer's fields of the wrong type are passed over."""
    assert isinstance(from_wire(text), SnakepitError)


def test_errors_that_cannot_say_themselves() -> None:
    """A broken `__str__` and text that UTF-8 cannot say still make an answer."""
    mute = type("Mute", (Exception,), {"__str__": lambda self: 1 / 0})
    assert orjson.loads(to_wire(raised(mute()), WHERE))["message"] == "<str failed: ZeroDivisionError>"
    assert orjson.loads(to_wire(raised(ValueError("\ud800")), WHERE))["message"] == "\\ud800"


def test_long_errors_are_cut() -> None:
    """A message of megabytes and endless frames do not travel whole."""

    def deeper(level: int) -> None:
        if level == 0:
            raise ValueError("x" * 1_000_000)
        and_deeper(level - 1)

    def and_deeper(level: int) -> None:
        deeper(level)

    try:
        deeper(300)
    except ValueError as error:
        text = to_wire(error, WHERE)
    assert len(text) < 200_000
    assert len(orjson.loads(text)["stacktrace"]) == 50


@pytest.mark.parametrize("character", ["x", "é", "\u2028", "%", '"', "\n"])
def test_an_error_in_a_status_fits_its_trailer(character: str) -> None:
    """gRPC clients refuse more than 8 KiB of trailers, so a status is cut to less; the kind is kept."""
    where = {**WHERE, "tool_name": character * 10_000}
    status = to_status(raised(ValueError(character * 100_000)), where)
    assert len(re.sub(rb"[^ -$&-~]", b"%00", status.encode())) < 8_000
    error = from_wire(status)
    assert isinstance(error, ToolError)
    assert error.type == "ValueError"
    assert error.message.startswith(character)
    assert error.context["phase"] == "execute"


def test_a_short_error_in_a_status_is_whole() -> None:
    """What fits is not cut."""
    error = raised(ValueError("no paint"))
    assert to_status(error, WHERE) == to_wire(error, WHERE)


class Failing(BaseAdapter):
    @tool
    def fail(self) -> None:
        self.deeper()

    def deeper(self) -> None:
        raise ValueError("no paint")

    @tool
    async def fail_async(self) -> None:
        await asyncio.sleep(0)
        self.deeper()

    @tool
    def state(self) -> None:
        self.session_context.state["key"] = 1

    @tool
    def typed(self, x: int) -> None: ...


class AsyncHooks(Failing):
    async def initialize(self) -> None: ...


@pytest.mark.parametrize("adapter", [Failing, AsyncHooks])
@pytest.mark.parametrize("name", ["fail", "fail_async"])
async def test_our_own_frames_are_left_out(adapter: type, name: str) -> None:
    """The stack begins with the tool, in a thread and on the loop: nothing of ours leads there."""
    with hosted(adapter) as host, pytest.raises(ValueError, match="no paint") as caught:
        await host.run(request(name))
    # The test's own frame, which a server does not have.
    error = caught.value.with_traceback(caught.value.__traceback__.tb_next)
    stacktrace = orjson.loads(to_wire(error, WHERE))["stacktrace"]
    assert [f"in {where}\n" in frame for where, frame in zip((name, "deeper"), stacktrace, strict=True)] == [True, True]


async def test_frames_of_ours_below_the_tool_stay() -> None:
    """Where a tool called us, the stack goes on to where we raised."""
    with hosted(Failing) as host, pytest.raises(NoSession) as caught:
        await host.run(request("state"))
    error = caught.value.with_traceback(caught.value.__traceback__.tb_next)
    stacktrace = orjson.loads(to_wire(error, WHERE))["stacktrace"]
    assert "in state\n" in stacktrace[0]
    assert "adapters/_state.py" in stacktrace[-1]


async def test_an_error_of_ours_has_no_frames() -> None:
    """Arguments that do not fit are the caller's mistake: there is no stack of ours to read."""
    with hosted(Failing) as host, pytest.raises(InvalidArguments) as caught:
        await host.run(request("typed", {"x": "1"}))
    error = caught.value.with_traceback(caught.value.__traceback__.tb_next)
    assert orjson.loads(to_wire(error, WHERE))["stacktrace"] == []


@pytest.mark.parametrize(
    "more",
    [{"numbers": list(range(5_000))}, {f"key{number}": number for number in range(2_000)}, {"k" * 20_000: ""}],
    ids=["list", "keys", "key"],
)
def test_a_status_is_short_whatever_the_context(more: dict[str, Any]) -> None:
    """What a peer has added to an error, and is too much for a status, is left out of it; the rest arrives."""
    text = orjson.dumps({"type": "Odd", "message": "it is odd", "context": {"phase": "execute", **more}}).decode()
    status = to_status(from_wire(text), {})
    assert len(status.encode()) < 8 << 10
    error = from_wire(status)
    assert isinstance(error, ToolError)
    assert (error.type, error.message, error.context["phase"]) == ("Odd", "it is odd", "execute")


def test_numbers_of_any_size_leave_an_error_what_it_is() -> None:
    """A version that no float comes near does not make another error of a conflict, on its way through us."""
    context = {"snakepit_error": "StateConflict", "expected": 1, "current": 10**400}
    error = from_wire(to_wire(from_wire(to_json({"type": "X", "message": "m", "context": context}).decode()), {}))
    assert isinstance(error, StateConflict)
    assert error.current == 10**400
