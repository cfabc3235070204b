"""The flags of `snakepit-otel worker`, read with typer and without."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from snakepit_otel.cli import worker_command
from snakepit_otel.cli.worker_flags import WorkerFlags, parse

SWITCHES = ["--heartbeat-disabled", "--heartbeat-independent"]
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=5)


def flag_of(field: dataclasses.Field[Any]) -> st.SearchStrategy[list[str]]:
    """Return ways to give one flag."""
    name = f"--{field.name.replace('_', '-')}"
    if isinstance(field.default, bool):
        return st.just([name])
    values = st.integers(-2, 70_000).map(str) | TEXT if isinstance(field.default, int) else TEXT
    return values.flatmap(lambda value: st.sampled_from([[name, value], [f"{name}={value}"]]))


FLAGS = st.one_of(*map(flag_of, dataclasses.fields(WorkerFlags)), st.sampled_from(SWITCHES).map(lambda name: [name]))


def by_typer(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> WorkerFlags | None:
    """Return the flags as the command has them; None if it does not get as far as to run."""
    seen: list[WorkerFlags] = []
    with monkeypatch.context() as patched:
        patched.setattr(worker_command, "run", seen.append)
        app = typer.Typer()
        app.command()(worker_command.worker)
        CliRunner().invoke(app, arguments)
    return seen[0] if seen else None


@given(st.lists(FLAGS, max_size=6).map(lambda groups: [part for group in groups for part in group]))
def test_read_as_typer_reads_them(arguments: list[str]) -> None:
    """What is read without typer is what typer reads; and what typer refuses, is not read."""
    flags = parse(arguments)
    theirs = by_typer(arguments, pytest.MonkeyPatch())
    assert flags is None or flags == theirs


@pytest.mark.parametrize("arguments", [["--help"], ["--script-path"], ["--unknown"], ["extra"], ["--port"], ["--"]])
def test_what_is_for_people_is_left_to_typer(arguments: list[str]) -> None:
    """Help, questions and mistakes are the command's to answer."""
    assert parse(arguments) is None


def test_what_elixir_passes_is_read() -> None:
    """The command line of Elixir's Snakepit takes the short way."""
    line = "--adapter a.B --port 0 --elixir-address localhost:5 --snakepit-run-id r --snakepit-instance-name n"
    line += " --snakepit-instance-token t --max-workers 4 --thread-safety-check --snakepit-bridge"
    assert parse(line.split()) == WorkerFlags(
        adapter="a.B",
        elixir_address="localhost:5",
        snakepit_run_id="r",
        snakepit_instance_name="n",
        snakepit_instance_token="t",
        max_workers=4,
        thread_safety_check=True,
        snakepit_bridge=True,
    )
