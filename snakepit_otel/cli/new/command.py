"""`snakepit-otel new adapter`: write a package with an adapter, its tests, settings and README."""

from __future__ import annotations

import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from snakepit_otel.cli.new.naming import names_for
from snakepit_otel.cli.new.rendering import rendered
from snakepit_otel.cli.new.writing import write
from snakepit_otel.cli.output import EXIT_TOOL_FAILED, complaints, console, fail, lines
from snakepit_otel.errors import ConfigurationError

app = typer.Typer(no_args_is_help=True)


@app.callback()
def new() -> None:
    """Begin something of your own from what runs at once."""


@app.command()
def adapter(
    name: Annotated[str, typer.Argument(help="What to call it: my-adapter, my_adapter or MyAdapter.")],
    directory: Annotated[
        Path | None, typer.Option(help="The folder to write to; it must be empty.", show_default="NAME, in this one")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write to a folder that is not empty, over files of the same names.")
    ] = False,
) -> None:
    """Write a package with an adapter, its tests, settings and README, to be changed into yours.

    Either all of it is written, or nothing.

    Exit codes: 0 done, 1 the folder is not empty, or cannot be written, 2 wrong usage.
    """
    folder = directory or Path(name)
    try:
        names = names_for(name, folder)
    except ConfigurationError as error:
        fail(error)
    files = rendered(names)
    try:
        written = write(folder, files, force=force)
    except OSError as error:
        said = f"{folder}: {error.strerror}" if error.strerror else str(error)
        complaints.print(f"error: {said}. Nothing was written.", soft_wrap=True)
        raise typer.Exit(EXIT_TOOL_FAILED) from None
    as_they_were = f"; {len(files) - written} were as they should be" if written < len(files) else ""
    _say(f"{written} files written to {folder}{as_they_were}: package {names.package}, adapter {names.class_name}\n")
    _say("Install it, run its tests, serve it:")
    for line in _next(folder):
        _say(f"  {line}")
    _say(f"\n{folder / 'README.md'} says how to call it, and how to see it on the dashboards.")


def _next(folder: Path) -> list[str]:
    """Return what to type now."""
    python = _command("python") or shlex.quote(sys.executable)
    install = f"{python} -m pip install" if find_spec("pip") else f"uv pip install --python {python}"
    there = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    return [
        f'{there}{install} -e ".[test]"',
        f"{python} -m pytest",
        f"{_command('snakepit-otel') or f'{python} -m snakepit_otel'} serve",
    ]


def _command(name: str) -> str | None:
    """Return how to type a command of this installation: where a shell would find another one, with its path."""
    ours = Path(sys.executable).with_name(name)
    if not ours.is_file():
        return None
    return name if shutil.which(name) == str(ours) else shlex.quote(str(ours))


def _say(text: str) -> None:
    console.print(lines(text), soft_wrap=True)
