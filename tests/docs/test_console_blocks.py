"""Commands in the documentation exist, with the options and the files that they are given."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from snakepit_otel.cli.app import app
from tests.docs.blocks import Block, blocks, commands
from tests.processes import ROOT
from tests.test_examples import PRINTED

CONSOLE = blocks("console")
APPLICATION: Any = typer.main.get_command(app)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
_ASSIGNMENT = re.compile(r"\w+=")
# What stands before a command and starts it.
_STARTERS = {"opentelemetry-instrument", "exec", "sudo", "env", "timeout", "watch"}


def simple_commands(command: str) -> Iterator[list[str]]:
    """Yield the words of each command of a line, without comments, assignments, and what starts it."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words, part = list(lexer), []
    for word in [*words, ";"]:
        if word in {"|", "&&", "||", ";", "&"}:
            while part and (_ASSIGNMENT.match(part[0]) or part[0].rpartition("/")[2] in _STARTERS):
                part.pop(0)
            if part:
                yield part
            part = []
        else:
            part.append(word)


def wrong_with(words: list[str]) -> str | None:
    """Return what is wrong with the words after `snakepit-otel`; None where they can be run."""
    command, rest = APPLICATION, list(words)
    while (below := getattr(command, "commands", None)) and rest and not rest[0].startswith("-"):
        if (name := rest.pop(0)) not in below:
            return f"there is no command {name}"
        command = below[name]
    options = {name: one for one in command.params for name in (*one.opts, *one.secondary_opts) if name.startswith("-")}
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    given = 0
    while rest:
        word = rest.pop(0)
        option = options.get(word.partition("=")[0])
        if word in {"--help", "--"}:
            continue
        if word.startswith("-") and option is None:
            return f"there is no option {word}"
        if option is None:
            given += 1
        elif not option.is_flag and "=" not in word:
            if not rest:
                return f"{word} has no value"
            rest.pop(0)
    if given > len(arguments) and not any(one.nargs == -1 for one in arguments):
        return "too many arguments"
    least = sum(one.required for one in arguments)
    return "an argument is missing" if given < least and "--help" not in words else None


def problem(words: list[str]) -> str | None:
    """Return what is wrong with a command; None for what is right, and for programs that are not ours."""
    program = words[0].rpartition("/")[2]
    if program == "snakepit-otel":
        rest = [word for word in words[1:] if word not in {"<", ">"}]
        return wrong_with(rest)
    if program in {"python", "python3"} and len(words) > 1 and words[1].startswith("examples/"):
        return None if (ROOT / words[1]).is_file() else f"there is no {words[1]}"
    if program == "make":
        missing = {word for word in words[1:] if "=" not in word and not word.startswith("-")} - TARGETS
        return f"there is no target {missing}" if missing else None
    if program.startswith("scripts/") or words[0].startswith("scripts/"):
        return None if (ROOT / words[0]).is_file() else f"there is no {words[0]}"
    if program == "uvicorn" and words[1].startswith("examples."):
        file = ROOT / (words[1].partition(":")[0].replace(".", "/") + ".py")
        return None if file.is_file() else f"there is no {file}"
    return None


@pytest.mark.parametrize("block", CONSOLE, ids=lambda block: block.place)
def test_commands_exist(block: Block) -> None:
    """Each command of ours is taken with its options, and files of examples are there."""
    if block.not_run:
        return
    found = list(commands(block))
    assert found, "a console block has commands, each after `$ `"
    complaints = [
        (command, wrong) for command, _ in found for words in simple_commands(command) if (wrong := problem(words))
    ]
    assert complaints == []


def test_output_of_examples_is_theirs() -> None:
    """What the pages show of an example's output is what its own test expects."""
    for block in CONSOLE:
        for command, output in commands(block):
            if (found := re.fullmatch(r"python examples/(\w+)\.py", command)) and output and found[1] in PRINTED:
                assert output == PRINTED[found[1]], block.place


@pytest.mark.parametrize(
    "command",
    [
        "snakepit-otel serv",
        "snakepit-otel status --wach",
        "snakepit-otel sessions shwo x",
        "snakepit-otel call",
        "FOO=1 opentelemetry-instrument /opt/bin/snakepit-otel status --nothing",
        "cd x && snakepit-otel restart now",
        "python examples/gone.py",
        "make tset",
    ],
)
def test_wrong_commands_are_found(command: str) -> None:
    """Misspelt ones, and those with too much or too little."""
    assert any(problem(words) for words in simple_commands(command))
