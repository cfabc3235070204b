"""What the command line prints, and how it ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

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
)

console = Console()
complaints = Console(stderr=True)

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
    (ConfigurationError, EXIT_USAGE),
    (InvalidArguments, EXIT_USAGE),
    (InvalidSession, EXIT_USAGE),
    (AdapterNotLoaded, EXIT_USAGE),
)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end; turn our errors into one line on standard error and an exit code."""
    from snakepit_otel import event_loop

    try:
        event_loop.run(work())
    except SnakepitError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(error: SnakepitError) -> NoReturn:
    """Say what went wrong, and leave."""
    # As text, because what an error says may look like markup.
    complaints.print(Text.assemble(("error:", "bold red"), f" {error}"), soft_wrap=True)
    if isinstance(error, AuthorityUnavailable):
        complaints.print("Is it running? Start one with: snakepit-otel serve ADAPTER", highlight=False)
    if isinstance(error, ToolError) and error.traceback:
        complaints.print(Text(error.traceback.rstrip(), "dim"), soft_wrap=True)
    raise typer.Exit(next((code for kind, code in _CODES if isinstance(error, kind)), EXIT_TOOL_FAILED))


def print_json(value: Any) -> None:
    """Print a value for a script: one JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")
