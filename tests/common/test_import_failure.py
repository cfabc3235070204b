"""Text of a failed import."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from snakepit_otel.common.import_failure import import_failure


def failing(file: Path, code: str) -> str:
    """Return the text of the failed import of a file with this code."""
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("users", file)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever a user's module raises
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return import_failure(caught.value)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import os\nos.nothing", "AttributeError: module 'os' has no attribute 'nothing' ({file}, line 2)"),
        ("def load():\n    1 / 0\n\nload()", "ZeroDivisionError: division by zero ({file}, line 2, in load)"),
        ("def x(:\n", "SyntaxError: invalid syntax ({file}, line 1)"),
        ("import json\njson.loads('')", "JSONDecodeError: Expecting value: line 1 column 1 (char 0) ({file}, line 2)"),
        ("import no_such_module_here", "ModuleNotFoundError: No module named 'no_such_module_here' ({file}, line 1)"),
        ("raise SystemExit", "SystemExit ({file}, line 1)"),
    ],
)
def test_the_place_is_the_users(tmp_path: Path, code: str, text: str) -> None:
    """The file and line are those of the last frame of the user's own code, whatever it calls."""
    file = tmp_path / "users.py"
    assert failing(file, code) == text.format(file=file)


def test_a_module_that_is_not_there() -> None:
    """Where no frame is the user's, there is no place."""
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module("no_such_module_here")
    shown = import_failure(caught.value.with_traceback(caught.value.__traceback__.tb_next))  # type: ignore[union-attr]
    assert shown == "ModuleNotFoundError: No module named 'no_such_module_here'"
