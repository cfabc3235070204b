"""The folder of the socket that serve is given, made when the user at the terminal agrees."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import typer

from snakepit_otel.common.printable import printable
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.system.daemon_thread import run_in_daemon_thread


def _is_at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _confirm(question: str) -> bool:
    return typer.confirm(question, default=True, err=True)


async def may_make_folder(
    socket: Path,
    stop_requested: asyncio.Event,
    *,
    is_at_terminal: Callable[[], bool] = _is_at_terminal,
    confirm: Callable[[str], bool] = _confirm,
) -> bool:
    """Return whether the server is to be started: its socket's folder is there, or may be made; false after a signal.

    Raises `ConfigurationError`, with the command that makes the folder, where it may not, or nobody can be asked.
    """
    folder = _missing_folder(socket)
    if folder is None:
        return True
    shown = printable(folder, None)
    if is_at_terminal():
        question = f"The socket's folder {shown} is not there. Make it, for you alone?"
        answering = asyncio.ensure_future(run_in_daemon_thread(partial(_answer, confirm, question)))
        stopping = asyncio.ensure_future(stop_requested.wait())
        await asyncio.wait([answering, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if stop_requested.is_set():
            answering.cancel()
            return False
        if await answering:
            return True
    command = printable(f"mkdir -p -m 700 {shlex.quote(str(folder))}", None)
    raise ConfigurationError(f"the folder {shown} of the socket is not there; make it, for this user alone: {command}")


def _missing_folder(socket: Path) -> Path | None:
    folder = socket.absolute().parent
    return None if folder.exists() else folder


def _answer(confirm: Callable[[str], bool], question: str) -> bool:
    try:
        return confirm(question)
    except typer.Abort:
        return False
