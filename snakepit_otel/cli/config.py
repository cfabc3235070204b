"""`snakepit-otel config`: show and check the settings without serving."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from snakepit_otel.cli.effective_settings import DEFAULT, Effective, effective, plain, written
from snakepit_otel.cli.output import EXIT_USAGE, console, error_console, fail, line, print_json, print_wide, shown
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.settings._loading import load

EXIT_WRONG = 1

app = typer.Typer(no_args_is_help=True, help="Show or check the settings that serve would use.")
Config = Annotated[
    Path | None,
    typer.Option(help="A TOML file with settings.", show_default="SNAKEPIT_OTEL_CONFIG, or ./snakepit.toml"),
]


@app.command()
def show(
    config: Config = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not the default.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Show every setting, its default, and where it was set.

    Values of the workers' environment, options of plug-ins and secrets are masked.
    """
    try:
        loaded = load(config)
    except ConfigurationError as error:
        fail(error)
    rows = [row for row in effective(loaded) if row.changed or not changed]
    if as_json:
        print_json(
            {"file": None if loaded.file is None else str(loaded.file), "settings": [_as_dict(row) for row in rows]}
        )
        return
    if rows:
        print_wide(_table(rows))
    else:
        console.print("all settings have their defaults")


@app.command()
def check(config: Config = None) -> None:
    """Check the settings, and print a line for each mistake."""
    try:
        loaded = load(config)
    except ConfigurationError as error:
        for line in str(error).splitlines():
            error_console.print(shown(line), soft_wrap=True)
        raise typer.Exit(EXIT_WRONG) from None
    read = f"{loaded.file} and the environment" if loaded.file else "the environment; there is no file"
    console.print(f"the settings are right; read from {read}", soft_wrap=True)


show.__doc__ = f"{show.__doc__}\n\nExit codes: 0 done, {EXIT_USAGE} the settings are wrong."
check.__doc__ = f"{check.__doc__}\n\nExit codes: 0 the settings are right, {EXIT_WRONG} they are not."


def _as_dict(row: Effective) -> dict[str, object]:
    return {
        "name": row.name,
        "value": plain(row.value),
        "default": plain(row.default),
        "changed": row.changed,
        "source": row.source,
    }


def _table(rows: list[Effective]) -> Table:
    columns = [Column(name, overflow="fold") for name in ("setting", "value", "default", "from")]
    columns[2].style = "dim"
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            row.name,
            line(written(row.value), "bold" if row.changed else ""),
            written(row.default) if row.changed else "=",
            line(row.source, "dim" if row.source == DEFAULT else ""),
        )
    return table
