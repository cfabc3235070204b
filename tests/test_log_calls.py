"""Code that logs and prints makes text printable first, whatever the program around has for a log."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.test_architecture import sources

LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
SAFE = {"printable", "printable_error", "printable_lines"}
PLACEHOLDER = re.compile(r"%(?:%|[-+ #0]*\d*(?:\.\d+)?([a-zA-Z]))")


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call that logs, with where it is."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {*LEVELS, "log"}
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id.lower().strip("_") in ("log", "logger", "logging")
            ):
                yield f"{path.name}:{node.lineno}", node


def complaint(call: ast.Call) -> str | None:
    """Return what is unsafe about a call that logs."""
    template, *arguments = call.args
    if not isinstance(template, ast.Constant) or not isinstance(template.value, str):
        return "the message is not a constant, so text of a peer would be a part of it"
    kinds = [kind for kind in PLACEHOLDER.findall(template.value) if kind]
    if len(kinds) != len(arguments):
        return "the message has not as many places as there are arguments"
    for kind, argument in zip(kinds, arguments, strict=True):
        safe = isinstance(argument, ast.Call) and isinstance(argument.func, ast.Name) and argument.func.id in SAFE
        if kind not in "df" and not safe:
            return f"%{kind} takes {ast.unparse(argument)} as it is; pass it through printable()"
    return None


def test_text_is_made_printable_where_it_is_logged() -> None:
    """Every argument of every log call is a number, or has passed through the one function that makes text safe."""
    found = list(log_calls())
    assert len(found) > 40
    assert [f"{where}: {what}" for where, call in found if (what := complaint(call))] == []


@pytest.mark.parametrize(
    "code",
    ["_log.info(text)", "_log.info(f'{text}')", "_log.info('%s', text)", "_log.info('%r', text)", "_log.info('%d')"],
)
def test_unsafe_calls_are_found(code: str) -> None:
    """A call that logs text as it comes is one that the rule above refuses."""
    (statement,) = ast.parse(code).body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    assert complaint(statement.value)


def test_commands_print_by_one_module() -> None:
    """No command makes a console, markup or rich text of its own, where text of a peer would be more than text."""
    for path in sources():
        if (path.parent.name != "cli" and path.parent.parent.name != "cli") or path.name == "output.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert node.module != "rich.markup", path
                assert not (node.module == "rich" and {alias.name for alias in node.names} & {"print"}), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "Console", path
                if node.func.id in ("Text", "print"):
                    assert all(isinstance(argument, ast.Constant) for argument in node.args), f"{path}:{node.lineno}"
