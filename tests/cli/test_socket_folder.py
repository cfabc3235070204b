"""The folder of a server's socket, which may not be there."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import typer

from snakepit_otel.cli.socket_folder import may_make_folder
from snakepit_otel.errors import ConfigurationError
from tests.processes import run


async def test_without_a_terminal_the_command_is_named(short_path: Path) -> None:
    """A service that is set up by hand fails at once, with what to run; nothing is made."""
    folder = short_path / "not there"
    code, _, complaint = await run(
        "serve", "tests.adapters_for_tests:Useful", environ={"SNAKEPIT_OTEL_SERVER__SOCKET": f"{folder}/a.sock"}
    )
    assert code == 2
    assert f"mkdir -p -m 700 '{folder}'" in complaint
    assert not list(short_path.iterdir())


@pytest.mark.parametrize("answer", [True, False, None])
async def test_at_a_terminal_the_user_decides(short_path: Path, answer: bool | None) -> None:
    """Yes lets the start make it; no, and an end of input, are refused with the command."""
    questions: list[str] = []

    def confirm(question: str) -> bool:
        questions.append(question)
        if answer is None:
            raise typer.Abort
        return answer

    async def decide() -> bool:
        socket = short_path / "missing" / "a.sock"
        return await may_make_folder(socket, asyncio.Event(), is_at_terminal=lambda: True, confirm=confirm)

    if answer:
        assert await decide()
    else:
        with pytest.raises(ConfigurationError, match="mkdir -p -m 700"):
            await decide()
    assert questions == [f"The socket's folder {short_path}/missing is not there. Make it, for you alone?"]


async def test_a_signal_ends_the_question(short_path: Path) -> None:
    """Who presses Ctrl-C at the question starts nothing."""
    stop = asyncio.Event()
    answered = threading.Event()
    loop = asyncio.get_running_loop()

    def confirm(_question: str) -> bool:
        loop.call_soon_threadsafe(stop.set)
        return answered.wait(60)

    socket = short_path / "missing" / "a.sock"
    assert not await may_make_folder(socket, stop, is_at_terminal=lambda: True, confirm=confirm)
    answered.set()


async def test_a_folder_that_is_there_is_no_question(short_path: Path) -> None:
    """Nobody is asked."""
    assert await may_make_folder(short_path / "a.sock", asyncio.Event(), is_at_terminal=lambda: False)
