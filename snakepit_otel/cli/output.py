"""What the command line prints, and how it ends."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.highlighter import JSONHighlighter
from rich.text import Text

from snakepit_otel.common.printable import MAX_MESSAGE_CHARACTERS, printable, printable_json, printable_lines
from snakepit_otel.common.secrets import masked_text
from snakepit_otel.errors import (
    AdapterNotLoaded,
    AuthorityUnavailable,
    ConfigurationError,
    InvalidArguments,
    InvalidSession,
    PoolNotFound,
    SessionNotFound,
    SnakepitError,
    ToolError,
    ToolNotFound,
    UnsafeSocket,
    WorkerStartFailed,
)

_WIDTH_ELSEWHERE = 1_000
"""Columns where there is no terminal, so that whoever reads the lines has each of them whole."""
_MOST_TRACEBACK = 20_000


class PlainConsole(Console):
    """A console that takes a string for one line of text: it has no markup, and drives no terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    def render_str(self, text: str, *, style: Any = "", justify: Any = None, overflow: Any = None, **_: Any) -> Text:
        """Return the text; rich asks for it with whatever is printed, and every cell of a table."""
        return Text(printable(text, None), style=style, justify=justify, overflow=overflow)


console = PlainConsole()
complaints = PlainConsole(stderr=True)

EXIT_TOOL_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_UNAVAILABLE = 4

EXIT_CODES_HELP = (
    "Exit codes: 0 done, 1 the tool or the operation failed, 2 wrong usage or settings, "
    "3 not found, 4 nobody answers at the address."
)

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (ToolNotFound, EXIT_NOT_FOUND),
    (SessionNotFound, EXIT_NOT_FOUND),
    (PoolNotFound, EXIT_NOT_FOUND),
    (AuthorityUnavailable, EXIT_UNAVAILABLE),
    (UnsafeSocket, EXIT_UNAVAILABLE),
    (ConfigurationError, EXIT_USAGE),
    (InvalidArguments, EXIT_USAGE),
    (InvalidSession, EXIT_USAGE),
    (AdapterNotLoaded, EXIT_USAGE),
)
_OF_LINES = (ConfigurationError, AdapterNotLoaded, WorkerStartFailed)
"""Errors with a line for each setting, or a traceback; others have one line, as whoever sent them might use more."""


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end; turn our errors into one line on standard error and an exit code."""
    from snakepit_otel.system import event_loop

    try:
        event_loop.run(work())
    except SnakepitError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(error: SnakepitError) -> NoReturn:
    """Say what went wrong, and leave."""
    said = (
        lines(shown(error), indent="  ")
        if isinstance(error, _OF_LINES)
        else printable(shown(error), MAX_MESSAGE_CHARACTERS)
    )
    complaints.print(Text.assemble(("error:", "bold red"), " ", said), soft_wrap=True)
    if isinstance(error, AuthorityUnavailable):
        complaints.print("Is it running? Start one with: snakepit-otel serve ADAPTER")
    if isinstance(error, ToolError) and error.traceback:
        complaints.print(lines(f"  {shown(_last_of(error.traceback.rstrip()))}", "dim", indent="  "), soft_wrap=True)
    raise typer.Exit(exit_code(error))


def exit_code(error: SnakepitError) -> int:
    """Return the exit code of a command that fails with this error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), EXIT_TOOL_FAILED)


def misuse(message: str) -> NoReturn:
    """Say what is wrong with how a command was used, and leave."""
    complaints.print(styled(("error:", "bold red"), f" {shown(message)}"), soft_wrap=True)
    raise typer.Exit(EXIT_USAGE)


def line(text: str, style: str = "") -> Text:
    """Return text on one line."""
    return Text(printable(text, None), style)


def shown(value: object) -> str:
    """Return an error's text, or a traceback, without secrets."""
    return masked_text(str(value))


def styled(*parts: str | tuple[str, str]) -> Text:
    """Return text on one line, of parts that are alone or with a style each."""
    return Text.assemble(
        *(printable(part, None) if isinstance(part, str) else (printable(part[0], None), part[1]) for part in parts)
    )


def lines(value: object, style: str = "", *, indent: str = "") -> Text:
    """Return text with the lines that it has; those after the first begin with `indent`."""
    return Text(printable_lines(value, indent), style)


def json_text(value: Any) -> Text:
    """Return a value as JSON, indented and in colours, for people."""
    return JSONHighlighter()(_dumped(value, indent=2))


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value for a script: one JSON document on standard output, with what cannot be seen escaped."""
    document = _dumped(value, indent=indent)
    try:
        document.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        document = json.dumps(value, indent=indent, default=str)
    sys.stdout.write(document + "\n")
    sys.stdout.flush()


def print_wide(*parts: RenderableType, width: int = _WIDTH_ELSEWHERE) -> None:
    """Print tables as wide as the terminal is, and in lines of up to `width` where there is none."""
    fits = console.is_terminal or "COLUMNS" in os.environ
    (console if fits else PlainConsole(width=width)).print(*parts)


def take_any_text() -> None:
    """Have standard output take text that its encoding has no letters for, as standard error does anyway."""
    with suppress(AttributeError, ValueError, OSError):  # somebody's own stream, or none
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _dumped(value: Any, indent: int | None) -> str:
    return printable_json(json.dumps(value, indent=indent, default=str, ensure_ascii=False))


def _last_of(traceback: str) -> str:
    """Return the end of a traceback, which says most, if it is a long one."""
    if len(traceback) <= _MOST_TRACEBACK:
        return traceback
    return f"…{traceback[-_MOST_TRACEBACK:].partition(chr(10))[2]}"
