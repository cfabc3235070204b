"""`snakepit-otel new adapter`: write a package with an adapter, its tests, settings and README."""

from __future__ import annotations

import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from snakepit_otel.cli.new.names import names_for
from snakepit_otel.cli.new.renderer import rendered
from snakepit_otel.cli.new.writer import write
from snakepit_otel.cli.output import EXIT_TOOL_FAILED, console, error_console, fail, lines
from snakepit_otel.errors import ConfigurationError

app = typer.Typer(no_args_is_help=True)


@app.callback()
def new() -> None:
    """Start a project from a template that runs."""


@app.command()
def adapter(
    name: Annotated[str, typer.Argument(help="The name: my-adapter, my_adapter or MyAdapter.")],
    directory: Annotated[
        Path | None, typer.Option(help="The folder to write to; it must be empty.", show_default="NAME, in this one")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write to a folder that is not empty, over files of the same names.")
    ] = False,
) -> None:
    """Write a package with an adapter, its tests, settings and a README.

    Either all files are written, or none.

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
        message = f"{folder}: {error.strerror}" if error.strerror else str(error)
        error_console.print(f"error: {message}. Nothing was written.", soft_wrap=True)
        raise typer.Exit(EXIT_TOOL_FAILED) from None
    unchanged = f"; {len(files) - written} were up to date" if written < len(files) else ""
    _print(f"{written} files written to {folder}{unchanged}: package {names.package}, adapter {names.class_name}\n")
    _print("Install it, run its tests, serve it:")
    for line in _next_commands(folder):
        _print(f"  {line}")
    _print(f"\n{folder / 'README.md'} shows how to call it, and how to see it on the dashboards.")


def _next_commands(folder: Path) -> list[str]:
    python = _command("python") or shlex.quote(sys.executable)
    install = f"{python} -m pip install" if find_spec("pip") else f"uv pip install --python {python}"
    there = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    return [
        f'{there}{install} -e ".[test]"',
        f"{python} -m pytest",
        f"{_command('snakepit-otel') or f'{python} -m snakepit_otel'} serve",
    ]


def _command(name: str) -> str | None:
    """Return the name of a command of this installation, with its path if a shell would find another one."""
    ours = Path(sys.executable).with_name(name)
    if not ours.is_file():
        return None
    return name if shutil.which(name) == str(ours) else shlex.quote(str(ours))


def _print(text: str) -> None:
    console.print(lines(text), soft_wrap=True)
