"""Reference of the command line, made from the commands themselves.

python -m documentation.commands            write docs/cli.md
python -m documentation.commands --check    fail if it differs from what would be written
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import typer.main

from snakepit_otel.cli.app import app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
PROGRAM = "snakepit-otel"
# Of every command, and not worth a row in each.
_CODE = re.compile(r"`[^`]*`|(?<![\w-])(?:--[a-z][\w-]*|\w*__\w*|[A-Z][A-Z0-9]*_[A-Z0-9_<>*]*|[a-z_]+\.[a-z]+_[a-z_]+)")
_COMMON = {"--help", "--install-completion", "--show-completion"}
_APPLICATION: Any = typer.main.get_command(app)
_HEAD = """# Command line

<!-- Made by `make generate` from the commands; do not edit. -->
Every command has `--help`. Those that talk to a running server find it by `--address`, else by the variable
`SNAKEPIT_OTEL_ADDRESS`, else by `server.socket` of the settings ([configuration](configuration.md)), else at
this user's socket.

"""


def page() -> str:
    """Return the page's text."""
    commands = list(_commands(_APPLICATION, PROGRAM))
    index = ["| command | does |", "| --- | --- |"]
    index += [f"| [`{name}`](#{_anchor(name)}) | {_cell(_first_sentence(command))} |" for name, command in commands]
    parts = [_HEAD + "\n".join(index), *(_section(name, command) for name, command in commands)]
    return "\n\n".join(parts) + "\n"


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield all commands below one, each with its full name."""
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for part, one in below.items():
        if not one.hidden:
            yield from _commands(one, f"{name} {part}")


def _section(name: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument" and not one.hidden]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    options = [one for one in options if not _COMMON & set(one.opts)]
    words = [name, *(["[OPTIONS]"] if options else []), *map(_usage, arguments)]
    parts = [f"## {name}", _help(command.help), "```text\n" + " ".join(words) + "\n```"]
    if rows := [*(_row(_usage(one), one) for one in arguments), *(_row(_names(one), one) for one in options)]:
        parts.append("\n".join(["| | default | |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts)


def _usage(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()).strip("[].").removesuffix("...")
    shown = f"{name}..." if argument.nargs == -1 else name
    return shown if argument.required else f"[{shown}]"


def _names(option: Any) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} {_kind(option)}"


def _kind(option: Any) -> str:
    return str(option.metavar or option.display_type(typer.Context(_APPLICATION))).strip("<>").upper()


def _default(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        return _cell(parameter.show_default)
    default = parameter.default
    is_shown = default is not None and not callable(default) and default not in (False, (), [], "")
    return f"`{default}`" if is_shown and not parameter.required and parameter.show_default else ""


def _row(name: str, parameter: Any) -> str:
    variables = parameter.envvar if isinstance(parameter.envvar, list) else [parameter.envvar]
    also = "".join(f" Variable `{variable}`" for variable in variables if variable)
    return f"| `{name}` | {_default(parameter)} | {_cell(_help(parameter.help))}{also} |"


def _help(text: str | None) -> str:
    """Return a help text as Markdown: paragraphs, with options, variables and settings as code."""
    marked = _CODE.sub(lambda found: f"`{found[0].strip('`')}`", (text or "").replace("\f", "").strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", marked))


def _first_sentence(command: Any) -> str:
    return re.split(r"(?<=[.:])\s", _help(command.help), maxsplit=1)[0].rstrip(":.")


def _cell(text: str) -> str:
    return text.replace("\n\n", " ").replace("|", "\\|")


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def main(arguments: list[str]) -> int:
    """Write the page, or compare it."""
    text = page()
    if "--check" not in arguments:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    is_same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
    if not is_same:
        print("docs/cli.md differs from the commands: run `make generate`", file=sys.stderr)
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
