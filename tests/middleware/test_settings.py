"""Middleware by name: what loads, what does not, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from snakepit_otel import Middleware, Snakepit
from snakepit_otel.cli.app import app
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.middleware._loading import load_middleware
from snakepit_otel.middleware._settings import MiddlewareSettings, middleware_of
from snakepit_otel.settings import load_settings
from tests.adapters_for_tests import Useful

HERE = __name__
FILE = """
[middleware]
authority = ["tests.middleware.test_settings:Limited", "tests.middleware.test_settings:Plain"]
worker = ["tests.middleware.test_settings:Plain"]
options."tests.middleware.test_settings:Limited" = { limit = 3, key = "hidden" }
"""


class Plain(Middleware):
    """Has no options."""


class Limited(Middleware):
    """Has options."""

    def __init__(self, limit: int, key: str = "") -> None:
        if limit < 1:
            raise ValueError("limit must be positive")
        self.limit = limit


class Unrelated:
    """No middleware."""


@pytest.mark.parametrize(
    ("spec", "options", "why"),
    [
        ("Plain", {}, "is no name: write package.module:Class"),
        ("tests.no_such_module:Plain", {}, "importing tests.no_such_module failed: ModuleNotFoundError"),
        (f"{HERE}:Missing", {}, "has no 'Missing'"),
        (f"{HERE}:Unrelated", {}, "is no subclass of snakepit_otel.Middleware"),
        (f"{HERE}:Limited", {}, "cannot be made with the options \\(none\\): TypeError"),
        (f"{HERE}:Limited", {"limit": 0}, "with the options limit: ValueError: limit must be positive"),
    ],
)
def test_what_cannot_be_made_is_named(spec: str, options: dict[str, Any], why: str) -> None:
    """The error says which middleware, and what is wrong with it."""
    with pytest.raises(ConfigurationError, match=why):
        load_middleware(spec, options)


def test_a_file_lists_middleware_for_each_side(tmp_path: Path) -> None:
    """Options are by the class as listed."""
    file = tmp_path / "snakepit.toml"
    file.write_text(FILE)
    made, workers = middleware_of(load_settings(file, environ={}).middleware)
    assert [type(one) for one in made] == [Limited, Plain]
    assert isinstance(made[0], Limited)
    assert made[0].limit == 3
    assert workers == ((f"{HERE}:Plain", {}),)


def test_variables_list_middleware() -> None:
    """Names with commas between them, as for other lists."""
    settings = load_settings(environ={"SNAKEPIT_OTEL_MIDDLEWARE__WORKER": f"{HERE}:Plain,b:C"}).middleware
    assert settings.worker == (f"{HERE}:Plain", "b:C")


def test_options_of_what_is_not_listed_are_refused() -> None:
    """A name that is written differently twice is a mistake."""
    with pytest.raises(
        ConfigurationError, match=r"middleware\.options: are for 'a:B', which neither authority nor worker lists"
    ):
        middleware_of({"options": {"a:B": {}}})


def test_a_program_gives_instances_and_names() -> None:
    """In their order; a mapping gives the workers' as well."""
    mine = Limited(1)
    made, workers = middleware_of([mine, f"{HERE}:Plain"])
    assert made[0] is mine
    assert type(made[1]) is Plain
    assert workers == ()
    made, workers = middleware_of(
        {"authority": [mine], "worker": ["mine.py:Own"], "options": {"mine.py:Own": {"a": 1}}}
    )
    assert made == [mine]
    assert workers == ((f"{Path.cwd()}/mine.py:Own", {"a": 1}),)
    assert middleware_of(MiddlewareSettings()) == ([], ())


def test_what_is_no_middleware_is_refused() -> None:
    """A class in place of an instance is the likely mistake."""
    with pytest.raises(ConfigurationError, match="takes instances of Middleware, and names of classes"):
        Snakepit(Useful, middleware=[Plain])  # type: ignore[list-item]


def test_config_show_lists_it_without_its_options(tmp_path: Path) -> None:
    """Options may be secrets."""
    file = tmp_path / "snakepit.toml"
    file.write_text(FILE)
    shown = CliRunner().invoke(app, ["config", "show", "--json", "--config", str(file)])
    rows = {row["name"]: row["value"] for row in json.loads(shown.output)["settings"] if row["changed"]}
    assert rows["middleware.worker"] == [f"{HERE}:Plain"]
    assert "hidden" not in shown.output


def test_the_doctor_makes_each_middleware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be made is a problem."""
    (tmp_path / "mine.py").write_text(
        "from snakepit_otel import Middleware\nprint('imported')\nclass Good(Middleware): ...\n"
    )
    file = tmp_path / "snakepit.toml"
    file.write_text('[middleware]\nauthority = ["mine:Good", "mine:Bad"]\nworker = ["mine:Good"]\n')
    monkeypatch.chdir(tmp_path)
    file.chmod(0o600)
    result = CliRunner().invoke(app, ["doctor", "--json", "--config", str(file)])
    good, bad = (check for check in json.loads(result.output)["checks"] if check["topic"].startswith("middleware"))
    assert good["status"] == "ok"
    assert good["message"] == "can be made, for the authority and the workers"
    assert bad["status"] == "problem"
    assert "mine has no 'Bad'" in bad["message"]
