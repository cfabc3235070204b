"""`snakepit-otel config`: what the settings come to, and whether they are right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from snakepit_otel.cli.app import app
from tests.processes import run

Config = Callable[..., Result]
FILE = """\
adapter = "shop:A"
[pool]
max_retries = 3
worker_ttl = 60
[pool.environment]
OMP_X = "[2]"
API_KEY = "hidden"
DATABASE = "postgres://me:hidden@db/shop"
[pools.gpu]
adapter = "shop:G"
profile = "thread"
"""


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Config:
    """Run `config` in a folder and an environment of its own."""
    monkeypatch.chdir(tmp_path)

    def config(*arguments: str, **environ: str) -> Result:
        with monkeypatch.context() as here:
            for name, value in environ.items():
                here.setenv(f"SNAKEPIT_OTEL_{name}", value)
            result = CliRunner().invoke(app, ["config", *arguments])
        assert "hidden" not in result.output
        return result

    return config


def rows(config: Config, *arguments: str, **environ: str) -> dict[str, dict[str, Any]]:
    """Return what `config show --json` says of each setting."""
    result = config("show", "--json", *arguments, **environ)
    assert result.exit_code == 0
    return {row.pop("name"): row for row in json.loads(result.stdout)["settings"]}


def test_every_setting_has_value_default_and_source(config: Config) -> None:
    """What the file, the environment and nobody set is told apart; so is what is set to its default."""
    Path("snakepit.toml").write_text(FILE)
    found = rows(config, POOLS__GPU__SIZE="3", POOL__AFFINITY="strict_queue")
    assert found["adapter"] == {"value": "shop:A", "default": None, "changed": True, "source": "snakepit.toml:1"}
    assert found["pool.max_retries"] == {"value": 3, "default": 3, "changed": False, "source": "snakepit.toml:3"}
    assert found["pool.worker_ttl"] == {"value": 60, "default": "inf", "changed": True, "source": "snakepit.toml:4"}
    assert found["pool.affinity"]["source"] == "SNAKEPIT_OTEL_POOL__AFFINITY"
    assert found["pool.affinity"]["value"] == "strict_queue"
    assert found["pools.gpu.size"]["source"] == "SNAKEPIT_OTEL_POOLS__GPU__SIZE"
    assert found["pools.gpu.profile"]["default"] == "process"
    assert found["server.listen"] == {"value": None, "default": None, "changed": False, "source": "default"}
    assert {row["source"] for name, row in found.items() if name.startswith("zero_copy.")} == {"default"}


def test_secrets_are_masked(config: Config) -> None:
    """Of the workers' variables, which may be anything, no value is shown."""
    Path("snakepit.toml").write_text(FILE)
    found = rows(config, POOLS__GPU__ENVIRONMENT__HF_TOKEN="hidden")
    assert found["pool.environment.OMP_X"]["value"] == "***"
    assert found["pool.environment.API_KEY"]["value"] == "***"
    assert found["pool.environment.DATABASE"]["value"] == "***"
    assert found["pools.gpu.environment.HF_TOKEN"]["value"] == "***"


def test_only_what_is_not_as_by_default(config: Config) -> None:
    """--changed leaves out what is as by default, wherever it was said."""
    assert config("show", "--changed").stdout == "all settings have their defaults\n"
    Path("snakepit.toml").write_text("[pool]\nmax_retries = 3\nspares = 1\n")
    assert list(rows(config, "--changed")) == ["pool.spares"]


def test_the_table_is_for_people(config: Config) -> None:
    """Each setting has a line with its value, its default where that is another, and its source."""
    Path("snakepit.toml").write_text(FILE)
    name = "POOL__ENVIRONMENT__" + "LONG_" * 20
    lines = [line.split() for line in config("show", **{name: "1"}).stdout.splitlines()]
    assert ["pool.max_retries", "3", "=", "snakepit.toml:3"] in lines
    assert ["pool.worker_ttl", "60", "inf", "snakepit.toml:4"] in lines
    assert ["pool.environment.OMP_X", "***", "none", "snakepit.toml:6"] in lines
    assert ["server.insecure", "false", "=", "default"] in lines
    assert any(line[-1] == f"SNAKEPIT_OTEL_{name}" for line in lines)


def test_which_file_was_read_is_said(config: Config) -> None:
    """The file is the one named, or of the environment, or the usual one, or none."""
    assert json.loads(config("show", "--json").stdout)["file"] is None
    assert "there is no file" in config("check").stdout
    for name in ("snakepit.toml", "other.toml", "named.toml"):
        Path(name).write_text("")
    assert json.loads(config("show", "--json").stdout)["file"] == "snakepit.toml"
    assert json.loads(config("show", "--json", CONFIG="other.toml").stdout)["file"] == "other.toml"
    assert "read from named.toml" in config("check", "--config", "named.toml", CONFIG="other.toml").stdout


def test_check_has_a_line_for_each_mistake(config: Config) -> None:
    """What is wrong goes to standard error, line by line; the exit code is 1, and 0 where all is right."""
    Path("snakepit.toml").write_text("[pool]\nsise = 1\n")
    result = config("check", POOL__SIZE="0")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "snakepit.toml:2: pool.sise: unknown setting; did you mean 'size'?",
        "SNAKEPIT_OTEL_POOL__SIZE: input should be greater than or equal to 1 (got '0')",
    ]
    Path("snakepit.toml").write_text(FILE)
    assert config("check").exit_code == 0


async def test_show_fails_as_serve_does(tmp_path: Path) -> None:
    """Wrong settings are the same complaint and exit code from `config show` and from `serve`."""
    file = tmp_path / "a.toml"
    file.write_text("[pool]\nsise = 1\nthreads_per_worker = 2\n")
    shown = await run("config", "show", "--config", str(file))
    served = await run("serve", "tests.adapters_for_tests:Useful", environ={"SNAKEPIT_OTEL_CONFIG": str(file)})
    assert shown == served
    assert shown[:2] == (2, "")
    assert f"{file}:3: pool.threads_per_worker: is for profile = 'thread'" in shown[2]
