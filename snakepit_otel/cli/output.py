"""Output, errors and exit codes of the command line."""

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

_WIDTH_WITHOUT_TERMINAL = 1_000  # columns, so that no line is wrapped
_MAX_TRACEBACK_CHARACTERS = 20_000


class PlainConsole(Console):
    """Console that prints a string as one line of text, without markup or terminal controls."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    def render_str(self, text: str, *, style: Any = "", justify: Any = None, overflow: Any = None, **_: Any) -> Text:
        """Return the text; rich calls this for everything printed, and for every cell of a table."""
        return Text(printable(text, None), style=style, justify=justify, overflow=overflow)


console = PlainConsole()
error_console = PlainConsole(stderr=True)

EXIT_TOOL_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_UNAVAILABLE = 4

EXIT_CODES_HELP = (
    "Exit codes: 0 done, 1 the tool or the operation failed, 2 wrong usage or settings, "
    "3 not found, 4 no answer at the address."
)

_EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
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
# Errors with a line for each setting, or a traceback; text from peers is kept to one line.
_MULTILINE_ERRORS = (ConfigurationError, AdapterNotLoaded, WorkerStartFailed)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine; turn a `SnakepitError` into a message on standard error and an exit code."""
    from snakepit_otel.system import event_loop

    try:
        event_loop.run(work())
    except SnakepitError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(error: SnakepitError) -> NoReturn:
    """Print an error, and exit with its code."""
    message = (
        lines(shown(error), indent="  ")
        if isinstance(error, _MULTILINE_ERRORS)
        else printable(shown(error), MAX_MESSAGE_CHARACTERS)
    )
    error_console.print(Text.assemble(("error:", "bold red"), " ", message), soft_wrap=True)
    for note in getattr(error, "__notes__", ()):
        error_console.print(
            Text.assemble(("hint:", "bold"), " ", printable(note, MAX_MESSAGE_CHARACTERS)), soft_wrap=True
        )
    if isinstance(error, AuthorityUnavailable):
        error_console.print("Is it running? Start one with: snakepit-otel serve ADAPTER")
    if isinstance(error, ToolError) and error.traceback:
        error_console.print(lines(f"  {shown(_end_of(error.traceback.rstrip()))}", "dim", indent="  "), soft_wrap=True)
    raise typer.Exit(exit_code(error))


def exit_code(error: SnakepitError) -> int:
    """Return the exit code of a command that fails with this error."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), EXIT_TOOL_FAILED)


def line(text: str, style: str = "") -> Text:
    """Return text on one line."""
    return Text(printable(text, None), style)


def shown(value: object) -> str:
    """Return an error's text, or a traceback, without secrets."""
    return masked_text(str(value))


def styled(*parts: str | tuple[str, str]) -> Text:
    """Return text on one line, of parts with or without a style each."""
    return Text.assemble(
        *(printable(part, None) if isinstance(part, str) else (printable(part[0], None), part[1]) for part in parts)
    )


def lines(value: object, style: str = "", *, indent: str = "") -> Text:
    """Return text with its line breaks; lines after the first begin with `indent`."""
    return Text(printable_lines(value, indent), style)


def json_text(value: Any) -> Text:
    """Return a value as JSON, indented and in colours, for people."""
    return JSONHighlighter()(_dumped(value, indent=2))


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value for a script: one JSON document on standard output, with invisible characters escaped."""
    document = _dumped(value, indent=indent)
    try:
        document.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        document = json.dumps(value, indent=indent, default=str)
    sys.stdout.write(document + "\n")
    sys.stdout.flush()


def print_wide(*parts: RenderableType, width: int = _WIDTH_WITHOUT_TERMINAL) -> None:
    """Print tables as wide as the terminal, or in lines of up to `width` without one."""
    fits = console.is_terminal or "COLUMNS" in os.environ
    (console if fits else PlainConsole(width=width)).print(*parts)


def replace_unencodable() -> None:
    """Have standard output escape characters that its encoding lacks, as standard error does."""
    with suppress(AttributeError, ValueError, OSError):  # another kind of stream, or none
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _dumped(value: Any, indent: int | None) -> str:
    return printable_json(json.dumps(value, indent=indent, default=str, ensure_ascii=False))


def _end_of(traceback: str) -> str:
    """Return the end of a long traceback, which is its most useful part."""
    if len(traceback) <= _MAX_TRACEBACK_CHARACTERS:
        return traceback
    return f"…{traceback[-_MAX_TRACEBACK_CHARACTERS:].partition(chr(10))[2]}"
