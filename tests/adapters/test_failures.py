"""Errors raised in each step of a request, and the steps that still run."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any, ClassVar

import pytest

from snakepit_otel.adapters import BaseAdapter, SessionContext, tool
from snakepit_otel.adapters._lifecycle import AdapterHost
from snakepit_otel.errors import ToolRefused
from snakepit_otel.telemetry import Operation, _controls, names
from snakepit_otel.testing import Capture
from tests.adapters.hosting import hosted, request

STEPS = ["build", "set_session_context", "initialize", "execute", "cleanup"]


class Boom(Exception):
    """What the steps raise."""


class Plain(BaseAdapter):
    """Notes its steps, and raises in those that are to fail."""

    seen: ClassVar[list[str]] = []
    failing: ClassVar[set[str]] = set()

    def step(self, name: str) -> None:
        self.seen.append(name)
        if name in self.failing:
            raise Boom(name)

    def __init__(self) -> None:
        self.step("build")

    def set_session_context(self, context: SessionContext) -> None:
        self.step("set_session_context")

    def initialize(self) -> None:
        self.step("initialize")

    def cleanup(self) -> None:
        self.step("cleanup")

    @tool
    def paint(self) -> str:
        self.step("execute")
        return "painted"


class AsyncTool(Plain):
    @tool
    async def paint(self) -> str:
        self.step("execute")
        return "painted"


class AsyncHooks(Plain):
    async def initialize(self) -> None:
        self.step("initialize")

    async def cleanup(self) -> None:
        self.step("cleanup")


KINDS = [Plain, AsyncTool, AsyncHooks]


@pytest.fixture(autouse=True)
def begin_anew() -> None:
    """Begin with nothing seen and nothing failing."""
    Plain.seen.clear()
    Plain.failing.clear()


async def ask(host: AdapterHost, *, on_main_thread: bool) -> tuple[Any, str]:
    """Run one request; return its outcome, or what was raised, and the phase it came to."""
    asked = request("paint", on_main_thread=on_main_thread)
    try:
        return await host.run(asked), asked.phase
    except Boom as error:
        return error, asked.phase


@pytest.mark.parametrize("adapter", KINDS)
@pytest.mark.parametrize("on_main_thread", [False, True])
@pytest.mark.parametrize(
    ("failing", "phase", "steps"),
    [
        ("build", "build", ["build"]),
        ("set_session_context", "initialize", ["build", "set_session_context", "cleanup"]),
        ("initialize", "initialize", ["build", "set_session_context", "initialize", "cleanup"]),
        ("execute", "execute", STEPS),
    ],
)
async def test_what_a_step_raises_reaches_the_caller(
    adapter: type[Plain], on_main_thread: bool, failing: str, phase: str, steps: list[str]
) -> None:
    """The exception itself comes out, the phase says where, and an instance that was built is cleaned up."""
    adapter.failing.add(failing)
    with hosted(adapter) as host:
        raised, came_to = await ask(host, on_main_thread=on_main_thread)
    assert isinstance(raised, Boom)
    assert str(raised) == failing
    assert came_to == phase
    assert adapter.seen == steps


@pytest.mark.parametrize("sampling", [1.0, 0.0])
@pytest.mark.parametrize("adapter", KINDS)
@pytest.mark.parametrize("failing", ["build", "initialize", "execute", "cleanup"])
async def test_an_exception_is_an_event_of_its_session(
    adapter: type[Plain], failing: str, sampling: float, capture: Capture
) -> None:
    """What is raised is logged with the session whose request it ended, whether the trace is recorded or not."""
    adapter.failing.add(failing)
    _controls.set_sampling(sampling)
    try:
        with hosted(adapter) as host, Operation(names.REQUEST), suppress(Boom):
            await host.run(request("paint", session_id="s"))
    finally:
        _controls.set_sampling(1.0)
    (event,) = capture.events("snakepit.adapter.exception")
    assert event.attributes["session.id"] == "s"
    assert event.attributes["exception.message"] == failing
    assert bool(capture.spans()) is bool(sampling)


@pytest.mark.parametrize("adapter", KINDS)
async def test_a_result_survives_its_clean_up(adapter: type[Plain], caplog: pytest.LogCaptureFixture) -> None:
    """Where only the clean-up fails the result is kept; the failure is told beside it and logged."""
    adapter.failing.add("cleanup")
    with caplog.at_level(logging.ERROR, "snakepit_otel.adapters"), hosted(adapter) as host:
        outcome, _ = await ask(host, on_main_thread=False)
    assert outcome.result == "painted"
    assert isinstance(outcome.cleanup_error, Boom)
    assert "failed after tool 'paint' had succeeded" in caplog.text


@pytest.mark.parametrize("adapter", KINDS)
@pytest.mark.parametrize("failing", ["set_session_context", "initialize", "execute"])
async def test_the_first_failure_wins(adapter: type[Plain], failing: str, caplog: pytest.LogCaptureFixture) -> None:
    """When the clean-up fails as well, the caller hears of what failed first; the log has both."""
    adapter.failing.update({failing, "cleanup"})
    with caplog.at_level(logging.ERROR, "snakepit_otel.adapters"), hosted(adapter) as host:
        raised, _ = await ask(host, on_main_thread=False)
    assert str(raised) == failing
    assert "failed as well" in caplog.text


@pytest.mark.parametrize("adapter", KINDS)
async def test_the_next_request_is_not_touched(adapter: type[Plain]) -> None:
    """A failed request leaves nothing behind; the next one works."""
    with hosted(adapter) as host:
        adapter.failing.add("execute")
        assert isinstance((await ask(host, on_main_thread=False))[0], Boom)
        adapter.failing.clear()
        outcome, _ = await ask(host, on_main_thread=False)
    assert outcome.result == "painted"


@pytest.mark.parametrize("adapter", KINDS)
async def test_stop_iteration_is_an_error_like_any_other(adapter: type[Plain]) -> None:
    """A tool that lets StopIteration out fails, rather than never to answer, whatever thread it is in."""

    class Exhausted(adapter):  # type: ignore[misc, valid-type]
        @tool
        def paint(self) -> Any:
            return next(iter(()))

    with hosted(Exhausted) as host, pytest.raises(RuntimeError, match="StopIteration"):
        await host.run(request("paint"))
    assert adapter.seen[-1] == "cleanup"


@pytest.mark.parametrize("adapter", KINDS)
async def test_system_exit_comes_out_after_the_clean_up(adapter: type[Plain]) -> None:
    """A tool that exits is cleaned up after; its host decides what an exit means."""

    class Exiting(adapter):  # type: ignore[misc, valid-type]
        @tool
        def paint(self) -> Any:
            raise SystemExit(3)

    with hosted(Exiting) as host:
        code = None
        try:
            await host.run(request("paint"))
        except SystemExit as error:
            code = error.code
    assert code == 3
    assert adapter.seen[-1] == "cleanup"


async def test_a_generator_is_not_run_for_one_result() -> None:
    """A streaming tool called for a single result is refused, and the clean-up runs."""

    class Streaming(Plain):
        @tool
        def numbers(self) -> Any:
            self.seen.append("never")
            yield 1

        @tool
        async def later(self) -> Any:
            self.seen.append("never")
            yield 1

    with hosted(Streaming) as host:
        for name in ("numbers", "later"):
            with pytest.raises(ToolRefused, match=f"tool '{name}' streams its result; call it with stream"):
                await host.run(request(name))
    assert Plain.seen.count("cleanup") == 2
    assert "never" not in Plain.seen
